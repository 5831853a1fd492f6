// Decoders of word models: WordPiece, BPEDecoder (a suffix at the end of words), CTC.
#include <optional>
#include <utility>

#include "text/decoder_parts.h"

namespace atom::text {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  std::string out;
  size_t at = 0;
  for (size_t hit = text.find(from); hit != std::string::npos; hit = text.find(from, at)) {
    out.append(text, at, hit - at);
    out += to;
    at = hit + from.size();
  }
  if (at == 0) return;
  out.append(text, at);
  text = std::move(out);
}

// Spaces before punctuation and English contractions.
void clean_up(std::string& text) {
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) replace_all(text, from, to);
}

struct WordPieceOptions {
  std::string prefix;
  bool cleanup;
};

// A space in front of each token but the first, except where the prefix says that it goes on.
class WordPieceStage final : public DecodeStage {
 public:
  explicit WordPieceStage(const WordPieceOptions& options) : options_(options) {}
  void push(TokenPart part, std::vector<TokenPart>& out) override {
    if (!whole_.add(part)) return;
    if (!first_ && part.text.starts_with(options_.prefix)) {
      part.text.erase(0, options_.prefix.size());
    } else if (!first_) {
      part.text.insert(0, " ");
    }
    first_ = false;
    if (options_.cleanup) clean_up(part.text);
    out.push_back(std::move(part));
  }
  void finish(std::vector<TokenPart>&) override {}

 private:
  const WordPieceOptions& options_;
  WholeToken whole_;
  bool first_ = true;
};

struct SuffixOptions {
  std::string suffix;
};

// The suffix becomes a space, in the last token nothing; so one token is held back.
class SuffixStage final : public DecodeStage {
 public:
  explicit SuffixStage(const SuffixOptions& options) : options_(options) {}
  void push(TokenPart part, std::vector<TokenPart>& out) override {
    if (!whole_.add(part)) return;
    release(" ", out);
    held_ = std::move(part);
  }
  void finish(std::vector<TokenPart>& out) override { release("", out); }

 private:
  void release(std::string_view with, std::vector<TokenPart>& out) {
    if (!held_) return;
    replace_all(held_->text, options_.suffix, with);
    out.push_back(std::move(*held_));
    held_.reset();
  }

  const SuffixOptions& options_;
  WholeToken whole_;
  std::optional<TokenPart> held_;
};

struct CtcOptions {
  std::string pad;
  std::string delimiter;
  bool cleanup;
};

// Runs of one token count once; padding goes; the delimiter becomes a space.
class CtcStage final : public DecodeStage {
 public:
  explicit CtcStage(const CtcOptions& options) : options_(options) {}
  void push(TokenPart part, std::vector<TokenPart>& out) override {
    if (!whole_.add(part)) return;
    if (previous_ == part.text) return;
    previous_ = part.text;
    replace_all(part.text, options_.pad, "");
    if (options_.cleanup) {
      clean_up(part.text);
      replace_all(part.text, options_.delimiter, " ");
    }
    if (!part.text.empty()) out.push_back(std::move(part));
  }
  void finish(std::vector<TokenPart>&) override {}

 private:
  const CtcOptions& options_;
  WholeToken whole_;
  std::optional<std::string> previous_;
};

}  // namespace

DecoderPtr make_word_piece_decoder(const Json& json, std::string_view source) {
  return std::make_unique<DecoderOf<WordPieceStage, WordPieceOptions>>(WordPieceOptions{
      get_string_or(json, "prefix", "##", source), get_bool_or(json, "cleanup", true, source)});
}

DecoderPtr make_suffix_decoder(const Json& json, std::string_view source) {
  return std::make_unique<DecoderOf<SuffixStage, SuffixOptions>>(
      SuffixOptions{get_string_or(json, "suffix", "</w>", source)});
}

DecoderPtr make_ctc_decoder(const Json& json, std::string_view source) {
  return std::make_unique<DecoderOf<CtcStage, CtcOptions>>(
      CtcOptions{get_string_or(json, "pad_token", "<pad>", source),
                 get_string_or(json, "word_delimiter_token", "|", source),
                 get_bool_or(json, "cleanup", true, source)});
}

}  // namespace atom::text
