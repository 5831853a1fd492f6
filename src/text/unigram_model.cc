#include "text/unigram_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "text/sentencepiece_file.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr double kUnknownPenalty = 10;
// Of a tokenizer.model sums are f32, as sentencepiece 0.2.3 has them: equally good ways are told apart by what is rounded. One
// beyond this is taken off all that follows.
constexpr double kMostPieceSum = 100000;
// What a user-defined piece counts for each byte but its first: a long one beats its parts.
constexpr double kUserDefinedByte = 0.1;
constexpr size_t kMaxTokens = size_t{1} << 22;

}  // namespace

// The best way to reach each byte position.
struct UnigramModel::Lattice final : Model::Scratch {
  struct Node {
    double score = 0;
    int32_t id = -1;
    size_t begin = kNowhere;
  };
  static constexpr size_t kNowhere = SIZE_MAX;
  std::vector<Node> nodes;
  struct Part {
    size_t begin;
    size_t end;
    int32_t id;
  };
  std::vector<Part> path;
};

UnigramModel::UnigramModel(const Json& json, const ModelLists& lists, std::string_view source)
    : source_(source), score_(lists.tokens.scores) {
  const ModelLists::Tokens& tokens = lists.tokens;
  const auto vocab = json.find("vocab");
  if (vocab == json.end() || !vocab->is_array() || tokens.begin.empty() ||
      tokens.texts.size() > kMaxTokens) {
    fail("{}: vocab must be an array of 1 to {} tokens with scores and {}", source, kMaxTokens,
         shown_list(json, "vocab", tokens.begin));
  }
  if (!tokens.fault.empty()) fail("{}: {}", source, tokens.fault);
  vocabulary_.limit_for(score_.size());
  std::vector<std::string_view> keys;
  double smallest = INFINITY;
  for (size_t i = 0; i < score_.size(); ++i) {
    const std::string place = fmt::format("{}: vocab[{}]", source, i);
    if (!std::isfinite(score_[i])) fail("{}: the score must be finite and is {}", place, score_[i]);
    vocabulary_.add(tokens.texts[i], static_cast<int64_t>(i), place);
    keys.push_back(tokens.texts[i]);
    smallest = std::min(smallest, score_[i]);
  }
  unknown_ = static_cast<int32_t>(
      get_int_or(json, "unk_id", -1, {.source = source, .min = 0, .max = vocabulary_.size() - 1}));
  byte_fallback_ = get_bool_or(json, "byte_fallback", false, source);
  byte_token_ = byte_tokens(vocabulary_);
  unknown_score_ = smallest - kUnknownPenalty;
  trie_ = Trie(Trie::nodes_of(std::move(keys)));
  for (size_t i = 0; i < score_.size(); ++i) {
    if (!tokens.texts[i].empty()) trie_.add(tokens.texts[i], static_cast<int32_t>(i));
  }
}

UnigramModel::UnigramModel(const SentencePieceFile& file)
    : vocabulary_(file.vocabulary),
      source_(file.source),
      unknown_(file.unknown),
      byte_fallback_(file.byte_fallback),
      of_pieces_(true),
      fused_may_be_token_(false),
      byte_token_(byte_tokens(file.vocabulary)) {
  using Kind = SentencePiece::Kind;
  std::vector<std::string_view> keys;
  for (const SentencePiece& piece : file.pieces) keys.push_back(piece.text);
  trie_ = Trie(Trie::nodes_of(std::move(keys)));
  user_defined_.assign(file.pieces.size(), 0);
  float smallest = INFINITY;
  for (size_t i = 0; i < file.pieces.size(); ++i) {
    const SentencePiece& piece = file.pieces[i];
    score_.push_back(piece.score);
    user_defined_[i] = piece.kind == Kind::kUserDefined;
    if (piece.kind == Kind::kNormal) smallest = std::min(smallest, piece.score);
    if (piece.kind == Kind::kNormal || piece.kind == Kind::kUserDefined) {
      trie_.add(piece.text, static_cast<int32_t>(i));
    }
  }
  if (!std::isfinite(smallest)) smallest = 0;  // no normal piece at all
  unknown_score_ = static_cast<double>(smallest - static_cast<float>(kUnknownPenalty));
}

std::unique_ptr<Model::Scratch> UnigramModel::scratch(size_t) const {
  return std::make_unique<Lattice>();
}

// Viterbi over byte positions: every token that begins at a reached position offers a path to its
// end.
void UnigramModel::search(std::string_view piece, Lattice& lattice) const {
  using Node = Lattice::Node;
  lattice.nodes.assign(piece.size() + 1, Node{});
  size_t frontier = 0;
  const auto rounded = [&](double score) {
    return of_pieces_ ? static_cast<double>(static_cast<float>(score)) : score;
  };
  const auto offer = [&](size_t begin, size_t end, int32_t id, double sum) {
    Node& node = lattice.nodes[end];
    const double score = rounded(sum);
    frontier = std::max(frontier, end);
    if (node.begin == Lattice::kNowhere || score > node.score) node = {score, id, begin};
  };
  for (size_t at = 0; at < piece.size();) {
    const size_t next = at + decode_utf8(piece, at).size;
    if (const double sum = lattice.nodes[at].score; of_pieces_ && std::abs(sum) > kMostPieceSum) {
      for (size_t i = at; i <= frontier; ++i)
        if (Node& node = lattice.nodes[i]; node.begin != Lattice::kNowhere)
          node.score = rounded(node.score - sum);
    }
    const double here = lattice.nodes[at].score;
    bool has_character = false;
    trie_.matches(piece, at, Trie::kRoot, [&](size_t end, int32_t id) {
      double score = score_[static_cast<size_t>(id)];
      if (!user_defined_.empty() && user_defined_[static_cast<size_t>(id)] != 0) {
        score = rounded(kUserDefinedByte * static_cast<double>(end - at - 1));
      }
      offer(at, end, id, score + here);
      has_character = has_character || end == next;
    });
    if (!has_character) {
      if (unknown_ < 0 && !byte_fallback_) {
        fail("{}: the text has a character without a token, and no unk_id is given: '{}'", source_,
             piece.substr(at, next - at));
      }
      offer(at, next, unknown_, unknown_score_ + here);
    }
    at = next;
  }
}

void UnigramModel::encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids,
                          std::vector<Span>* spans) const {
  if (piece.empty()) return;
  auto& lattice = static_cast<Lattice&>(scratch);
  search(piece, lattice);
  auto& path = lattice.path;
  path.clear();
  for (size_t end = piece.size(); end > 0;) {
    const auto& node = lattice.nodes[end];
    // A run of unknown characters is one part.
    if (!path.empty() && node.id == unknown_ && path.back().id == unknown_) {
      path.back().begin = node.begin;
    } else {
      path.push_back({node.begin, end, node.id});
    }
    end = node.begin;
  }
  for (size_t i = path.size(); i-- > 0;) {
    const size_t first = ids.size();
    if (path[i].id != unknown_) {
      ids.push_back(path[i].id);
    } else {
      put_unknown(piece.substr(path[i].begin, path[i].end - path[i].begin), ids);
    }
    if (spans == nullptr) continue;
    // Byte tokens of a run: the library gives each its byte, the package the whole run.
    const bool by_byte = of_pieces_ && ids.size() - first == path[i].end - path[i].begin;
    for (size_t k = path[i].begin; first + (k - path[i].begin) < ids.size(); ++k) {
      spans->push_back(by_byte && ids.size() - first > 1 ? Span{k, k + 1}
                                                         : Span{path[i].begin, path[i].end});
    }
  }
}

void UnigramModel::put_unknown(std::string_view run, std::vector<int32_t>& ids) const {
  if (const int32_t id = fused_may_be_token_ ? vocabulary_.find(run) : -1; id >= 0) {
    ids.push_back(id);
    return;
  }
  const auto byte_id = [&](char byte) { return byte_token_[static_cast<uint8_t>(byte)]; };
  const auto has_token = [&](char byte) { return byte_id(byte) >= 0; };
  if (byte_fallback_ && std::all_of(run.begin(), run.end(), has_token)) {
    for (const char byte : run) ids.push_back(byte_id(byte));
  } else if (unknown_ >= 0) {
    ids.push_back(unknown_);
  } else {
    fail("{}: the text has characters without a token, and no unk_id is given: '{}'", source_,
         utf8_prefix(run, 60));
  }
}

}  // namespace atom::text
