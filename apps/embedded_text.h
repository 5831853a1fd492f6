// The calibration text inside the program (examples/text/calibration.txt), so that `atom quantize
// IN OUT` needs no other file.
#pragma once

#include <string_view>

namespace atom::app {

std::string_view embedded_calibration_text();

}  // namespace atom::app
