// What a packed weight and its description may not hold, one sentence each.
#include "checkpoint/packed_weight.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "base/file.h"
#include "checkpoint/model_files.h"
#include "checkpoint/packed_config.h"
#include "checkpoint/packed_model.h"
#include "testing/expect_error.h"

namespace atom::checkpoint {
namespace {

using atom::testing::expect_error;
using tensor::DType;
using tensor::HostTensor;
using tensor::Shape;

// The tensors of one linear, which a case changes.
using Tensors = std::map<std::string, HostTensor>;

template <typename T>
HostTensor filled(DType dtype, const Shape& shape, T value) {
  HostTensor out(dtype, shape);
  for (size_t at = 0; at < out.bytes().size(); at += sizeof(T))
    std::memcpy(out.bytes().data() + at, &value, sizeof(T));
  return out;
}

Tensors gptq() {  // [8, 32] in groups of 16
  Tensors out;
  out["m.qweight"] = filled(DType::I32, {4, 8}, 0x76543210);
  out["m.qzeros"] = filled(DType::I32, {2, 1}, 0x77777777);
  out["m.scales"] = filled(DType::F32, {2, 8}, 0.5f);
  out["m.g_idx"] = filled(DType::I32, {32}, 1);
  return out;
}

Tensors pack() {  // [8, 30] in groups of 10
  Tensors out;
  out["m.weight_packed"] = filled(DType::I32, {8, 4}, 0x76543210);
  out["m.weight_scale"] = filled(DType::F32, {8, 3}, 0.5f);
  out["m.weight_shape"] = HostTensor(DType::I64, {2});
  out["m.weight_shape"].as<int64_t>()[0] = 8;
  out["m.weight_shape"].as<int64_t>()[1] = 30;
  return out;
}

PackedWeight weight(const Tensors& tensors, const PackedFormat& format) {
  const auto find = [&](const std::string& name) -> std::optional<tensor::TensorView> {
    const auto found = tensors.find(name);
    if (found == tensors.end()) return std::nullopt;
    return found->second.view();
  };
  return {find, "folder", "m", format};
}

constexpr PackedFormat kGptq{
    .layout = PackedFormat::Layout::kGptq, .group = 16, .zeros_less_one = true};
constexpr PackedFormat kPack{.layout = PackedFormat::Layout::kPacked, .group = 10};

TEST(PackedWeight, DecodesStreamsWithShortRows) {
  const Tensors tensors = pack();
  const PackedWeight it = weight(tensors, kPack);
  HostTensor out(DType::F32, {8, 30});
  it.decode(out.bytes());
  for (int i = 0; i < 30; ++i)
    EXPECT_EQ(out.as<float>()[30 + i], 0.5f * static_cast<float>(i % 8 - 8));
  EXPECT_EQ(it.parts().size(), 3U);
  EXPECT_EQ(it.kind(), "int4");
}

struct BadTensor {
  std::string_view name;  // of the tensor that is replaced, or left out
  HostTensor (*make)();   // nullptr: left out
  std::initializer_list<std::string_view> parts;
};

TEST(PackedWeight, RefusesTensorsOfGptq) {
  EXPECT_EQ(weight(gptq(), kGptq).misfit(), "groups follow an order of the inputs");
  const BadTensor cases[] = {
      {"m.qweight",
       [] {
         return filled(DType::F32, {4, 8}, 1.0f);
       },
       {"m.qweight", "must be I32", "F32"}},
      {"m.qweight", [] { return filled(DType::I32, {32}, 1); }, {"must be a matrix", "[32]"}},
      {"m.qweight",
       [] {
         return HostTensor(DType::I32, {0, 8});
       },
       {"[0, 8]"}},
      {"m.qweight",
       [] {
         return filled(DType::I32, {3, 8}, 1);
       },
       {"24 inputs", "group size 16"}},
      {"m.qweight",
       [] {
         return filled(DType::I32, {4, 7}, 1);
       },
       {"7 outputs of 4 bits"}},
      {"m.qzeros", nullptr, {"m.qzeros", "is missing"}},
      {"m.qzeros",
       [] {
         return filled(DType::I32, {2, 2}, 0);
       },
       {"m.qzeros", "[2, 1]", "[2, 2]"}},
      {"m.qzeros",
       [] {
         return filled(DType::I32, {2, 1}, -1);
       },
       {"the zero 16", "0..15"}},
      {"m.scales",
       [] {
         return filled(DType::F32, {8, 2}, 1.0f);
       },
       {"m.scales", "[2, 8]", "[8, 2]"}},
      {"m.scales",
       [] {
         return filled(DType::I32, {2, 8}, 1);
       },
       {"m.scales", "must be F16"}},
      {"m.scales",
       [] {
         return filled(DType::F32, {2, 8}, NAN);
       },
       {"m.scales", "nan", "finite"}},
      {"m.scales",
       [] {
         return filled(DType::F32, {2, 8}, INFINITY);
       },
       {"m.scales", "inf"}},
      {"m.g_idx", [] { return filled(DType::I32, {32}, 2); }, {"m.g_idx", "holds 2", "2 groups"}},
      {"m.g_idx", [] { return filled(DType::I32, {32}, -1); }, {"m.g_idx", "holds -1"}},
      {"m.g_idx", [] { return filled(DType::I32, {31}, 0); }, {"m.g_idx", "[32]", "[31]"}},
      {"m.g_idx", [] { return filled(DType::I64, {32}, 0); }, {"m.g_idx", "must be I32"}}};
  for (const BadTensor& it : cases) {
    Tensors tensors = gptq();
    tensors.erase(std::string(it.name));
    if (it.make != nullptr) tensors[std::string(it.name)] = it.make();
    expect_error([&] { weight(tensors, kGptq); }, {"folder: tensor \"m."});
    expect_error([&] { weight(tensors, kGptq); }, it.parts);
  }
  Tensors tensors = gptq();
  tensors.erase("m.g_idx");
  EXPECT_EQ(weight(tensors, kGptq).misfit(), "groups of 16 are not computed with");
  PackedFormat ordered = kGptq;
  ordered.ordered = true;
  expect_error([&] { weight(tensors, ordered); }, {"m.g_idx", "is missing"});
  PackedFormat three = kGptq;
  three.bits = 3;
  expect_error([&] { weight(gptq(), three); }, {"multiple of 3 rows", "has 4"});
}

HostTensor sizes(int64_t rows, int64_t inputs) {
  HostTensor out(DType::I64, {2});
  out.as<int64_t>()[0] = rows;
  out.as<int64_t>()[1] = inputs;
  return out;
}

TEST(PackedWeight, RefusesTensorsOfCompressedTensors) {
  const BadTensor cases[] = {
      {"m.weight_shape", [] { return sizes(9, 30); }, {"m.weight_shape", "[9, 30]", "[8, 4]"}},
      {"m.weight_shape", [] { return sizes(8, 33); }, {"[8, 33]"}},
      {"m.weight_shape", [] { return sizes(8, 24); }, {"[8, 24]"}},
      {"m.weight_shape", [] { return sizes(8, INT64_MIN); }, {"m.weight_shape"}},
      {"m.weight_shape", [] { return sizes(8, INT64_MAX); }, {"m.weight_shape"}},
      {"m.weight_shape", [] { return HostTensor(DType::I64, {3}); }, {"[2]", "[3]"}},
      {"m.weight_shape", nullptr, {"32 inputs", "group size 10"}},
      {"m.weight_scale", nullptr, {"m.weight_scale", "is missing"}},
      {"m.weight_zero_point",
       [] {
         return filled(DType::I32, {1, 2}, 0);
       },
       {"[1, 3]", "[1, 2]"}},
      {"m.weight_zero_point",
       [] {
         return filled(DType::I8, {8, 3}, int8_t{-9});
       },
       {"the zero -1"}},
      {"m.weight_zero_point",
       [] {
         return filled(DType::U8, {8, 3}, uint8_t{0});
       },
       {"must be I8"}},
      {"m.weight_g_idx",
       [] { return filled(DType::I32, {30}, 3); },
       {"m.weight_g_idx", "holds 3"}}};
  for (const BadTensor& it : cases) {
    Tensors tensors = pack();
    tensors.erase(std::string(it.name));
    if (it.make != nullptr) tensors[std::string(it.name)] = it.make();
    expect_error([&] { weight(tensors, kPack); }, {"folder: tensor \"m."});
    expect_error([&] { weight(tensors, kPack); }, it.parts);
  }
  PackedFormat uneven = kPack;
  uneven.symmetric = false;
  const Tensors tensors = pack();
  expect_error([&] { weight(tensors, uneven); }, {"m.weight_zero_point", "is missing"});
}

TEST(PackedWeight, RefusesScalesOfFourBitFloatsAndNaN) {
  Tensors nv;
  nv["m.weight_packed"] = filled(DType::U8, {2, 16}, uint8_t{0x21});
  nv["m.weight_scale"] = filled(DType::F8_E4M3, {2, 2}, uint8_t{0x38});
  nv["m.weight_global_scale"] = filled(DType::F32, {1}, 0.0f);
  PackedFormat format{.layout = PackedFormat::Layout::kNvfp4, .group = 16};
  expect_error([&] { weight(nv, format); }, {"m.weight_global_scale", "holds 0", "positive"});
  nv["m.weight_global_scale"] = filled(DType::F32, {1}, 1.0f);
  nv["m.weight_scale"] = filled(DType::F8_E4M3, {2, 2}, uint8_t{0x7f});
  expect_error([&] { weight(nv, format); }, {"m.weight_scale", "finite"});
  format = {.layout = PackedFormat::Layout::kMxfp4, .group = 32};
  nv["m.weight_scale"] = filled(DType::U8, {2, 1}, uint8_t{255});
  expect_error([&] { weight(nv, format); }, {"m.weight_scale", "finite"});
  Tensors f8;
  f8["m.weight"] = filled(DType::F8_E4M3, {2, 2}, uint8_t{0xff});
  f8["m.weight_scale"] = filled(DType::F32, {}, 1.0f);
  const PackedWeight it =
      weight(f8, {.layout = PackedFormat::Layout::kFloat8, .bits = 8, .rows = PackedFormat::kAll});
  std::vector<std::byte> out(16);
  expect_error([&] { it.decode(out); }, {"m.weight", "NaN"});
}

struct BadConfig {
  std::string_view json;
  std::initializer_list<std::string_view> parts;
};

TEST(PackedConfig, RefusesWhatIsNotRead) {
  const BadConfig cases[] = {
      {R"({"quant_method":"gptq"})", {"bits", "missing"}},
      {R"({"quant_method":"gptq","bits":5,"group_size":128})", {"bits", "5"}},
      {R"({"quant_method":"gptq","bits":0})", {"bits", "0"}},
      {R"({"quant_method":"gptq","bits":4.0})", {"bits", "4.0"}},
      {R"({"quant_method":"gptq","bits":-4})", {"bits", "-4"}},
      {R"({"quant_method":"gptq","bits":4,"group_size":0})", {"group_size", "0", "positive"}},
      {R"({"quant_method":"gptq","bits":4,"group_size":-2})", {"group_size", "-2"}},
      {R"({"quant_method":"gptq","bits":4,"group_size":1.5})", {"group_size", "1.5"}},
      {R"({"quant_method":"gptq","bits":4,"group_size":1e30})", {"group_size"}},
      {R"({"quant_method":"gptq","bits":4,"group_size":99999999999999999999})", {"group_size"}},
      {R"({"quant_method":"gptq","bits":4,"desc_act":1})", {"desc_act", "1"}},
      {R"({"quant_method":"gptq","bits":4,"checkpoint_format":"marlin"})",
       {"checkpoint_format", "marlin"}},
      {R"({"quant_method":"gptq","bits":4,"pack_dtype":"int16"})", {"pack_dtype", "int16"}},
      {R"({"quant_method":"gptq","bits":4,"dynamic":{"+:.*":{"bits":8}}})", {"dynamic"}},
      {R"({"quant_method":"awq","bits":8})", {"bits", "8"}},
      {R"({"quant_method":"awq","bits":4,"version":"gemv"})", {"version", "gemv", "gemm"}},
      {R"({"quant_method":"compressed-tensors"})", {"config_groups"}},
      {R"({"quant_method":"compressed-tensors","kv_cache_scheme":{"num_bits":8}})",
       {"kv_cache_scheme"}},
      {R"({"quant_method":"compressed-tensors","sparsity_config":{"format":"sparse-24"}})",
       {"sparsity_config"}},
      {R"({"quant_method":"compressed-tensors","config_groups":{"a":{"weights":{}}}})",
       {"a", "targets"}},
      {R"({"quant_method":"compressed-tensors","config_groups":{"a":{"targets":[]}}})",
       {"weights"}},
      {R"({"quant_method":"compressed-tensors","format":"marlin-24","config_groups":{"a":{"targets":[],"weights":{}}}})",
       {"format", "marlin-24"}},
      {R"({"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"a":{"targets":[],"weights":{"num_bits":5,"strategy":"channel"}}}})",
       {"num_bits", "5"}},
      {R"({"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"a":{"targets":[],"weights":{"num_bits":4}}}})",
       {"strategy", "tensor"}},
      {R"({"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"a":{"targets":[],"weights":{"num_bits":4,"strategy":"group"}}}})",
       {"group_size", "missing"}},
      {R"({"quant_method":"compressed-tensors","format":"int-quantized","config_groups":{"a":{"targets":[],"weights":{"num_bits":8,"strategy":"token"}}}})",
       {"strategy", "token"}},
      {R"({"quant_method":"compressed-tensors","format":"int-quantized","config_groups":{"a":{"targets":[],"weights":{"num_bits":8,"type":"float","strategy":"channel"}}}})",
       {"type", "float", "int-quantized"}},
      {R"({"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{"a":{"targets":[],"weights":{"num_bits":8,"type":"float","strategy":"block","block_structure":[0,1]}}}})",
       {"rows", "0"}},
      {R"({"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{"a":{"targets":[1],"weights":{"num_bits":8,"type":"float","strategy":"tensor"}}}})",
       {"targets", "1"}}};
  for (const BadConfig& it : cases) {
    const Json json = parse_json(it.json);
    expect_error([&] { read_packed_config(json, "config.json"); }, {"config.json: "});
    expect_error([&] { read_packed_config(json, "config.json"); }, it.parts);
  }
  EXPECT_FALSE(read_packed_config({{"quant_method", "bitnet"}}, "config.json"));
}

TEST(PackedConfig, NamesWinOverExpressionsAndThoseOverClasses) {
  const auto group = [](const char* target, int size) {
    return PackedGroup{{target}, PackedFormat{.group = size}};
  };
  const PackedConfig config{
      "", "config.json", {group("Linear", 1), group("re:b.*", 2), group("b.c", 3)}};
  EXPECT_EQ(config.find("a")->group, 1);
  EXPECT_EQ(config.find("a.b")->group, 1);  // an expression begins at the first character
  EXPECT_EQ(config.find("b.d")->group, 2);
  EXPECT_EQ(config.find("b.c")->group, 3);
  EXPECT_EQ((PackedConfig{"", "", {group("Conv", 1)}}.find("a")), nullptr);
}

}  // namespace
}  // namespace atom::checkpoint
