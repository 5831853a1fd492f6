// vocab.json and merges.txt with an empty line between them, or vocab.txt; the first byte picks which.
#include "fuzz/tokenizer_promises.h"
#include "text/tokenizer_files.h"

namespace atom::fuzz {

void run_vocab_files(std::string_view bytes) {
  constexpr const char* kClasses[] = {"GPT2Tokenizer", "Qwen2Tokenizer", "RobertaTokenizer"};
  const size_t choice = take_choice(bytes, 4);
  accepts_or_says_why([&] {
    if (choice == 3) return check_promises(text::tokenizer_from_vocab_lines(bytes, "fuzz", {}));
    text::TokenizerSettings settings;
    settings.config = {{"tokenizer_class", kClasses[choice]}};
    const size_t end = std::min(bytes.find("\n\n"), bytes.size());
    const std::string_view merges = bytes.substr(std::min(end + 2, bytes.size()));
    check_promises(
        text::tokenizer_from_vocab_merges(bytes.substr(0, end), merges, "fuzz", settings));
  });
}

}  // namespace atom::fuzz
