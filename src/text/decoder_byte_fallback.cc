#include "text/decoder_parts.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The byte of a token <0xHH>, or -1.
int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int high = hex_digit(token[3]);
  const int low = hex_digit(token[4]);
  return high < 0 || low < 0 ? -1 : 16 * high + low;
}

// A run of byte tokens becomes its text, or one U+FFFD for each byte when the run as a whole is not
// UTF-8; so nothing of a run is certain before the run ends.
class ByteFallbackStage final : public DecodeStage {
 public:
  explicit ByteFallbackStage(int) {}

  void push(TokenPart part, std::vector<TokenPart>& out) override {
    if (!whole_.add(part)) return;
    if (const int byte = byte_of_token(part.text); byte >= 0) {
      run_.push_back(static_cast<char>(byte));
      return;
    }
    finish(out);
    out.push_back(std::move(part));
  }

  void finish(std::vector<TokenPart>& out) override {
    if (run_.empty()) return;
    if (is_valid_utf8(run_)) {
      out.push_back({run_});
    } else {
      out.insert(out.end(), run_.size(), TokenPart{"\xEF\xBF\xBD"});
    }
    run_.clear();
  }

 private:
  WholeToken whole_;
  std::string run_;
};

// The same as the sentencepiece library has it: characters as soon as they are complete, and one U+FFFD for each
// byte that is no part of one.
class PieceBytesStage final : public DecodeStage {
 public:
  explicit PieceBytesStage(int) {}

  void push(TokenPart part, std::vector<TokenPart>& out) override {
    if (!whole_.add(part)) return;
    if (const int byte = byte_of_token(part.text); byte >= 0) {
      run_.push_back(static_cast<char>(byte));
      release(false, out);
      return;
    }
    finish(out);
    out.push_back(std::move(part));
  }
  void finish(std::vector<TokenPart>& out) override { release(true, out); }

 private:
  void release(bool all, std::vector<TokenPart>& out) {
    using Kind = Utf8Unit::Kind;
    while (!run_.empty()) {
      const Utf8Unit unit = scan_utf8(run_, 0);
      if (unit.kind == Kind::kIncomplete && !all) return;
      const bool whole = unit.kind == Kind::kCharacter;
      out.push_back({whole ? run_.substr(0, unit.size) : "\xEF\xBF\xBD"});
      run_.erase(0, whole ? unit.size : 1);
    }
  }

  WholeToken whole_;
  std::string run_;  // at most 3 bytes between calls
};

}  // namespace

// "by_character" is not of tokenizer.json: the reader of tokenizer.model sets it.
DecoderPtr make_byte_fallback_decoder(const Json& json, std::string_view source) {
  if (get_bool_or(json, "by_character", false, source)) {
    return std::make_unique<DecoderOf<PieceBytesStage, int>>(0);
  }
  return std::make_unique<DecoderOf<ByteFallbackStage, int>>(0);
}

}  // namespace atom::text
