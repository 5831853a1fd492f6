// tokenizer.json: what loads makes texts into ids and back; streamed or at once, the text is the same.
#include "text/tokenizer.h"

#include "fuzz/fuzz.h"
#include "text/stream_decoder.h"

namespace atom::fuzz {
namespace {

constexpr std::string_view kTexts[] = {
    "ab ab",
    "  Hello, world's 1234\r\n\tok <s> \xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80 e\xCC\x81\xEF\xAC\x81",
    "\xFF\xC3 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"};

}  // namespace

void run_tokenizer(std::string_view bytes) {
  accepts([&] {
    const auto tokenizer = text::Tokenizer::from_json(bytes, "fuzz");
    for (const std::string_view text : kTexts)
      accepts([&] {
        const std::vector<int32_t> ids = tokenizer.encode(text);
        for (const int32_t id : ids) check(id >= 0 && id < tokenizer.vocab_size(), "an id");
        const std::string decoded = tokenizer.decode(ids);
        check(text::is_valid_utf8(decoded), "a decoded text is not UTF-8");
        text::StreamDecoder stream(tokenizer);
        std::string streamed;
        for (const int32_t id : ids) {
          streamed += stream.push(id);
          check(text::is_valid_utf8(streamed), "a streamed text is not UTF-8");
        }
        check(streamed + stream.flush() == decoded, "streamed and decoded texts differ");
      });
  });
}

}  // namespace atom::fuzz
