// tokenizer.json: what loads keeps what tokenizers promise.
#include "text/tokenizer.h"

#include "fuzz/tokenizer_promises.h"

namespace atom::fuzz {

void run_tokenizer(std::string_view bytes) {
  accepts([&] { check_promises(text::Tokenizer::from_json(bytes, "fuzz")); });
}

}  // namespace atom::fuzz
