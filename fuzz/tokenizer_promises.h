// What every tokenizer keeps, whatever file it is from; used by the targets that read such files.
#pragma once

#include "fuzz/fuzz.h"
#include "text/stream_decoder.h"

namespace atom::fuzz {

// Ids exist; spans lie in the text and are of the same ids; streamed parts are whole characters, final, and together the
// decoded text.
inline void check_promises(const text::Tokenizer& tokenizer) {
  constexpr size_t kMostPrefixes = 256;  // each is decoded from its beginning
  constexpr std::string_view kTexts[] = {
      "ab ab",
      "  Hello, world's 1234\r\n\tok <s> \xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80 "
      "e\xCC\x81\xEF\xAC\x81",
      "\xFF\xC3 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"};
  for (const std::string_view text : kTexts)
    accepts_or_says_why([&] {
      const text::Encoding encoding = tokenizer.encode_with_spans(text);
      const std::vector<int32_t>& ids = encoding.ids;
      check(ids == tokenizer.encode(text), "spans change ids");
      check(ids.size() == encoding.spans.size(), "a span for each id");
      for (const int32_t id : ids) check(id >= 0 && id < tokenizer.vocab_size(), "an id");
      for (const text::Span& span : encoding.spans)
        check(span.end <= text.size(), "a span outside the text");
      text::StreamDecoder stream(tokenizer);
      std::string streamed;
      std::vector<int32_t> seen;
      for (const int32_t id : ids) {
        const std::string part = stream.push(id);
        check(text::is_valid_utf8(part), "half a character is streamed");
        streamed += part;
        if (seen.size() == kMostPrefixes) continue;
        seen.push_back(id);
        check(tokenizer.decode(seen).starts_with(streamed), "what is streamed changes later");
      }
      check(streamed + stream.flush() == tokenizer.decode(ids),
            "streamed and decoded texts differ");
    });
}

}  // namespace atom::fuzz
