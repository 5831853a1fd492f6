// The merge order and the cuts, against the definition computed the slow way.
#include "text/bpe_model.h"

#include <gtest/gtest.h>

#include <map>

#include "base/random.h"
#include "text/fixture.h"

namespace atom::text {
namespace {

using Ids = std::vector<int32_t>;

// Joins the pair of lowest rank, the leftmost of equal ones, until there is none.
Ids merged_slowly(const std::map<std::pair<int32_t, int32_t>, std::pair<int, int32_t>>& merges,
                  Ids ids) {
  while (true) {
    int best_rank = INT32_MAX;
    size_t best = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = merges.find({ids[i], ids[i + 1]});
      if (found != merges.end() && found->second.first < best_rank) {
        best_rank = found->second.first;
        best = i;
      }
    }
    if (best_rank == INT32_MAX) return ids;
    ids[best] = merges.at({ids[best], ids[best + 1]}).second;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(BpeModelTest, RandomMergesOnRandomWordsEqualTheDefinition) {
  Random random(11);
  for (int round = 0; round < 30; ++round) {
    Json vocab = {{"a", 0}, {"b", 1}, {"c", 2}, {"d", 3}};
    std::vector<std::string> tokens = {"a", "b", "c", "d"};
    std::map<std::string, int32_t> id_of = {{"a", 0}, {"b", 1}, {"c", 2}, {"d", 3}};
    std::map<std::pair<int32_t, int32_t>, std::pair<int, int32_t>> merges;
    Json merge_list = Json::array();
    for (int rank = 0; rank < 40; ++rank) {
      const std::string left = tokens[random.below(tokens.size())];
      const std::string right = tokens[random.below(tokens.size())];
      if (left.size() + right.size() > 12) continue;
      const std::string joined = left + right;
      if (!id_of.contains(joined)) {
        id_of[joined] = static_cast<int32_t>(tokens.size());
        vocab[joined] = tokens.size();
        tokens.push_back(joined);
      }
      merge_list.push_back({left, right});
      // A pair that occurs again takes its last rank.
      merges[{id_of[left], id_of[right]}] = {static_cast<int>(merge_list.size()), id_of[joined]};
    }
    const Tokenizer tokenizer = test::tokenizer_of(test::small_tokenizer(vocab, merge_list));
    for (const size_t length : {1, 2, 7, 31, 33, 100, 900}) {
      std::string word;
      Ids ids;
      for (size_t i = 0; i < length; ++i) {
        ids.push_back(static_cast<int32_t>(random.below(4)));
        word += tokens[static_cast<size_t>(ids.back())];
      }
      EXPECT_EQ(tokenizer.encode(word), merged_slowly(merges, ids)) << word;
    }
  }
}

TEST(BpeModelTest, TiesGoToTheLeft) {
  const Json json = test::small_tokenizer({{"a", 0}, {"aa", 1}}, {"a a"});
  EXPECT_EQ(test::tokenizer_of(json).encode("aaaaa"), (Ids{1, 1, 0}));
  EXPECT_EQ(test::tokenizer_of(json).encode(std::string(101, 'a')).back(), 0);
}

// The values below are those of PyPI tokenizers 0.23.
TEST(BpeModelTest, ByteTokensOvertakeAWaitingUnknownToken) {
  Json json = test::small_tokenizer(
      {{"<unk>", 0}, {"a", 1}, {"<0xC3>", 2}, {"<0xA9>", 3}, {"b", 4}}, Json::array());
  json["model"]["unk_token"] = "<unk>";
  json["model"]["byte_fallback"] = true;
  json["model"]["fuse_unk"] = true;
  const Tokenizer tokenizer = test::tokenizer_of(json);
  EXPECT_EQ(tokenizer.encode("\u4e00\u00e9a"), (Ids{2, 3, 0, 1}));
  EXPECT_EQ(tokenizer.encode("\u4e00\u00e9\u4e00a"), (Ids{2, 3, 0, 1}));
  EXPECT_EQ(tokenizer.encode("a\u00e9b"), (Ids{1, 2, 3, 4}));
  json["model"]["unk_token"] = nullptr;
  EXPECT_EQ(test::tokenizer_of(json).encode("\u4e00a"), (Ids{1}));
}

TEST(BpeModelTest, ByteAndUnknownTokensMayTakePartInMerges) {
  Json json = test::small_tokenizer(
      {{"<unk>", 0}, {"a", 1}, {"<0xC3>", 2}, {"<0xA9>", 3}, {"<0xC3><0xA9>", 4}, {"a<unk>", 5}},
      {"<0xC3> <0xA9>", "a <unk>"});
  json["model"]["unk_token"] = "<unk>";
  json["model"]["byte_fallback"] = true;
  const Tokenizer tokenizer = test::tokenizer_of(json);
  EXPECT_EQ(tokenizer.encode("a\u00e9a\u4e00"), (Ids{1, 4, 5}));
}

TEST(BpeModelTest, TheLastRankOfARepeatedMergeCounts) {
  const Json vocab = {{"a", 0}, {"b", 1}, {"ab", 2}, {"c", 3}, {"bc", 4}};
  EXPECT_EQ(test::tokenizer_of(test::small_tokenizer(vocab, {"a b", "b c", "a b"})).encode("abc"),
            (Ids{0, 4}));
  EXPECT_EQ(test::tokenizer_of(test::small_tokenizer(vocab, {"#version 0.2", "a b"})).encode("abc"),
            (Ids{2, 3}));
}

TEST(BpeModelTest, IdsMayHaveHoles) {
  const Tokenizer tokenizer =
      test::tokenizer_of(test::small_tokenizer({{"a", 3}, {"b", 9}, {"ab", 40}}, {"a b"}));
  EXPECT_EQ(tokenizer.vocab_size(), 41);
  EXPECT_EQ(tokenizer.encode("abb"), (Ids{40, 9}));
  EXPECT_EQ(tokenizer.id_to_token(4), "");
  EXPECT_EQ(tokenizer.decode(Ids{40, 4, 9}), "ab b");
}

}  // namespace
}  // namespace atom::text
