// The merges of a tokenizer.model: see BpeModel(const SentencePieceFile&).
#include <algorithm>

#include "text/bpe_model.h"
#include "text/sentencepiece_file.h"
#include "text/sentencepiece_normalizer.h"
#include "text/trie.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

bool is_normal(const SentencePiece& piece) { return piece.kind == SentencePiece::Kind::kNormal; }

// Rank of each normal piece: 0 for the largest score, equal for equal scores.
std::vector<uint32_t> ranks_of(const std::vector<SentencePiece>& pieces) {
  std::vector<size_t> order;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (is_normal(pieces[i])) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return pieces[a].score > pieces[b].score; });
  std::vector<uint32_t> ranks(pieces.size(), 0);
  uint32_t rank = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && pieces[order[i]].score != pieces[order[i - 1]].score) ++rank;
    ranks[order[i]] = rank;
  }
  return ranks;
}

}  // namespace

BpeModel::BpeModel(const SentencePieceFile& file)
    : vocabulary_(file.vocabulary),
      user_defined_(user_defined_pieces(file)),
      byte_fallback_(file.byte_fallback),
      fuse_unknown_(true),
      unknown_(file.unknown),
      byte_token_(byte_tokens(file.vocabulary)) {
  for (size_t i = 0; i < file.pieces.size(); ++i) {
    if (!is_normal(file.pieces[i])) continue;
    const CodePoint first = decode_utf8(file.pieces[i].text, 0);
    if (first.size == file.pieces[i].text.size()) {
      characters_.set(first.value, static_cast<int32_t>(i));
    }
  }
  read_pieces(file);
}

// Every way to cut a piece into two pieces is a merge.
void BpeModel::read_pieces(const SentencePieceFile& file) {
  std::vector<std::string_view> keys;
  for (const SentencePiece& piece : file.pieces) keys.push_back(piece.text);
  Trie beginnings(Trie::nodes_of(std::move(keys)));
  for (size_t i = 0; i < file.pieces.size(); ++i) {
    if (is_normal(file.pieces[i])) beginnings.add(file.pieces[i].text, static_cast<int32_t>(i));
  }
  struct Cut {
    Merge merge;
    int32_t token;
  };
  std::vector<Cut> cuts;
  for (size_t i = 0; i < file.pieces.size(); ++i) {
    const std::string_view text = file.pieces[i].text;
    if (!is_normal(file.pieces[i])) continue;
    beginnings.matches(text, 0, Trie::kRoot, [&](size_t end, int32_t left) {
      if (end == text.size()) return;
      const int32_t right = vocabulary_.find(text.substr(end));
      if (right < 0 || !is_normal(file.pieces[static_cast<size_t>(right)])) return;
      cuts.push_back({{left, right}, static_cast<int32_t>(i)});
    });
  }
  const std::vector<uint32_t> ranks = ranks_of(file.pieces);
  merges_ = MergeTable(std::max(cuts.size(), file.pieces.size()));
  merges_.share_ranks();
  std::vector<Merge> merges;
  for (const Cut& cut : cuts) {
    merges_.add(cut.merge.left, cut.merge.right,
                {.rank = ranks[static_cast<size_t>(cut.token)], .token = cut.token});
    merges.push_back(cut.merge);
  }
  find_cuts(merges);
}

}  // namespace atom::text
