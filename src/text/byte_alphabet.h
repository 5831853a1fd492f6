// The byte alphabet of byte-level BPE (Radford et al. 2019, GPT-2): every byte has a printable
// character. Printable Latin-1 bytes stand for themselves, the 68 others for U+0100 and up in byte
// order.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace atom::text {

// Character of each byte; every one is below U+0180, two bytes of UTF-8 at most.
const std::array<uint16_t, 256>& byte_characters();

// Appends the characters of the bytes.
void append_byte_characters(std::string& out, std::string_view bytes);

// Byte of a character, or -1 when the character stands for none.
int byte_of_character(uint32_t code_point);

}  // namespace atom::text
