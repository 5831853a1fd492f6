// Where a quantized checkpoint comes from: normalised recipe, calibration and hashes of the source. No paths,
// times or command lines, so that equal inputs give equal bytes.
#pragma once

#include "base/json.h"
#include "quantizer/quantize.h"

namespace atom::quantizer {

// Contents of atom_provenance.json (docs/formats.md). Hashes the source's files, which takes a while.
Json provenance(const QuantizeOptions& options);

}  // namespace atom::quantizer
