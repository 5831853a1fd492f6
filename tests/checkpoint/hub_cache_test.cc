// Names of the Hugging Face Hub in a cache as its tools lay it out: snapshots of links to blobs.
#include "checkpoint/hub_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "base/error.h"
#include "checkpoint/model_files.h"
#include "checkpoint/raw_safetensors.h"
#include "testing/expect_error.h"
#include "testing/temp_folder.h"

namespace atom::checkpoint {
namespace {

namespace fs = std::filesystem;
using atom::testing::expect_error;
using atom::testing::TempFolder;

const std::string kMain(40, 'a'), kTagged = std::string(39, 'b') + "7";

class HubCacheTest : public ::testing::Test {
 protected:
  HubCacheTest() {
    put_snapshot(kMain, 64);
    put_snapshot(kTagged, 32);
    put("refs/main", kMain);
    put("refs/v1.0", kTagged + "\n");
    put("refs/refs/pr/2", kTagged);
  }
  fs::path cache() const { return folder_.path(); }
  fs::path repository() const { return cache() / "models--some-org--tiny.model"; }
  fs::path snapshot(const std::string& commit) const { return repository() / "snapshots" / commit; }
  void put(const fs::path& name, std::string_view bytes) {
    fs::create_directories((repository() / name).parent_path());
    write_file_atomically(repository() / name, bytes);
  }
  void put_snapshot(const std::string& commit, int hidden) {
    fs::create_directories(snapshot(commit));
    const auto link = [&](const char* name, const std::string& bytes) {
      const std::string blob = commit.substr(20) + name;
      put(fs::path("blobs") / blob, bytes);
      fs::create_symlink(fs::path("../../blobs") / blob, snapshot(commit) / name);
    };
    link("config.json", fmt::format(R"({{"hidden_size":{}}})", hidden));
    link("one.safetensors", one_element_tensors({"x"}));
    link("two.safetensors", one_element_tensors({"y"}));
    link("model.safetensors.index.json",
         R"({"weight_map":{"x":"one.safetensors","y":"two.safetensors"}})");
  }
  TempFolder folder_;
};

TEST_F(HubCacheTest, FindsTheCommitOfARevision) {
  EXPECT_EQ(find_model("some-org/tiny.model", cache()), snapshot(kMain));
  EXPECT_EQ(find_model("some-org/tiny.model@main", cache()), snapshot(kMain));
  EXPECT_EQ(find_model("some-org/tiny.model@v1.0", cache()), snapshot(kTagged));
  EXPECT_EQ(find_model("some-org/tiny.model@refs/pr/2", cache()), snapshot(kTagged));
  EXPECT_EQ(find_model("some-org/tiny.model@" + kTagged, cache()), snapshot(kTagged));
}

TEST_F(HubCacheTest, LeavesPathsAlone) {
  for (const std::string& path :
       {cache().string(), std::string("/no/such"), std::string("./some-org/tiny.model"),
        std::string("a/b/c"), std::string("../x"), std::string("some-org/tiny.model/"),
        std::string("-x"), std::string("a--b"), std::string("a..b"), std::string("a b"),
        std::string("x@../../etc"), std::string("x@a//b"), std::string("x@"), std::string(97, 'a'),
        std::string()})
    EXPECT_EQ(find_model(path, cache()), fs::path(path)) << path;
}

TEST_F(HubCacheTest, SaysHowToFetchWhatIsNotThere) {
  expect_error([&] { find_model("some-org/other", cache()); },
               {"some-org/other: there is no such folder", cache().string(),
                "'hf download some-org/other' fetches it"});
  expect_error([&] { find_model("gpt2", {}); }, {"gpt2: there is no such folder"});
  expect_error([&] { find_model("some-org/tiny.model@dev", cache()); },
               {"has no revision 'dev' of it, only", kMain, "main, refs/pr/2, v1.0",
                "'hf download some-org/tiny.model --revision dev' fetches it"});
  const std::string missing(40, 'c');
  expect_error([&] { find_model("some-org/tiny.model@" + missing, cache()); },
               {"has no revision '" + missing});
  put("refs/dangling", missing);
  expect_error([&] { find_model("some-org/tiny.model@dangling", cache()); },
               {"has no revision 'dangling'"});
  for (const std::string& bytes : {std::string("../../.."), std::string(), std::string(41, 'a')}) {
    put("refs/bad", bytes);
    expect_error([&] { find_model("some-org/tiny.model@bad", cache()); },
                 {"refs/bad: must hold a commit"});
  }
  put("refs/long", std::string(5000, 'a'));
  expect_error([&] { find_model("some-org/tiny.model@long", cache()); }, {"refs/long"});
}

TEST_F(HubCacheTest, OpensASnapshotOfLinks) {
  const auto open = [&](const char* name) { return ModelFiles::open(find_model(name, cache())); };
  const ModelFiles model = open("some-org/tiny.model");
  EXPECT_EQ(model.config().at("hidden_size"), 64);
  EXPECT_EQ(model.tensor("y").as<float>()[0], 1.0f);
  EXPECT_EQ(open("some-org/tiny.model@v1.0").config().at("hidden_size"), 32);
}

TEST_F(HubCacheTest, TakesTheFolderOfTheFirstVariable) {
  std::map<std::string, const char*> variables;
  const auto found = [&] {
    return hub_cache_folder([&](const char* name) {
      const auto at = variables.find(name);
      return at == variables.end() ? nullptr : at->second;
    });
  };
  EXPECT_EQ(found(), "");
  variables["HOME"] = "/h";
  EXPECT_EQ(found(), "/h/.cache/huggingface/hub");
  variables["XDG_CACHE_HOME"] = "/x";
  EXPECT_EQ(found(), "/x/huggingface/hub");
  variables["HF_HOME"] = "/f";
  EXPECT_EQ(found(), "/f/hub");
  variables["HUGGINGFACE_HUB_CACHE"] = "/o";
  EXPECT_EQ(found(), "/o");
  variables["HF_HUB_CACHE"] = "/c";
  EXPECT_EQ(found(), "/c");
}

}  // namespace
}  // namespace atom::checkpoint
