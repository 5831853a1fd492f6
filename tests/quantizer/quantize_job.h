// One small quantization, for tests.
//
//   Job job;
//   job.recipe.group = 64;
//   job.run(folder / "in", folder / "out");
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "backend/open.h"
#include "base/file.h"
#include "quantizer/quantize.h"
#include "quantizer/random_checkpoint.h"

namespace atom::testing {

struct Job {
  quantizer::Recipe recipe = small_recipe();
  int samples = 6;
  int sequence = 24;
  uint64_t seed = 1;
  int threads = 2;
  std::vector<quantizer::LayerOrders> orders;
  bool journal = false, resume = false;
  std::function<void(const quantizer::Progress&)> progress;
  std::vector<int32_t> ids = random_ids(300, 61);

  // w4a4 on layers of 64 inputs.
  static quantizer::Recipe small_recipe() {
    quantizer::Recipe recipe = quantizer::preset("w4a4");
    recipe.kept = 16;
    recipe.group = 32;
    return recipe;
  }

  quantizer::QuantizeReport run(const std::filesystem::path& in,
                                const std::filesystem::path& out) const {
    return run(checkpoint::ModelFiles::open(in), out);
  }
  quantizer::QuantizeReport run(const checkpoint::ModelFiles& files,
                                const std::filesystem::path& out) const {
    Executor executor({.threads = threads});
    const auto backend = backend::make_cpu_backend({.executor = &executor, .isa = ""});
    return quantizer::quantize({.input = &files,
                                .output = out,
                                .recipe = recipe,
                                .calibration = ids,
                                .calibration_name = "ids.txt",
                                .calibration_sha256 = std::string(64, 'a'),
                                .samples = samples,
                                .sequence = sequence,
                                .seed = seed,
                                .orders = orders,
                                .journal = journal,
                                .resume = resume,
                                .progress = progress},
                               *backend, executor);
  }
};

// Every file of a folder but the report, which holds times.
inline std::map<std::string, std::string> contents(const std::filesystem::path& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename() != "report.json")
      out[entry.path().filename().string()] = read_file(entry.path());
  return out;
}

}  // namespace atom::testing
