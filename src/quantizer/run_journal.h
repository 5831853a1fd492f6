// The journal of one quantization: its calibration and its solved layers.
//
//   RunJournal journal(options, *folder, backend.name());
//   if (!journal.restore({config, orders, chosen, transform})) { ...measure...; journal.keep({config, orders, ...}); }
//   if (!journal.restore(i, tensors, scheme, totals)) { ...solve...; journal.keep(i, tensors, scheme, totals); }
//   folder->commit();  journal.remove();
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/output_folder.h"
#include "quantizer/journal.h"
#include "quantizer/model_transform.h"
#include "quantizer/quantize.h"

namespace atom::quantizer {

// What a run counts over its layers.
struct Totals {
  int64_t bits = 0, weights = 0;  // of the layers' quantized linears
  int few_inputs = 0;             // inputs that too few calibration tokens reached
  int redamped = 0;               // second-moment matrices that needed more damping
  Json modules = Json::array();   // entries of report.json

  double bits_per_weight() const;  // 16 where nothing is quantized
  void tell(std::vector<std::string>& notices) const;
};

struct Calibration {
  const model::ModelConfig& config;
  std::vector<LayerOrders>& orders;
  std::vector<LayerChoice>& chosen;
  ModelTransform& transform;
};

class RunJournal {
 public:
  // Without options.journal: nothing is kept, nothing found. The same with a warning, where the disk has no room for a
  // second time `output_bytes`. Errors of Journal.
  RunJournal(const QuantizeOptions& options, const checkpoint::OutputFolder& folder,
             const std::string& backend, int64_t output_bytes);
  // Tells how to go on where something was kept and the output is not complete.
  ~RunJournal();
  RunJournal(const RunJournal&) = delete;
  RunJournal& operator=(const RunJournal&) = delete;

  bool restore(const Calibration& calibration) const;
  void keep(const Calibration& calibration);
  // `tensors` as they are before they are solved.
  bool restore(int layer, model::LayerTensors& tensors, model::Scheme& scheme, Totals& totals);
  void keep(int layer, const model::LayerTensors& tensors, const model::Scheme& scheme,
            const Totals& totals);
  void remove();

  int restored_layers() const { return restored_layers_; }

 private:
  std::optional<Journal> journal_;
  size_t modules_ = 0;  // of the totals that are kept already
  int restored_layers_ = 0;
};

}  // namespace atom::quantizer
