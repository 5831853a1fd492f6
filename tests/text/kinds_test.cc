// Every kind of tokenizer file against the PyPI packages (tests/data/text/kinds, written by
// tools/tokenizer_oracles.py), and the readers of files without tokenizer.json.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/random.h"
#include "text/fixture.h"
#include "text/stream_decoder.h"
#include "text/tokenizer_files.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

using Ids = std::vector<int32_t>;
constexpr EncodeOptions kPlain{.add_special_tokens = false};

std::string kinds_folder() { return std::string(ATOM_TEST_DATA) + "/text/kinds/"; }

Tokenizer load_kind(const std::string& name) {
  const std::string path = kinds_folder() + name;
  if (!name.ends_with(".model")) return Tokenizer::from_file(path);
  return tokenizer_from_sentencepiece(read_file(path), name, {});
}

class KindTest : public ::testing::TestWithParam<const char*> {};

TEST_P(KindTest, IdsAndTextsEqualThePackages) {
  static const Json all = test::fixture("kinds/cases.json");
  const Json& cases = all["files"][GetParam()];
  const Tokenizer tokenizer = load_kind(GetParam());
  ASSERT_GT(cases.size(), 50u);
  for (const Json& entry : cases) {
    SCOPED_TRACE(entry["text"].dump());
    const auto ids = entry["ids"].get<Ids>();
    EXPECT_EQ(tokenizer.encode(entry["text"].get<std::string>(), kPlain), ids);
    EXPECT_EQ(tokenizer.decode(ids), entry["decoded"].get<std::string>());
    EXPECT_EQ(test::streamed(tokenizer, ids), entry["decoded"].get<std::string>());
  }
}

INSTANTIATE_TEST_SUITE_P(Files, KindTest,
                         ::testing::Values("llama.model", "bpe.model", "t5.model", "gemma.model",
                                           "bert.json", "bert_cased.json", "roberta.json",
                                           "words.json", "suffix.json", "unigram_t5.json",
                                           "unigram_gemma.json"));

TEST(SentencePieceTest, SpecialPiecesAreRecognizedAndPutAround) {
  const std::string bytes = read_file(kinds_folder() + "llama.model");
  const Tokenizer plain = tokenizer_from_sentencepiece(bytes, "m", {});
  const Ids hello = plain.encode("Hello", kPlain);
  Ids expected = hello;
  expected.insert(expected.begin(), 1);
  EXPECT_EQ(plain.encode("Hello"), expected);
  EXPECT_EQ(plain.bos_id(), 1);
  EXPECT_EQ(plain.encode("<s>Hello", kPlain).at(0), 1);
  EXPECT_EQ(plain.decode(plain.encode("Hello</s>")), "Hello");
  // No space in front of what follows a special token, unless the file is of the old kind.
  EXPECT_NE(plain.encode("<s>Hello", kPlain), expected);
  TokenizerSettings settings;
  settings.config = {{"legacy", true}, {"add_bos_token", false}, {"add_eos_token", true}};
  const Tokenizer legacy = tokenizer_from_sentencepiece(bytes, "m", settings);
  EXPECT_EQ(legacy.encode("<s>Hello", kPlain), expected);
  expected = hello;
  expected.push_back(2);
  EXPECT_EQ(legacy.encode("Hello"), expected);
  EXPECT_EQ(load_kind("t5.model").encode("").back(), 1);
}

TEST(SentencePieceTest, TheConfigAddsTokens) {
  TokenizerSettings settings;
  settings.added_tokens = {{"<pad>", 400}};
  settings.config = {
      {"added_tokens_decoder", {{"401", {{"content", "<|im_start|>"}, {"special", true}}}}}};
  const Tokenizer tokenizer =
      tokenizer_from_sentencepiece(read_file(kinds_folder() + "llama.model"), "m", settings);
  EXPECT_EQ(tokenizer.encode("<|im_start|><pad>", kPlain), (Ids{401, 400}));
  EXPECT_EQ(tokenizer.decode(Ids{401}), "");
}

// Protobuf by hand.
std::string field(int number, const std::string& bytes) {
  return std::string(1, static_cast<char>(number << 3 | 2)) +
         std::string(1, static_cast<char>(bytes.size())) + bytes;
}
std::string integer(int number, int value) {
  std::string key;
  for (int rest = number << 3; rest != 0 || key.empty(); rest >>= 7) {
    key.push_back(static_cast<char>((rest & 0x7F) | (rest > 0x7F ? 0x80 : 0)));
  }
  return key + static_cast<char>(value);
}
std::string piece(const std::string& text, int kind, const std::string& score = "") {
  return field(1, field(1, text) + (score.empty() ? "" : "\x15" + score) + integer(3, kind));
}

struct Broken {
  const char* name;
  std::string bytes;
  const char* message;
};

class BrokenPieceFileTest : public ::testing::TestWithParam<Broken> {};
void PrintTo(const Broken& broken, std::ostream* out) { *out << broken.name; }

TEST_P(BrokenPieceFileTest, IsRefused) {
  try {
    tokenizer_from_sentencepiece(GetParam().bytes, "m", {});
    FAIL() << "accepted";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find("m: "), 0u) << message;
    EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
  }
}

const std::string kUnknown = piece("<unk>", 2);
const std::string kBpe = field(2, integer(3, 2));
const Broken kBroken[] = {
    {"Empty", "", "has no pieces"},
    {"OnlyNormal", piece("a", 1), "no piece of the type 2"},
    {"TwoUnknown", kUnknown + piece("<u>", 2), "pieces[1]: a second unknown piece"},
    {"Twice", kUnknown + piece("a", 1) + piece("a", 3),
     "pieces[2]: the piece 'a' is that of pieces[1]"},
    {"EmptyPiece", kUnknown + piece("", 1), "pieces[1]: the piece must be"},
    {"NotUtf8", kUnknown + piece("\xC3", 1), "pieces[1]: the piece must be"},
    {"NaN", kUnknown + piece("a", 1, std::string("\0\0\xC0\x7F", 4)),
     "pieces[1]: the score must be finite"},
    {"Infinity", kUnknown + piece("a", 1, std::string("\0\0\x80\xFF", 4)),
     "the score must be finite"},
    {"Kind", kUnknown + piece("a", 7), "the type must be in [1, 6] and is 7"},
    {"WordModel", kUnknown + field(2, integer(3, 3)),
     "model_type must be 1 (unigram) or 2 (BPE) and is 3"},
    {"Suffix", kUnknown + field(2, integer(24, 1)), "treat_whitespace_as_suffix"},
    {"ByteFallback", kUnknown + field(2, integer(35, 1)), "no piece <0x00>"},
    {"Unused", kUnknown + piece("a", 5) + kBpe, "type 5 (unused)"},
    {"Denormalizer", kUnknown + field(5, field(2, "abcd")), "denormalizer_spec"},
    {"Charsmap", kUnknown + field(3, field(2, "abc")), "at least 4 bytes and has 3"},
    {"Length", "\x0A\x7F", "field 1 wants 127 bytes and 0 are left"},
    {"HugeLength", std::string("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"),
     "wants 18446744073709551615"},
    {"LongVarint", std::string(11, '\xFF'), "more than 10 bytes"},
    {"Group", "\x0B", "wire type 3"},
    {"FieldZero", std::string("\x02\x00", 2), "field number 0"},
    {"PieceAsNumber", integer(1, 5), "field 1 must have the wire type 2 and has 0"},
};
INSTANTIATE_TEST_SUITE_P(Files, BrokenPieceFileTest, ::testing::ValuesIn(kBroken),
                         [](const auto& info) { return std::string(info.param.name); });

// A map of one unit whose children, rules and replacements would lie far outside of it.
TEST(SentencePieceTest, RulesThatLeadOutsideTheirTableAreNone) {
  for (const uint32_t unit : {0xFFFFFFFFu, 0x80000000u, 0x7FFFFDFFu, 0x00000161u, 0x00000400u}) {
    std::string map("\x08\0\0\0", 4);
    for (int i = 0; i < 2; ++i) {
      for (int shift = 0; shift < 32; shift += 8) map.push_back(static_cast<char>(unit >> shift));
    }
    const std::string file = kUnknown + piece("a", 1) + kBpe + field(3, field(2, map + "x"));
    const Tokenizer tokenizer = tokenizer_from_sentencepiece(file, "m", {});
    EXPECT_EQ(tokenizer.decode(tokenizer.encode("aa", kPlain)), "aa") << unit;
  }
}

// Compared before they are rounded, as the library did before 0.2.2, sums would make 00 0 of it.
TEST(SentencePieceTest, OfEqualSumsTheLongerLastPieceIsTaken) {
  const Tokenizer tokenizer = load_kind("t5.model");
  const auto id = [&](const char* piece) { return tokenizer.token_to_id(piece).value(); };
  EXPECT_EQ(tokenizer.encode("000", kPlain), (Ids{id("\xE2\x96\x81"), id("0"), id("00")}));
}

// aa is worse than a a by 0.001, which sums in f32 lose beyond 2^14, and have again where they were taken off. The ids of
// sentencepiece 0.2.3.
TEST(SentencePieceTest, SumsAreRoundedAndTakenOffAsThePackageDoes) {
  const auto bytes = [](float score) {
    std::string four(4, '\0');
    std::memcpy(four.data(), &score, four.size());
    return four;
  };
  const std::string settings = field(2, integer(3, 1)) + field(3, integer(3, 0) + integer(4, 0));
  const Tokenizer tokenizer = tokenizer_from_sentencepiece(
      kUnknown + piece("x", 1, bytes(-1000)) + piece("a", 1, bytes(-1)) +
          piece("aa", 1, bytes(-2.001F)) + settings,
      "m", {});
  const auto behind = [&](size_t count) {
    const Ids ids = tokenizer.encode(std::string(count, 'x') + "aa", kPlain);
    return Ids(ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end());
  };
  for (const size_t exact : {0, 101, 102, 202}) EXPECT_EQ(behind(exact), (Ids{2, 2})) << exact;
  for (const size_t rounded : {50, 100, 150, 151}) EXPECT_EQ(behind(rounded), (Ids{3})) << rounded;
}

TEST(SentencePieceTest, DamagedFilesAreRefusedOrWork) {
  Random random(3);
  for (const char* name : {"llama.model", "t5.model"}) {
    const std::string good = read_file(kinds_folder() + name);
    int refused = 0;
    for (int i = 0; i < 150; ++i) {
      std::string bytes = good;
      if (i % 3 == 0) bytes.resize(random.below(bytes.size()));
      for (int k = i % 5; k >= 0 && !bytes.empty(); --k) {
        bytes[random.below(bytes.size())] = static_cast<char>(random.below(256));
      }
      try {
        const Tokenizer tokenizer = tokenizer_from_sentencepiece(bytes, "m", {});
        tokenizer.decode(tokenizer.encode("Hello \xEF\xAC\x81 w\xC3\xB6rld  \xE2\x80\xA6"));
      } catch (const Error&) {
        ++refused;
      }
    }
    EXPECT_GT(refused, 50);
  }
}

// "a b" merges of letters; byte-level, so a space is U+0120.
constexpr const char* kVocab =
    R"({"a":0,"b":1,"ab":2,"\u0120":3,"1":4,"2":5,"12":6,"<|endoftext|>":7,"<s>":8,"</s>":9})";
constexpr const char* kMerges = "#version: 0.2\na b\r\n1 2\n";

TEST(VocabMergesTest, TheClassTellsTheRules) {
  TokenizerSettings settings;
  const Tokenizer gpt2 = tokenizer_from_vocab_merges(kVocab, kMerges, "v", settings);
  EXPECT_EQ(gpt2.encode("ab 12<|endoftext|>"), (Ids{2, 3, 6, 7}));
  EXPECT_EQ(gpt2.decode(Ids{2, 3, 6, 7}), "ab 12");
  settings.config = {{"tokenizer_class", "Qwen2TokenizerFast"}};
  const Tokenizer qwen = tokenizer_from_vocab_merges(kVocab, kMerges, "v", settings);
  EXPECT_EQ(qwen.encode("ab 12"), (Ids{2, 3, 4, 5}));  // digits stand alone
  settings.config = {{"tokenizer_class", "RobertaTokenizer"}, {"add_prefix_space", true}};
  const Tokenizer roberta = tokenizer_from_vocab_merges(kVocab, kMerges, "v", settings);
  EXPECT_EQ(roberta.encode("ab"), (Ids{8, 3, 2, 9}));
  settings.config = nullptr;
  settings.model_config = {{"model_type", "qwen2"}};
  EXPECT_EQ(tokenizer_from_vocab_merges(kVocab, kMerges, "v", settings).encode("12"), (Ids{4, 5}));
}

TEST(VocabMergesTest, OddFilesAreRefused) {
  const auto message_of = [](const char* vocab, const char* merges, const char* name) {
    TokenizerSettings settings;
    settings.config = {{"tokenizer_class", name}};
    try {
      tokenizer_from_vocab_merges(vocab, merges, "v", settings);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message_of(kVocab, "a b\na b 1\n", "GPT2Tokenizer"),
            "merges.txt: line 2 must be two tokens with one space between and is 'a b 1'");
  EXPECT_EQ(message_of(kVocab, "", "XLNetTokenizer"),
            "tokenizer_config.json: the tokenizer_class 'XLNetTokenizer' is not supported without "
            "a tokenizer.json");
  EXPECT_EQ(message_of(kVocab, "a b\n\xC3 b\n", "GPT2Tokenizer"),
            "merges.txt: line 2 is not UTF-8: '\xEF\xBF\xBD b'");
  EXPECT_EQ(message_of(kVocab, std::string(70000, 'a').c_str(), "GPT2Tokenizer"),
            "merges.txt: line 1 must have at most 65536 bytes and has 70000");
  EXPECT_EQ(message_of(kVocab, "a b\na b\n", "GPT2Tokenizer"),
            "accepted");  // the later rank counts
  EXPECT_EQ(message_of("{\"\xC3\":0}", "", "GPT2Tokenizer").find("v: not valid JSON at byte 4"),
            0u);
  EXPECT_NE(message_of("{\"a\":0,", "", "GPT2Tokenizer").find("v"), std::string::npos);
  EXPECT_NE(message_of("{\"a\":\"0\"}", "", "GPT2Tokenizer").find("the id of the token 'a'"),
            std::string::npos);
  EXPECT_NE(message_of("[1]", "", "GPT2Tokenizer").find("vocab must be an object"),
            std::string::npos);
  EXPECT_NE(message_of("{\"a\":\"0\"}", "", "GPT2Tokenizer").find("and is \"0\""),
            std::string::npos);
  EXPECT_EQ(message_of(kVocab, "a b\na x", "GPT2Tokenizer"),
            "merges.txt: line 2: the token 'x' is not in vocab.json");
}

TEST(VocabLinesTest, ReadsBertsFile) {
  const Tokenizer tokenizer =
      tokenizer_from_vocab_lines("[PAD]\n[UNK]\n[CLS]\n[SEP]\nab\n##c\n,\n", "v", {});
  EXPECT_EQ(tokenizer.encode("\xC3\x81"
                             "Bc, abc x"),
            (Ids{2, 4, 5, 6, 4, 5, 1, 3}));
  EXPECT_EQ(tokenizer.decode(Ids{4, 5, 6}), "abc,");
  const auto message_of = [](const std::string& lines) {
    try {
      tokenizer_from_vocab_lines(lines, "v", {});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message_of("a\na\n"), "v: line 2 has the token 'a' of a line before");
  EXPECT_EQ(message_of("a\n\xFF\n"), "v: line 2 is not UTF-8: '\xEF\xBF\xBD'");
  EXPECT_EQ(message_of(std::string(70000, 'a')),
            "v: line 1 must have at most 65536 bytes and has 70000");
  EXPECT_NE(message_of("").find("at least one token"), std::string::npos);
  EXPECT_THROW(tokenizer_from_vocab_lines("a\nb\n", "v", {}), Error);  // no [CLS]
}

TEST(TokenizerFolderTest, TakesTheFirstFileThatThereIs) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "tokenizer_folder_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  EXPECT_EQ(Tokenizer::find_file(folder), std::nullopt);
  EXPECT_THROW(Tokenizer::from_folder(folder), Error);
  const auto write = [&](const char* name, const std::string& bytes) {
    std::ofstream(folder / name, std::ios::binary) << bytes;
  };
  write("vocab.txt", "[UNK]\n[CLS]\n[SEP]\n");
  EXPECT_EQ(Tokenizer::from_folder(folder).vocab_size(), 3);
  write("vocab.json", kVocab);
  write("merges.txt", kMerges);
  EXPECT_EQ(Tokenizer::from_folder(folder).encode("12"), Ids{6});
  write("tokenizer_config.json", R"({"tokenizer_class": "Qwen2Tokenizer"})");
  EXPECT_EQ(Tokenizer::from_folder(folder).encode("12"), (Ids{4, 5}));
  write("tokenizer.model", read_file(kinds_folder() + "t5.model"));
  EXPECT_EQ(Tokenizer::find_file(folder), folder / "tokenizer.model");
  EXPECT_EQ(Tokenizer::from_folder(folder).id_to_token(2), "<unk>");
  write("tokenizer.json", read_file(kinds_folder() + "bert.json"));
  EXPECT_EQ(Tokenizer::from_folder(folder).id_to_token(1), "[CLS]");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace atom::text
