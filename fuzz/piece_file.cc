// tokenizer.model, a protobuf message; the first byte picks what tokenizer_config.json would say.
#include "fuzz/tokenizer_promises.h"
#include "text/tokenizer_files.h"

namespace atom::fuzz {

void run_piece_file(std::string_view bytes) {
  text::TokenizerSettings settings;
  const size_t choice = take_choice(bytes, 4);
  if (choice > 0) settings.config = {{"legacy", choice == 2}, {"add_eos_token", choice == 3}};
  accepts_or_says_why(
      [&] { check_promises(text::tokenizer_from_sentencepiece(bytes, "fuzz", settings)); });
}

}  // namespace atom::fuzz
