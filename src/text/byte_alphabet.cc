#include "text/byte_alphabet.h"

#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<uint16_t, 256> make_characters() {
  std::array<uint16_t, 256> characters{};
  uint16_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    characters[static_cast<size_t>(byte)] =
        stands_for_itself(byte) ? static_cast<uint16_t>(byte) : next++;
  }
  return characters;
}

constexpr std::array<uint16_t, 256> kCharacters = make_characters();

constexpr std::array<int16_t, 0x180> make_bytes() {
  std::array<int16_t, 0x180> bytes{};
  bytes.fill(-1);
  for (size_t byte = 0; byte < 256; ++byte) bytes[kCharacters[byte]] = static_cast<int16_t>(byte);
  return bytes;
}

constexpr std::array<int16_t, 0x180> kBytes = make_bytes();

}  // namespace

const std::array<uint16_t, 256>& byte_characters() { return kCharacters; }

void append_byte_characters(std::string& out, std::string_view bytes) {
  for (const char byte : bytes) append_utf8(out, kCharacters[static_cast<uint8_t>(byte)]);
}

int byte_of_character(uint32_t code_point) {
  return code_point < kBytes.size() ? kBytes[code_point] : -1;
}

}  // namespace atom::text
