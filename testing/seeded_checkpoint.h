// A checkpoint whose tensors are a function of their names, as tools/make_model_fixtures.py makes them (seeded_values), so
// that a fixture stores its config.json and logits alone.
//
//   write_seeded_checkpoint(data / "qwen3", folder / "qwen3");   // config.json and model.safetensors
//
// The shapes are those of "tensors" in the fixture's expected.json.
#pragma once

#include <cmath>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "format/float16.h"

namespace atom::testing {

// FNV-1a of the name, then SplitMix64 (Steele et al. 2014) of every element; the sum of two numbers of 7 bits, about
// normal, has 8 bits and fits bf16.
inline std::vector<uint16_t> seeded_values(std::string_view name, const tensor::Shape& shape) {
  uint64_t state = 0xCBF29CE484222325;
  for (const char c : name) state = (state ^ static_cast<uint8_t>(c)) * 0x100000001B3;
  const bool gain = name.ends_with("norm.weight"), matrix = shape.rank() == 2;
  int exponent = !matrix || shape[1] >= 32 ? -8 : -7;
  if (gain) exponent = -7;  // about 1
  if (name == "model.embed_tokens.weight") exponent = -6;
  std::vector<uint16_t> out(static_cast<size_t>(shape.elements()));
  for (size_t i = 0; i < out.size(); ++i) {
    uint64_t z = state + (i + 1) * 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    z ^= z >> 31;
    const int value = static_cast<int>(z & 127) + static_cast<int>((z >> 7) & 127) - 127;
    const int mantissa = gain ? 128 + (value >> 1) : value;
    out[i] = format::f32_to_bf16(std::ldexp(static_cast<float>(mantissa), exponent));
  }
  return out;
}

inline void write_seeded_checkpoint(const std::filesystem::path& fixture,
                                    const std::filesystem::path& folder) {
  const Json expected = parse_json(read_file(fixture / "expected.json"), {.source = "expected"});
  std::vector<checkpoint::TensorInfo> infos;
  for (const auto& [name, dims] : expected.at("tensors").items()) {
    const auto shape = dims.get<std::vector<int64_t>>();
    infos.push_back({name, tensor::DType::BF16, tensor::Shape(std::span<const int64_t>(shape))});
  }
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(fixture / "config.json", folder / "config.json");
  checkpoint::SafetensorsWriter writer(folder / "model.safetensors", infos, {{"format", "pt"}});
  for (const checkpoint::TensorInfo& info : infos) {
    const std::vector<uint16_t> values = seeded_values(info.name, info.shape);
    writer.write(info.name, std::as_bytes(std::span(values)));
  }
  writer.commit();
}

// The folder of a fixture's checkpoint: its own, or where its seeded tensors were written below `scratch`.
inline std::filesystem::path fixture_checkpoint(const std::filesystem::path& fixture,
                                                const std::filesystem::path& scratch) {
  if (std::filesystem::exists(fixture / "model.safetensors") ||
      std::filesystem::exists(fixture / "model.safetensors.index.json"))
    return fixture;
  const std::filesystem::path out = scratch / fixture.filename();
  write_seeded_checkpoint(fixture, out);
  return out;
}

}  // namespace atom::testing
