// Where a quantized checkpoint comes from: normalised recipe, calibration and hashes of the source. No paths,
// times or command lines, so that equal inputs give equal bytes.
#pragma once

#include "base/json.h"
#include "quantizer/quantize.h"
#include "quantizer/solve.h"

namespace atom::quantizer {

// Contents of atom_provenance.json (docs/formats.md). Hashes the source's files, which takes a while.
Json provenance(const QuantizeOptions& options);

// report.json without what only the run knows: backend, threads, modules.
Json report_json(const QuantizeOptions& options, const QuantizeReport& report);

// A module's entry in report.json; "tokens", of calibration that reached it, is null: none were looked at.
Json module_json(const model::LinearTensors& linear, const Solved& solved, bool compensated);

}  // namespace atom::quantizer
