#include "quantizer/run_journal.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"
#include "quantizer/calibrate.h"
#include "quantizer/journal_records.h"

namespace atom::quantizer {
namespace {

constexpr const char* kCalibration = "calibration";

std::string layer_name(int layer) { return fmt::format("layer-{}", layer); }

// Size and time of last change: hashing the weights of a large model takes minutes.
Json file_state(const std::filesystem::path& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) return nullptr;
  return {path.filename().string(), status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
}

std::string sha256_of_text(const std::string& text) {
  return sha256_hex(std::as_bytes(std::span(text)));
}

// What decides the bytes of the output.
Json identity(const QuantizeOptions& options, const std::string& backend) {
  const checkpoint::ModelFiles& files = *options.input;
  Json json = {
      {"version", ATOM_VERSION},
      {"backend", backend},
      {"recipe", to_json(options.recipe)},
      {"calibration", options.calibration_sha256},
      {"samples", options.samples},
      {"sequence", options.sequence},
      {"seed", options.seed},
      {"config.json", sha256_of_text(files.small_file("config.json", UINT64_MAX).value())}};
  json["source"] = Json::array();
  for (const std::filesystem::path& path : files.weight_paths())
    json["source"].push_back(file_state(path));
  return json;
}

std::string machine() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

}  // namespace

double Totals::bits_per_weight() const {
  return weights > 0 ? static_cast<double>(bits) / static_cast<double>(weights) : 16.0;
}

void Totals::tell(std::vector<std::string>& notices) const {
  if (few_inputs > 0)
    notices.push_back(
        fmt::format("{} inputs saw fewer than {} calibration tokens: their weights are rounded to "
                    "nearest",
                    few_inputs, kFewRows));
  if (redamped > 0)
    notices.push_back(fmt::format(
        "{} second-moment matrices were singular at 1 % damping and got more", redamped));
}

RunJournal::RunJournal(const QuantizeOptions& options, const checkpoint::OutputFolder& folder,
                       const std::string& backend, int64_t output_bytes) {
  if (!options.journal) return;
  if (!options.resume && folder.free_space() < 2 * static_cast<uint64_t>(output_bytes)) {
    log_warning("{}: the disk has no room to keep what is done: this run cannot be resumed",
                folder.final_path().string());
    return;
  }
  check(options.orders.empty(), "a run with given orders has no journal");
  const Json note = {machine(), folder.path().filename().string()};
  journal_.emplace(Journal::Options{.output = folder.final_path(),
                                    .run = identity(options, backend),
                                    .note = note,
                                    .resume = options.resume});
  if (const Json& left = journal_->found_note();
      left.is_array() && left.size() == 2 && left[0] == note[0] && left[1].is_string())
    folder.remove_left(left[1].get<std::string>());
}

RunJournal::~RunJournal() {
  if (!journal_ || journal_->records() == 0) return;
  try {
    log_info("what is done is kept in {}: --resume continues it", journal_->path().string());
  } catch (...) {  // a log that throws must not end the program here
    return;
  }
}

bool RunJournal::restore(const Calibration& calibration) const {
  if (!journal_) return false;
  const std::optional<Record> record = journal_->find(kCalibration);
  if (!record) return false;
  of_record(journal_->path(), [&] {
    calibration.orders.clear();
    const auto layers = record->json.at("orders").get<size_t>();
    const auto all_or_none = [&](const char* what, size_t count) {
      if (count != 0 && count != static_cast<size_t>(calibration.config.layers))
        fail("{}: the journal has {} of {} layers, but the model has {}", journal_->path().string(),
             what, count, calibration.config.layers);
    };
    all_or_none("orders", layers);
    for (size_t i = 0; i < layers; ++i) {
      calibration.orders.push_back(take_orders(*record, fmt::format("orders.{}.", i)));
      require_fits(calibration.orders.back(), calibration.config);
    }
    calibration.chosen = choices_of(record->json.at("chosen"));
    all_or_none("choices", calibration.chosen.size());
    calibration.transform.restore(*record);
  });
  return true;
}

void RunJournal::keep(const Calibration& calibration) {
  if (!journal_) return;
  Record record;
  record.json["orders"] = calibration.orders.size();
  for (size_t i = 0; i < calibration.orders.size(); ++i)
    put_orders(record, fmt::format("orders.{}.", i), calibration.orders[i]);
  record.json["chosen"] = choices_json(calibration.chosen);
  calibration.transform.save(record);
  journal_->add(kCalibration, record);
}

bool RunJournal::restore(int layer, model::LayerTensors& tensors, model::Scheme& scheme,
                         Totals& totals) {
  if (!journal_) return false;
  const std::optional<Record> record = journal_->find(layer_name(layer));
  if (!record) return false;
  of_record(journal_->path(), [&] {
    restore_layer(*record, tensors, scheme);
    const Json& counts = record->json.at("totals");
    totals.bits = counts.at(0).get<int64_t>();
    totals.weights = counts.at(1).get<int64_t>();
    totals.few_inputs = counts.at(2).get<int>();
    totals.redamped = counts.at(3).get<int>();
    for (const Json& module : record->json.at("modules")) totals.modules.push_back(module);
  });
  modules_ = totals.modules.size();
  ++restored_layers_;
  return true;
}

void RunJournal::keep(int layer, const model::LayerTensors& tensors, const model::Scheme& scheme,
                      const Totals& totals) {
  if (!journal_) return;
  Record record = layer_record(tensors, scheme);
  record.json["totals"] = {totals.bits, totals.weights, totals.few_inputs, totals.redamped};
  Json& modules = record.json["modules"] = Json::array();
  for (; modules_ < totals.modules.size(); ++modules_) modules.push_back(totals.modules[modules_]);
  journal_->add(layer_name(layer), record);
}

void RunJournal::remove() {
  if (journal_) journal_->remove();
}

}  // namespace atom::quantizer
