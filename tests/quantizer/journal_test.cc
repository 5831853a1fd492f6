// A quantization that dies anywhere is continued to the bytes of an undisturbed one.
#include "quantizer/journal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "quantizer/quantize_job.h"
#include "testing/expect_error.h"
#include "testing/sanitized.h"
#include "testing/temp_folder.h"

namespace atom::testing {
namespace {

namespace fs = std::filesystem;
using quantizer::Journal;
using quantizer::Record;

// The hook of the tests: counts steps, and at the one that was asked for fails it or ends the process.
struct Fault {
  int at = -1;    // step; -1: none
  int code = 0;   // errno; 0: the process ends
  int steps = 0;  // so far
};
Fault fault;

int on_step(std::string_view, const fs::path&) {
  if (fault.steps++ != fault.at) return 0;
  if (fault.code == 0) ::_exit(9);
  return fault.code;
}

class JournalTest : public ::testing::Test {
 protected:
  JournalTest() {
    write_random_checkpoint(folder_ / "in", {.layers = 2});
    job_.samples = 2;
    job_.sequence = 8;
    job_.threads = 1;
    job_.journal = true;
  }
  ~JournalTest() override { set_file_hook(nullptr); }

  fs::path in() const { return folder_ / "in"; }
  fs::path out() const { return folder_ / "out"; }

  // The files of an undisturbed run without a journal.
  std::map<std::string, std::string> expected() const {
    Job job = job_;
    job.journal = false;
    job.run(in(), folder_ / "undisturbed");
    return contents(folder_ / "undisturbed");
  }
  int steps_of_a_run() {
    fault = {};
    set_file_hook(on_step);
    job_.run(in(), folder_ / "counted");
    set_file_hook(nullptr);
    fs::remove_all(folder_ / "counted");
    return fault.steps;
  }
  // What lies beside the input but "undisturbed".
  std::vector<std::string> others() const {
    std::vector<std::string> names;
    for (const std::string& name : folder_.names())
      if (name != "in" && name != "undisturbed") names.push_back(name);
    return names;
  }
  void remove_work_folders() const {
    for (const std::string& name : others())
      if (name.starts_with(".out.partial-")) fs::remove_all(folder_ / name);
  }
  void expect_resumed(const std::map<std::string, std::string>& files) {
    Job again = job_;
    again.resume = true;
    again.run(in(), out());
    EXPECT_EQ(contents(out()), files);
    EXPECT_EQ(others(), std::vector<std::string>{"out"});
    fs::remove_all(out());
  }

  TempFolder folder_{TempFolder::memory()};
  Job job_;
};

// Whatever the step, a second run ends with the same bytes; where the first one's output was complete already, that has them.
TEST_F(JournalTest, ResumesAfterDeathAtEveryStep) {
  const auto files = expected();
  const int steps = steps_of_a_run();
  ASSERT_GT(steps, 40);
  for (int step = 0; step < steps; step += kSanitized ? 5 : 1) {
    SCOPED_TRACE(step);
    const pid_t child = ::fork();
    if (child == 0) {
      fault = {.at = step};
      set_file_hook(on_step);
      job_.run(in(), out());
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 9) << status;
    if (fs::exists(out())) {
      EXPECT_EQ(contents(out()), files);
      fs::remove_all(out());
    }
    // Before the journal has its index, nothing tells a later run that the work folder is nobody's.
    if (!fs::exists(Journal::path_of(out()) / "journal.json")) remove_work_folders();
    expect_resumed(files);
  }
}

TEST_F(JournalTest, FailingStepsLeaveNothingUnderTheFinalName) {
  const auto files = expected();
  const int steps = steps_of_a_run();
  for (int step = 0; step < steps; step += kSanitized ? 7 : 1) {
    SCOPED_TRACE(step);
    fault = {.at = step, .code = step % 2 == 0 ? ENOSPC : EIO};
    set_file_hook(on_step);
    bool failed = false;
    try {
      job_.run(in(), out());
    } catch (const Error&) {
      failed = true;
    }
    set_file_hook(nullptr);
    // Only removing the journal of a complete output may fail in silence.
    EXPECT_EQ(failed, !fs::exists(out()));
    EXPECT_TRUE(failed || step >= steps - 2);
    for (const std::string& name : others())
      EXPECT_EQ(name.find(".partial-"), std::string::npos) << name;
    fs::remove_all(out());
    expect_resumed(files);
  }
}

// Transforms, searched clips and kept channels, experts: all that a run knows besides the tensors.
TEST_F(JournalTest, ResumesWithEveryIngredient) {
  fs::remove_all(in());
  write_random_checkpoint(in(), {.layers = 3, .experts = 2, .bias = true});
  job_.recipe = quantizer::preset("w4a4", quantizer::Method::kBest);
  job_.recipe.kept = 16;
  job_.recipe.group = 32;
  job_.recipe.search_kept = true;
  job_.samples = 4;
  job_.sequence = 24;
  const auto files = expected();
  for (const char* phase : {"search", "solve"}) {
    SCOPED_TRACE(phase);
    Job interrupted = job_;
    interrupted.progress = [&](const quantizer::Progress& state) {
      if (state.phase == phase && (state.phase != "solve" || state.layer == 2)) fail("stopped");
    };
    expect_error([&] { interrupted.run(in(), out()); }, {"stopped"});
    EXPECT_FALSE(fs::exists(out()));
    Job again = job_;
    again.resume = true;
    const quantizer::QuantizeReport report = again.run(in(), out());
    EXPECT_EQ(report.resumed_layers, phase == std::string("solve") ? 2 : 0);
    EXPECT_EQ(contents(out()), files);
    fs::remove_all(out());
  }
}

TEST_F(JournalTest, RefusesTheJournalOfAnotherRun) {
  Job interrupted = job_;
  interrupted.progress = [](const quantizer::Progress& state) {
    if (state.phase == "solve" && state.layer == 1) fail("stopped");
  };
  expect_error([&] { interrupted.run(in(), out()); }, {"stopped"});
  expect_error([&] { job_.run(in(), out()); }, {".out.journal", "--resume"});
  Job other = job_;
  other.resume = true;
  other.seed = 2;
  expect_error([&] { other.run(in(), out()); }, {".out.journal", "\"seed\" differs"});
  const fs::path record = Journal::path_of(out()) / "layer-0.safetensors";
  std::string bytes = read_file(record);
  bytes.back() ^= 1;
  write_file_atomically(record, bytes);
  other.seed = job_.seed;
  expect_error([&] { other.run(in(), out()); },
               {"layer-0.safetensors", "not those that were written"});
}

TEST_F(JournalTest, SecondRunOnOneOutputIsRefused) {
  Job first = job_;
  first.progress = [&](const quantizer::Progress& state) {
    if (state.phase != "solve" || state.layer != 1) return;
    Job second = job_;
    second.resume = true;
    expect_error([&] { second.run(in(), out()); }, {"out", "another run is writing this output"});
  };
  first.run(in(), out());
  EXPECT_EQ(others(), std::vector<std::string>{"out"});
}

TEST(Journal, KeepsRecords) {
  const TempFolder folder;
  Record record;
  record.json = {{"a", 0.1f}};
  record.put("x", std::vector<int32_t>{1, -2});
  record.put("empty", std::vector<float>{});
  const Journal::Options options{
      .output = folder / "m", .run = {{"seed", 1}}, .note = "ours", .resume = true};
  {
    Journal journal(options);
    EXPECT_FALSE(journal.find("one"));
    journal.add("one", record);
  }
  {
    const Journal journal(options);
    EXPECT_EQ(journal.found_note(), "ours");
    const std::optional<Record> found = journal.find("one");
    ASSERT_TRUE(found);
    EXPECT_EQ(found->json, record.json);
    EXPECT_EQ(found->take<int32_t>("x"), (std::vector<int32_t>{1, -2}));
    EXPECT_TRUE(found->take<float>("empty").empty());
    expect_error([&] { found->take<float>("y"); }, {"\"y\""});
  }
  Journal(options).remove();
  EXPECT_TRUE(folder.names().empty());
  { const Journal nothing(options); }
  EXPECT_TRUE(folder.names().empty());
}

}  // namespace
}  // namespace atom::testing
