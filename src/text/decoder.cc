#include "text/decoder.h"

#include <utility>

#include "text/component.h"
#include "text/decoder_parts.h"

namespace atom::text {
namespace {

// Each stage feeds the next.
class SequenceStage final : public DecodeStage {
 public:
  explicit SequenceStage(const std::vector<DecoderPtr>& parts) {
    for (const DecoderPtr& part : parts) stages_.push_back(part->start());
  }

  void push(TokenPart part, std::vector<TokenPart>& out) override {
    current_.clear();
    current_.push_back(std::move(part));
    run_from(0, out);
  }

  void finish(std::vector<TokenPart>& out) override {
    for (size_t i = 0; i < stages_.size(); ++i) {
      current_.clear();
      stages_[i]->finish(current_);
      run_from(i + 1, out);
    }
  }

 private:
  // Pushes current_ through the stages from `first` on.
  void run_from(size_t first, std::vector<TokenPart>& out) {
    for (size_t i = first; i < stages_.size() && !current_.empty(); ++i) {
      next_.clear();
      for (TokenPart& part : current_) stages_[i]->push(std::move(part), next_);
      std::swap(current_, next_);
    }
    for (TokenPart& part : current_) out.push_back(std::move(part));
    current_.clear();
  }

  std::vector<std::unique_ptr<DecodeStage>> stages_;
  std::vector<TokenPart> current_;
  std::vector<TokenPart> next_;
};

// One space between tokens: what a file without a decoder means.
class SpacesStage final : public DecodeStage {
 public:
  explicit SpacesStage(int) {}
  void push(TokenPart part, std::vector<TokenPart>& out) override {
    if (part.first && !at_start_) out.push_back({" ", true, false});
    part.first = part.first && at_start_;
    at_start_ = false;
    out.push_back(std::move(part));
  }
  void finish(std::vector<TokenPart>&) override {}

 private:
  bool at_start_ = true;
};

// Recursion is bounded by the depth limit of the JSON parser.
DecoderPtr make_part(const Json& json, std::string_view source);

DecoderPtr make_decoder_sequence(const Json& json, std::string_view source) {
  return std::make_unique<DecoderOf<SequenceStage, std::vector<DecoderPtr>>>(
      make_parts(json, {"decoders", source}, &make_part));
}

constexpr Factory<Decoder> kDecoders[] = {
    {"Sequence", &make_decoder_sequence},
    {"Replace", &make_replace_decoder},
    {"ByteFallback", &make_byte_fallback_decoder},
    {"Fuse", &make_fuse_decoder},
    {"Strip", &make_strip_decoder},
    {"ByteLevel", &make_byte_level_decoder},
    {"Metaspace", &make_metaspace_decoder},
    {"WordPiece", &make_word_piece_decoder},
    {"BPEDecoder", &make_suffix_decoder},
    {"CTC", &make_ctc_decoder},
};

DecoderPtr make_part(const Json& json, std::string_view source) {
  return make_component<Decoder>(json, source, kDecoders);
}

}  // namespace

std::unique_ptr<const Decoder> make_decoder(const Json& json, std::string_view source) {
  if (json.is_null()) return std::make_unique<DecoderOf<SpacesStage, int>>(0);
  return make_part(json, source);
}

}  // namespace atom::text
