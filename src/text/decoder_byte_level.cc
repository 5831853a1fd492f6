#include "text/byte_alphabet.h"
#include "text/decoder_parts.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

// Byte alphabet back to bytes; all tokens become one, with U+FFFD for what is not UTF-8. A token
// with any character outside the alphabet stands for its own bytes.
class ByteLevelStage final : public DecodeStage {
 public:
  explicit ByteLevelStage(int) {}

  void push(TokenPart part, std::vector<TokenPart>& out) override {
    if (!whole_.add(part)) return;
    std::string bytes;
    for (size_t at = 0; at < part.text.size();) {
      const CodePoint c = decode_utf8(part.text, at);
      const int byte = byte_of_character(c.value);
      if (byte < 0) {
        bytes = part.text;
        break;
      }
      bytes.push_back(static_cast<char>(byte));
      at += c.size;
    }
    std::string text;
    repair_.push(bytes, text);
    if (text.empty()) return;
    out.push_back({std::move(text), first_, false});
    first_ = false;
  }

  void finish(std::vector<TokenPart>& out) override {
    std::string text;
    repair_.finish(text);
    out.push_back({std::move(text), first_, true});
  }

 private:
  WholeToken whole_;
  Utf8Repair repair_;
  bool first_ = true;
};

}  // namespace

DecoderPtr make_byte_level_decoder(const Json&, std::string_view) {
  return std::make_unique<DecoderOf<ByteLevelStage, int>>(0);
}

}  // namespace atom::text
