// Safetensors files written by hand, byte for byte, for tests of the reader.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/file.h"

namespace atom::checkpoint {

// Eight bytes of little-endian length, header, data.
inline std::string raw_safetensors(std::string_view header, std::string_view data,
                                   uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xff);
  bytes += header;
  bytes += data;
  return bytes;
}

inline std::string raw_safetensors(std::string_view header, std::string_view data) {
  return raw_safetensors(header, data, header.size());
}

// A file with F32 tensors of one element each, holding 1.0.
inline std::string one_element_tensors(std::initializer_list<std::string_view> names) {
  std::string header = "{", data;
  for (const std::string_view name : names) {
    header += header.size() > 1 ? "," : "";
    header += fmt::format(R"("{}":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}})", name,
                          data.size(), data.size() + 4);
    data += std::string("\x00\x00\x80\x3f", 4);
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return raw_safetensors(header, data);
}

}  // namespace atom::checkpoint
