// The GGUF container: what it refuses, and values against PyPI gguf (tools/make_gguf_fixtures.py).
#include "checkpoint/gguf.h"

#include <gtest/gtest.h>

#include <fstream>
#include <initializer_list>

#include "base/file.h"
#include "checkpoint/raw_gguf.h"
#include "testing/expect_error.h"
#include "testing/temp_folder.h"

namespace atom::checkpoint {
namespace {

using atom::testing::expect_error;
using atom::testing::TempFolder;

// Calls of one lambda each: a list of them takes a compiler minutes.
class GgufRefuses : public ::testing::Test {
 protected:
  // What the file must be refused for: all parts in one message.
  void expect(const RawGguf& raw, std::initializer_list<std::string_view> parts) {
    write_file_atomically(folder_ / "m.gguf", raw.bytes());
    expect_error([&] { GgufFile(folder_ / "m.gguf"); }, {"m.gguf: "});
    expect_error([&] { GgufFile(folder_ / "m.gguf"); }, parts);
  }
  void expect_tensor(const RawGguf::Tensor& tensor, std::initializer_list<std::string_view> parts) {
    RawGguf raw;
    raw.tensor(tensor);
    expect(raw, parts);
  }
  void expect_key(uint32_t kind, std::string_view value,
                  std::initializer_list<std::string_view> parts) {
    RawGguf raw;
    raw.key("k", kind, value);
    expect(raw, parts);
  }
  TempFolder folder_{TempFolder::memory()};
};

TEST_F(GgufRefuses, HeadersOfAnotherFormat) {
  RawGguf raw;
  raw.magic = "GGML";
  expect(raw, {"begins with \"GGUF\"", "GGML"});
  raw = {};
  raw.version = 1;
  expect(raw, {"version must be 2 or 3", "is 1"});
  raw.version = 3U << 24;  // big-endian
  expect(raw, {"version must be 2 or 3", "50331648"});
}

TEST_F(GgufRefuses, CountsBeyondTheFile) {
  RawGguf raw;
  raw.more_keys = INT64_MAX;
  expect(raw, {"number of keys is 9223372036854775807"});
  raw = {};
  raw.more_tensors = 1 << 20;
  expect(raw, {"number of tensors is 1048576"});
  raw = {};
  raw.more_keys = 1;
  raw.alignment = 1;
  raw.data_bytes = 4;
  expect(raw, {"wants 8 bytes"});
}

TEST_F(GgufRefuses, Keys) {
  RawGguf raw;
  raw.u32("", 1);
  expect(raw, {"a key must be 1 to 65535"});
  raw = {};
  raw.u32("a b", 1);
  expect(raw, {"printable", "a b"});
  raw = {};
  raw.u32(std::string(65536, 'k'), 1);
  expect(raw, {"a key must be 1 to 65535", "has 65536"});
  raw = {};
  raw.u32("k", 1);
  raw.u32("k", 1);
  expect(raw, {"key \"k\"", "twice"});
}

TEST_F(GgufRefuses, Values) {
  const auto array = [](uint32_t element, uint64_t count, const std::string& bytes) {
    return RawGguf::number(element) + RawGguf::number(count) + bytes;
  };
  expect_key(13, "", {"key \"k\"", "[0, 12]", "is 13"});
  expect_key(8, RawGguf::number(uint64_t{1} << 63), {"a string", "9223372036854775808"});
  expect_key(7, "\2", {"key \"k\"", "0 or 1", "is 2"});
  expect_key(9, array(7, 2, "\1\2"), {"key \"k\"", "0 or 1", "is 2"});
  expect_key(9, array(9, 1, std::string(12, '\0')), {"key \"k\"", "arrays of arrays"});
  expect_key(9, array(77, 1, "x"), {"elements", "[0, 12]", "is 77"});
  expect_key(9, array(10, uint64_t{1} << 61, ""), {"\"k\"", "2305843009213693952 elements"});
  expect_key(9, array(8, 1, RawGguf::number(~uint64_t{0})),
             {"a string of an array", "18446744073709551615"});
}

TEST_F(GgufRefuses, Alignments) {
  for (const uint32_t alignment : {0U, 24U, 1U << 17}) {
    RawGguf raw;
    raw.u32("general.alignment", alignment);
    expect(raw, {"key \"general.alignment\"", "is " + std::to_string(alignment)});
  }
  RawGguf raw;
  raw.text("general.alignment", "32");
  expect(raw, {"key \"general.alignment\"", "an integer"});
}

TEST_F(GgufRefuses, DescriptionsOfTensors) {
  expect_tensor({.name = ""}, {"tensor's name", "1 to 64"});
  expect_tensor({.name = std::string(65, 'n')}, {"tensor's name", "has 65"});
  expect_tensor({.dims = {}}, {"\"t\"", "1 to 4 dimensions", "has 0"});
  expect_tensor({.dims = {1, 1, 1, 1, 1}}, {"\"t\"", "1 to 4 dimensions", "has 5"});
  expect_tensor({.dims = {0}}, {"\"t\"", "[1, 2^63)", "is 0"});
  expect_tensor({.dims = {uint64_t{1} << 63}}, {"[1, 2^63)", "9223372036854775808"});
  expect_tensor({.dims = {1U << 31, 1U << 31, 4}}, {"tensor \"t\""});
  expect_tensor({.dims = {uint64_t{1} << 62}}, {"\"t\"", "exceed 64 bits"});
  expect_tensor({.type = 4}, {"\"t\"", "type 4 is not known"});
  expect_tensor({.dims = {33}, .type = 8}, {"\"t\"", "blocks of 32", "33"});
}

TEST_F(GgufRefuses, BytesOfTensors) {
  expect_tensor({.offset = 4}, {"\"t\"", "multiple of 32", "is 4"});
  expect_tensor({.offset = 128}, {"\"t\"", "truncated", "from 128"});
  expect_tensor({.offset = ~uint64_t{31}}, {"\"t\"", "truncated"});
  RawGguf raw;
  raw.tensor({.dims = {16}});
  raw.tensor({.name = "u", .offset = 32});
  expect(raw, {"\"u\"", "overlap", "\"t\""});
  raw = {};
  raw.tensor({});
  raw.tensor({.offset = 32});
  expect(raw, {"\"t\"", "twice"});
}

TEST(Gguf, EveryPrefixOfAFileIsRefused) {
  const TempFolder folder(TempFolder::memory());
  RawGguf raw = RawGguf::model();
  raw.texts("words", {"a", "b"});
  const std::string bytes = raw.bytes();
  for (size_t size = 0; size < bytes.size(); ++size) {
    std::ofstream(folder / "m.gguf", std::ios::binary) << std::string_view(bytes).substr(0, size);
    EXPECT_THROW(GgufFile(folder / "m.gguf"), Error) << size;
  }
}

TEST(Gguf, ValuesAreTyped) {
  const TempFolder folder(TempFolder::memory());
  RawGguf raw;
  raw.u32("n", 7);
  raw.f32("x", 1e-5F);
  raw.f32("infinite", __builtin_inff());
  raw.text("s", "word");
  raw.text("latin", "\xe9");
  raw.texts("list", {"a", "bc"});
  raw.array("numbers", 5, 2, RawGguf::number(-1) + RawGguf::number(2));
  raw.key("huge", 10, RawGguf::number(~uint64_t{0}));
  write_file_atomically(folder / "m.gguf", raw.bytes());
  const GgufFile file(folder / "m.gguf");
  EXPECT_EQ(file.integer("n"), 7);
  EXPECT_EQ(file.integer("none"), std::nullopt);
  EXPECT_EQ(file.number("x"), 1e-5);
  EXPECT_EQ(file.text("s"), "word");
  EXPECT_EQ(file.texts("list"), (std::vector<std::string_view>{"a", "bc"}));
  EXPECT_EQ(file.numbers("numbers"), (std::vector<double>{-1, 2}));
  expect_error([&] { file.integer("n", {.min = 8}); }, {"key \"n\"", "[8, ", "is 7"});
  expect_error([&] { file.integer("huge"); }, {"below 2^63", "18446744073709551615"});
  expect_error([&] { file.integer("s"); }, {"key \"s\"", "an integer"});
  expect_error([&] { file.number("list"); }, {"a number"});
  expect_error([&] { file.number("infinite"); }, {"finite", "inf"});
  expect_error([&] { file.text("latin"); }, {"UTF-8"});
  expect_error([&] { file.texts("numbers"); }, {"array of strings"});
  expect_error([&] { file.boolean("n"); }, {"a boolean"});
}

TEST(Gguf, DecodesAsTheirPackageDoes) {
  const std::string folder = std::string(ATOM_TEST_DATA) + "/gguf/";
  for (const char* type : {"q8_0", "q4_0"}) {
    const GgufFile file(folder + "llama-" + type + ".gguf");
    const GgufTensor& tensor = *file.find("blk.0.ffn_down.weight");
    std::string got(32 * 64 * sizeof(float), '\0');
    decode_gguf(tensor, 0, 32, std::as_writable_bytes(std::span(got)));
    EXPECT_EQ(got, read_file(folder + type + ".f32")) << type;
  }
}

}  // namespace
}  // namespace atom::checkpoint
