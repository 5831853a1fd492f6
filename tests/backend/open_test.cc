#include "backend/open.h"

#include <gtest/gtest.h>

#include <vector>

#include "backend/backends_under_test.h"
#include "testing/expect_error.h"

namespace atom::backend {
namespace {

TEST(OpenBackend, KnowsThreeNames) {
  EXPECT_EQ(open_backend("reference", {})->name(), "reference");
  EXPECT_EQ(open_backend("cpu", {.executor = &three_threads(), .isa = ""})->name(), "cpu");
  for (const char* other : {"", "gpu", "cuda:0"})
    atom::testing::expect_error([&] { open_backend(other, {}); },
                                {fmt::format("'{}'", other), "reference", "cpu", "cuda"});
}

TEST(OpenBackend, SaysWhyThereIsNoCuda) {
  if (cuda_problem().empty()) {
    EXPECT_EQ(open_candidate({"cuda", ""}, three_threads())->name(), "cuda");
  } else {
    EXPECT_EQ(cuda_problem().find('\n'), std::string::npos);
    EXPECT_NE(cuda_problem().find("cuda"), std::string::npos) << cuda_problem();
  }
}

TEST(OpenBackend, RefusesWhatIsNoPlugin) {
  const auto with = [](const std::string& path) { open_backend("cuda", {.cuda_plugin = path}); };
  atom::testing::expect_error([&] { with("/nowhere/libatom_cuda.so"); },
                              {"'cuda'", "/nowhere/libatom_cuda.so", "does not exist"});
  atom::testing::expect_error([&] { with(ATOM_TEST_DATA "/format/golden.json"); },
                              {"'cuda'", "golden.json"});
}

TEST(OpenBackend, RefusesUnknownInstructionSets) {
  atom::testing::expect_error(
      [] { open_backend("cpu", {.executor = &three_threads(), .isa = "mmx"}); }, {"mmx"});
}

TEST(OpenBackend, DescribesTheDevice) {
  for (const Candidate& c : candidates()) {
    if (c.name == "cuda" && !cuda_problem().empty()) continue;
    const auto backend = open_candidate(c, three_threads());
    EXPECT_FALSE(backend->description().empty());
    EXPECT_NE(backend->description().find(c.isa), std::string::npos);
    EXPECT_TRUE(backend->fallbacks().empty());
  }
}

class Memory : public BackendTest {};

TEST_P(Memory, IsAlignedAndKeepsBytes) {
  Buffer first = backend->allocate(1000), second = backend->allocate(1),
         none = backend->allocate(0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first.data()) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(second.data()) % 64, 0u);
  EXPECT_EQ(first.bytes(), 1000u);

  std::vector<uint8_t> bytes(1000), back(1000);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7);
  backend->upload(first.data(), bytes.data(), bytes.size());
  Buffer moved = std::move(first);
  second = std::move(moved);  // frees or swaps; the bytes stay with the handle
  backend->synchronize();
  backend->download(back.data(), second.data(), back.size());
  EXPECT_EQ(bytes, back);
}

TEST_P(Memory, RefusesMoreThanThereIs) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers end the process at such a request";
#endif
  EXPECT_THROW(backend->allocate(size_t{1} << 62), Error);
}

INSTANTIATE_TEST_SUITE_P(All, Memory, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
