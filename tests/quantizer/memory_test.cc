// Memory of a run does not grow with the number of layers.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/open.h"
#include "quantizer/quantize.h"
#include "quantizer/random_checkpoint.h"
#include "testing/temp_folder.h"

namespace atom::quantizer {
namespace {

int64_t peak_rss() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

TEST(QuantizeMemory, DoesNotGrowWithTheLayers) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers keep freed memory back, the resident size says nothing";
#endif
  // Large blocks get pages of their own, which go back at once: what the heap keeps of them is chance.
  ASSERT_EQ(::mallopt(M_MMAP_THRESHOLD, 64 << 10), 1);
  const atom::testing::TempFolder folder;
  const atom::testing::RandomModel shape{.hidden = 256, .intermediate = 512};
  const auto run = [&](int layers) {
    atom::testing::RandomModel deep = shape;
    deep.layers = layers;
    const std::string name = std::to_string(layers);
    const auto files = checkpoint::ModelFiles::open(folder / name);
    const std::vector<int32_t> ids = atom::testing::random_ids(200, deep.vocabulary);
    Executor executor({.threads = 2});
    const auto backend = backend::make_cpu_backend({.executor = &executor, .isa = ""});
    quantize({.input = &files,
              .output = folder / (name + ".out"),
              .recipe = preset("w4a4"),
              .calibration = ids,
              .calibration_name = "ids",
              .calibration_sha256 = "",
              .samples = 4,
              .sequence = 64,
              .seed = 0,
              .progress = {}},
             *backend, executor);
    return peak_rss();
  };
  // The checkpoints come from processes of their own, so that writing them leaves no mark on the
  // peak.
  for (const int layers : {16, 64}) {
    const pid_t child = ::fork();
    if (child == 0) {
      atom::testing::RandomModel deep = shape;
      deep.layers = layers;
      write_random_checkpoint(folder / std::to_string(layers), deep);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
  }
  const int64_t shallow = run(16);
  const int64_t deep = run(64);
  // 48 more layers hold 48 x 1.2 MB in 16 bits. Growth of a quarter of that would mean that a
  // layer's packed tensors (the smallest thing one could forget) stay; names, orders and reports
  // take about 0.05 MB a layer.
  const int64_t layer = (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512) * 2;
  RecordProperty("growth_bytes", std::to_string(deep - shallow));
  EXPECT_LT(deep - shallow, 48 * layer / 4);
}

}  // namespace
}  // namespace atom::quantizer
