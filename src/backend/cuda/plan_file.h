// Plans of linears that were measured on a device, as a file: `atom bench ops --tune` writes it, --tuned reads it.
//
//   {"atom_plans": 1, "device": "NVIDIA H100 80GB HBM3", "multiprocessors": 132, "toolkit": "13.0", "driver": "13.0",
//    "atom": "0.1.0", "plans": [
//    {"kernels": "w4a8", "n": 4096, "k": 4096, "rows": 16, "kind": "few", "tile": 16, "blocks": 1, "groups": 6,
//     "cluster": 1, "us": 9.5}]}
//
// kernels: hopper::kKernelsNames; n, k: hopper::LinearSize; kind: few or many rows; tile .. cluster: hopper::Plan; us:
// microseconds (0: not known, of a step), not read by the choice. Which entry serves a linear: hopper_measured.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backend/cuda/hopper_measured.h"

namespace atom::backend::cuda {

struct PlanFile {
  // Where the plans were measured: both must be those of the device that uses them.
  std::string device;
  int multiprocessors = 0;
  // By what, for people.
  std::string toolkit, driver, atom;
  std::vector<hopper::MeasuredPlan> plans;
};

// `source` names the text in messages. Error: no JSON, another version, a field that is missing, unknown or out of its
// range, a plan that no kernel has, two entries for the same problem.
PlanFile parse_plan_file(std::string_view text, std::string_view source);
// Error: the file was measured on another device.
void require_device(const PlanFile& file, std::string_view source, std::string_view device,
                    int multiprocessors);
std::string plan_file_text(const PlanFile& file);  // what parse_plan_file() reads

// Adds an entry, or puts it in the place of that for the same kernels, n, k and rows.
void put_plan(std::vector<hopper::MeasuredPlan>& plans, const hopper::MeasuredPlan& entry);

}  // namespace atom::backend::cuda
