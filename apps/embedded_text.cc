#include "embedded_text.h"

// The assembler copies the file; ATOM_CALIBRATION_TEXT is its path, set by the build.
__asm__(
    ".section .rodata\n"
    ".balign 16\n"
    ".global atom_calibration_text\n"
    ".global atom_calibration_text_end\n"
    "atom_calibration_text:\n"
    ".incbin \"" ATOM_CALIBRATION_TEXT
    "\"\n"
    "atom_calibration_text_end:\n"
    ".byte 0\n"
    ".previous\n");

extern "C" {
extern const char atom_calibration_text[];      // NOLINT: a symbol of the assembler
extern const char atom_calibration_text_end[];  // NOLINT
}

namespace atom::app {

std::string_view embedded_calibration_text() {
  return {atom_calibration_text,
          static_cast<size_t>(atom_calibration_text_end - atom_calibration_text)};
}

}  // namespace atom::app
