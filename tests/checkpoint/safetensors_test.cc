#include "checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/random.h"
#include "base/sha256.h"
#include "checkpoint/raw_safetensors.h"
#include "testing/expect_error.h"
#include "testing/file_size_limit.h"
#include "testing/temp_folder.h"

namespace atom::checkpoint {
namespace {

using atom::testing::expect_error;
using atom::testing::TempFolder;
using tensor::DType;
using tensor::HostTensor;
using tensor::TensorView;

class SafetensorsTest : public ::testing::Test {
 protected:
  SafetensorsFile open(std::string_view bytes) {
    // Removed first and without fsync: replacing by truncation makes some file systems flush.
    std::filesystem::remove(path_);
    std::ofstream(path_, std::ios::binary) << bytes;
    return SafetensorsFile(path_);
  }
  // The reader refuses a file of this header and so much data; the message names the file too.
  void expect_refused(std::string_view header, size_t data_bytes,
                      std::initializer_list<std::string_view> parts) {
    expect_refused_bytes(raw_safetensors(header, std::string(data_bytes, '\0')), parts);
  }
  void expect_refused_bytes(std::string_view bytes, std::initializer_list<std::string_view> parts) {
    expect_error([&] { open(bytes); }, parts);
    expect_error([&] { open(bytes); }, {"bad model.safetensors"});
  }

  TempFolder folder_;
  std::filesystem::path path_ = folder_ / "bad model.safetensors";
};

TEST_F(SafetensorsTest, ReadsAHandWrittenFile) {
  // Header order differs from data order; blanks pad the header.
  const SafetensorsFile file = open(raw_safetensors(
      R"({"b":{"dtype":"I8","shape":[2],"data_offsets":[4,6]},"__metadata__":{"format":"pt"},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("none":{"dtype":"F16","shape":[3,0],"data_offsets":[4,4]}}    )",
      std::string_view("\x00\x00\x80\x3f\x05\xfb", 6)));
  EXPECT_EQ(file.names(), (std::vector<std::string>{"a", "none", "b"}));
  EXPECT_EQ(file.metadata(), (Metadata{{"format", "pt"}}));
  EXPECT_EQ(file.tensor_bytes(), 6u);
  EXPECT_EQ(tensor::widen(file.find("a").value()), std::vector<float>{1.0f});
  EXPECT_EQ(file.find("a")->shape.rank(), 0);
  EXPECT_EQ(file.find("b")->as<int8_t>()[1], -5);
  EXPECT_EQ(file.find("none")->bytes.size(), 0u);
  EXPECT_FALSE(file.find("c").has_value());
  EXPECT_FALSE(file.find("__metadata__").has_value());
  EXPECT_TRUE(file.has("b"));
}

TEST_F(SafetensorsTest, ReadsAnEmptyHeaderAndSurvivesAMove) {
  EXPECT_TRUE(open(raw_safetensors("{}", "")).names().empty());
  SafetensorsFile first = open(one_element_tensors({"x", "y"}));
  const TensorView view = first.find("y").value();
  const SafetensorsFile file = std::move(first);
  EXPECT_EQ(view.as<float>()[0], 1.0f);
  EXPECT_EQ(file.find("y")->bytes.data(), view.bytes.data());
  file.release("y");
  EXPECT_EQ(file.find("y")->as<float>()[0], 1.0f);
}

TEST_F(SafetensorsTest, RefusesShortFiles) {
  expect_refused_bytes("", {"at least 8 bytes", "has 0"});
  expect_refused_bytes("1234567", {"at least 8 bytes", "has 7"});
}

TEST_F(SafetensorsTest, RefusesHeaderLengths) {
  expect_refused_bytes(raw_safetensors("{}", "", 0), {"must be in [2, 100000000]", "is 0"});
  expect_refused_bytes(raw_safetensors("{}", "", 1), {"is 1"});
  expect_refused_bytes(raw_safetensors("{}", "", 100'000'001), {"is 100000001"});
  expect_refused_bytes(raw_safetensors("{}", "", UINT64_MAX), {"is 18446744073709551615"});
  expect_refused_bytes(raw_safetensors("{}", "", 3), {"header length of 3 bytes", "exceeds the 2"});
}

TEST_F(SafetensorsTest, RefusesHeadersThatAreNoJsonObject) {
  expect_refused("[]", 0, {"must begin with '{'", "0x5b"});
  expect_refused(" {}", 0, {"must begin with '{'", "0x20"});
  expect_refused(R"({"a":)", 0, {"not valid JSON"});
  expect_refused("{}{}", 0, {"not valid JSON"});
  expect_refused(std::string_view("{}\0\0", 4), 0, {"not valid JSON", "NUL"});
  expect_refused("{\"a\":" + std::string(100, '['), 0, {"nested deeper"});
  expect_refused(R"({"a":[1]})", 0, {"tensor \"a\"", "must be a JSON object", "[1]"});
}

TEST_F(SafetensorsTest, RefusesNames) {
  constexpr std::string_view kEmpty = R"(:{"dtype":"I8","shape":[0],"data_offsets":[0,0]})";
  const std::string twice = fmt::format("{{\"a\"{},\"a\"{}}}", kEmpty, kEmpty);
  expect_refused(twice, 0, {"\"a\" twice"});
  expect_refused(fmt::format("{{\"{}\"{}}}", "\xff", kEmpty), 0, {"not valid JSON", "UTF-8"});
}

TEST_F(SafetensorsTest, RefusesDtypes) {
  expect_refused(R"({"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", 4,
                 {"tensor \"a\"", "unknown dtype \"F31\""});
  expect_refused(R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", 4, {"unknown dtype 7"});
  expect_refused(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, {"\"dtype\" is missing"});
}

TEST_F(SafetensorsTest, OtherKnownDtypesAreAnErrorOnlyWhenAskedFor) {
  const SafetensorsFile file =
      open(raw_safetensors(R"({"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
                           R"("q":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[8,10]},)"
                           R"("f":{"dtype":"F4","shape":[3,2],"data_offsets":[10,13]},)"
                           R"("x":{"dtype":"U8","shape":[1],"data_offsets":[13,14]}})",
                           std::string(14, '\x01')));
  EXPECT_EQ(file.find("x")->as<uint8_t>()[0], 1);
  EXPECT_TRUE(file.has("d"));
  expect_error([&] { file.find("d"); }, {"\"d\"", "F64", "not supported"});
  expect_error([&] { file.find("q"); }, {"\"q\"", "F8_E5M2"});
  expect_refused(R"({"f":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2, {"whole bytes"});
}

TEST_F(SafetensorsTest, RefusesShapes) {
  const auto shape = [&](std::string_view dims, std::initializer_list<std::string_view> parts) {
    expect_refused(
        fmt::format(R"({{"a":{{"dtype":"F32","shape":{},"data_offsets":[0,4]}}}})", dims), 4,
        parts);
  };
  shape("[-1]", {"tensor \"a\"", "a dimension", "-1"});
  shape("[1.0]", {"a dimension", "1.0"});
  shape("[0.5]", {"a dimension", "0.5"});
  shape("[true]", {"a dimension", "true"});
  shape("[\"1\"]", {"a dimension", "\"1\""});
  shape("[9223372036854775808]", {"a dimension", "9223372036854775808"});
  shape("1", {"must be an array", "1"});
  shape("[1,1,1,1,1,1,1,1,1]", {"at most 8 dimensions"});
  // 2^64 + 1 elements modulo 2^64 would look like one.
  shape("[274177,67280421310721]", {"64 bits"});
  shape("[4611686018427387904,4]", {"64 bits"});
  shape("[4611686018427387904,1]", {"exceed 64 bits"});
  shape("[2]", {"F32 [2] takes 8 bytes", "span 4"});
  shape("[0]", {"takes 0 bytes", "span 4"});
  expect_refused(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4, {"\"shape\" is missing"});
}

TEST_F(SafetensorsTest, RefusesDataOffsets) {
  const auto range = [&](std::string_view offsets, std::initializer_list<std::string_view> parts) {
    expect_refused(
        fmt::format(R"({{"a":{{"dtype":"F32","shape":[1],"data_offsets":{}}}}})", offsets), 4,
        parts);
  };
  range("[0]", {"must be two numbers", "[0]"});
  range("[0,4,8]", {"must be two numbers"});
  range("{}", {"must be two numbers"});
  range("[4,0]", {"must ascend", "[4,0]"});
  range("[-4,0]", {"a data offset", "-4"});
  range("[0,4.0]", {"a data offset", "4.0"});
  range("[0,18446744073709551615]", {"a data offset", "18446744073709551615"});
  range("[9223372036854775803,9223372036854775807]", {"leaves a hole from 0"});
  expect_refused(R"({"a":{"dtype":"F32","shape":[1]}})", 4, {"\"data_offsets\" is missing"});
}

TEST_F(SafetensorsTest, RefusesOverlapHoleTruncationAndSurplus) {
  const auto two = [](int begin, int end) {
    return fmt::format(R"({{"a":{{"dtype":"I8","shape":[4],"data_offsets":[0,4]}},)"
                       R"("b":{{"dtype":"I8","shape":[4],"data_offsets":[{},{}]}}}})",
                       begin, end);
  };
  EXPECT_EQ(open(raw_safetensors(two(4, 8), "12345678")).names().size(), 2u);
  expect_refused(two(3, 7), 7, {"\"b\"", "from 3 overlap", "up to 4"});
  expect_refused(two(0, 4), 4, {"overlap"});
  expect_refused(two(5, 9), 9, {"\"b\"", "begin at 5", "hole from 4"});
  expect_refused(two(4, 8), 7, {"\"b\"", "end at 8", "only 7 bytes", "truncated"});
  expect_refused(two(4, 8), 9, {"end at byte 8", "9 bytes of data"});
  expect_refused("{}", 1, {"end at byte 0", "1 bytes of data"});
}

TEST_F(SafetensorsTest, RefusesMetadataThatAreNotStrings) {
  expect_refused(R"({"__metadata__":{"a":1}})", 0, {"__metadata__", "\"a\" is 1"});
  expect_refused(R"({"__metadata__":["a"]})", 0, {"__metadata__ must be a JSON object"});
}

// Fills a tensor with seeded bytes.
HostTensor random_tensor(DType dtype, tensor::Shape shape, Random& random) {
  HostTensor result(dtype, shape);
  for (std::byte& byte : result.bytes()) byte = static_cast<std::byte>(random.below(256));
  return result;
}

TEST_F(SafetensorsTest, WriterAndReaderAgreeOnEveryDtype) {
  Random random(3);
  const DType dtypes[] = {DType::I64,  DType::F32, DType::I32, DType::F16,
                          DType::BF16, DType::I8,  DType::U8};
  std::vector<TensorInfo> infos;
  std::vector<HostTensor> tensors;
  for (const DType dtype : dtypes)
    for (const tensor::Shape& shape : {tensor::Shape(), tensor::Shape{8, 5, 2}, tensor::Shape{0}}) {
      infos.push_back({fmt::format("{} {}\xc3\xa9\"\\", tensor::dtype_name(dtype), infos.size()),
                       dtype, shape});
      tensors.push_back(random_tensor(dtype, shape, random));
    }
  const auto path = folder_ / "out put \xc3\xa9.safetensors";
  SafetensorsWriter writer(path, infos, {{"format", "pt"}, {"k\n", "v\"\xc3\xa9"}});
  for (size_t i = 0; i < infos.size(); ++i) writer.write(infos[i].name, tensors[i].bytes());
  EXPECT_FALSE(std::filesystem::exists(path));
  writer.commit();

  const std::string bytes = read_file(path);
  EXPECT_EQ(bytes.size(), writer.planned_size());
  EXPECT_EQ(writer.size(), writer.planned_size());
  EXPECT_EQ(writer.sha256(), sha256_hex(std::as_bytes(std::span(bytes))));
  EXPECT_EQ(static_cast<unsigned char>(bytes[0]) % 8, 0);  // data begin at a multiple of 8

  const SafetensorsFile file(path);
  EXPECT_EQ(file.metadata(), (Metadata{{"format", "pt"}, {"k\n", "v\"\xc3\xa9"}}));
  ASSERT_EQ(file.names().size(), infos.size());
  for (size_t i = 0; i < infos.size(); ++i) {
    const TensorView view = file.find(infos[i].name).value();
    EXPECT_EQ(view.dtype, infos[i].dtype);
    EXPECT_EQ(view.shape, infos[i].shape);
    ASSERT_EQ(view.bytes.size(), tensors[i].bytes().size());
    EXPECT_TRUE(std::equal(view.bytes.begin(), view.bytes.end(), tensors[i].bytes().begin()));
  }
  EXPECT_EQ(file.find(infos[1].name)->as<int64_t>().size(), 80u);
}

TEST_F(SafetensorsTest, WriterKeepsToItsList) {
  const auto path = folder_ / "o.safetensors";
  const HostTensor one(DType::F32, {1});
  {
    SafetensorsWriter writer(path, {{"a", DType::F32, {1}}, {"b", DType::F32, {1}}});
    EXPECT_THROW(writer.write("b", one.bytes()), InvariantError);
    EXPECT_THROW(writer.write("a", one.bytes().subspan(1)), InvariantError);
    writer.write("a", one.bytes());
    EXPECT_THROW(writer.commit(), InvariantError);
    writer.write("b", one.bytes());
    EXPECT_THROW(writer.write("b", one.bytes()), InvariantError);
  }
  EXPECT_TRUE(folder_.names().empty());
  using Infos = std::vector<TensorInfo>;
  const auto make = [&](Infos infos) { SafetensorsWriter writer(path, std::move(infos)); };
  expect_error([&] { make({{"a", DType::I8, {}}, {"a", DType::I8, {}}}); }, {"\"a\"", "twice"});
  expect_error([&] { make({{"__metadata__", DType::I8, {}}}); }, {"__metadata__"});
  expect_error([&] { make({{"\xff", DType::I8, {}}}); }, {"UTF-8"});
  EXPECT_TRUE(folder_.names().empty());
}

TEST_F(SafetensorsTest, FullDiskNamesTheFileAndLeavesNothing) {
  const HostTensor large(DType::U8, {3'000'000});
  {
    const atom::testing::FileSizeLimit limit(1'000'000);
    expect_error(
        [&] {
          SafetensorsWriter writer(folder_ / "full.safetensors", {{"a", DType::U8, {3'000'000}}});
          writer.write("a", large.bytes());
          writer.commit();
        },
        {"full.safetensors", "cannot write the file", "File too large"});
  }
  EXPECT_TRUE(folder_.names().empty());
}

}  // namespace
}  // namespace atom::checkpoint
