#include "timing/random_data.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "format/float16.h"
#include "format/float8.h"

namespace atom::timing {
namespace {

using backend::LibraryFormat;

constexpr size_t kPoolValues = size_t{1} << 18;
constexpr size_t kCut = 4096;                // bytes
constexpr size_t kChunk = size_t{16} << 20;  // bytes that are uploaded again and again

template <typename T>
void put(std::vector<std::byte>& bytes, size_t i, T value) {
  std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
}

void put_normal(std::vector<std::byte>& bytes, size_t i, LibraryFormat format, float normal) {
  switch (format) {
    case LibraryFormat::kF32:
      return put(bytes, i, normal);
    case LibraryFormat::kF16:
      return put(bytes, i, format::f32_to_f16(normal));
    case LibraryFormat::kInt8:
      return put(bytes, i,
                 static_cast<int8_t>(std::clamp(std::nearbyint(32 * normal), -127.0f, 127.0f)));
    case LibraryFormat::kFp8: {
      const uint8_t magnitude = format::f32_to_e4m3(std::abs(normal));
      return put(bytes, i, static_cast<uint8_t>(magnitude | (normal < 0 ? 0x80 : 0)));
    }
  }
}

}  // namespace

int value_bytes(LibraryFormat format) {
  return format == LibraryFormat::kF32 ? 4 : format == LibraryFormat::kF16 ? 2 : 1;
}

int result_bytes(LibraryFormat format) {
  return format == LibraryFormat::kF32 || format == LibraryFormat::kInt8 ? 4 : 2;
}

const std::vector<std::byte>& RandomData::pool(LibraryFormat format) {
  std::vector<std::byte>& pool = pools_[static_cast<size_t>(format)];
  if (!pool.empty()) return pool;
  pool.resize(kPoolValues * static_cast<size_t>(value_bytes(format)));
  for (size_t i = 0; i < kPoolValues; ++i)
    put_normal(pool, i, format, static_cast<float>(random_.normal()));
  return pool;
}

backend::Buffer RandomData::make(LibraryFormat format, size_t count) {
  const std::vector<std::byte>& values = pool(format);
  const size_t bytes = count * static_cast<size_t>(value_bytes(format));
  std::vector<std::byte> chunk(std::min(bytes, kChunk));
  for (size_t at = 0; at < chunk.size(); at += kCut) {
    const size_t from = random_.below((values.size() - kCut) / 8 + 1) * 8;
    std::memcpy(chunk.data() + at, values.data() + from, std::min(kCut, chunk.size() - at));
  }
  backend::Buffer buffer = backend_.allocate(bytes);
  for (size_t at = 0; at < bytes; at += chunk.size()) {
    backend_.upload(buffer.as<std::byte>() + at, chunk.data(), std::min(chunk.size(), bytes - at));
    pause();
  }
  return buffer;
}

}  // namespace atom::timing
