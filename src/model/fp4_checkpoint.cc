#include "model/fp4_checkpoint.h"

#include <cmath>

#include "base/error.h"

namespace atom::model {

Json fp4_json(format::Format format, bool dynamic) {
  Json out{{"num_bits", 4}, {"type", "float"}, {"symmetric", true}, {"group_size", format.group}};
  out["strategy"] = format == format::kNvfp4 ? "tensor_group" : "group";
  if (format == format::kMxfp4) out["scale_dtype"] = "torch.uint8";
  if (format == format::kNvfp4) out["scale_dtype"] = "torch.float8_e4m3fn";
  out["dynamic"] = dynamic;
  return out;
}

bool is_fp4(const Json& number) {
  return number.value("type", Json()) == Json("float") &&
         number.value("num_bits", Json()) == Json(4);
}

format::Format parse_fp4(const Json& number) {
  for (const format::Format format :
       {format::e2m1(32), format::e2m1(64), format::e2m1(128), format::kMxfp4, format::kNvfp4}) {
    const Json known = fp4_json(format, false);
    bool same = !number.contains("progressive");
    for (const char* key :
         {"type", "num_bits", "symmetric", "group_size", "strategy", "scale_dtype"})
      same = same && number.value(key, Json()) == known.value(key, Json());
    if (same) return format;
  }
  return format::kF32;
}

bool has_clip(format::Format format) {
  return format::bits(format) == 4 && format != format::kMxfp4 && format != format::kNvfp4;
}

void require_scale_bytes(std::string_view where, const std::string& name,
                         const tensor::TensorView& view, uint8_t largest) {
  for (const std::byte bits : view.bytes)
    if (std::to_integer<uint8_t>(bits) > largest)
      fail("{}: tensor '{}' holds the byte {}, but its scales are bytes up to {}", where, name,
           std::to_integer<int>(bits), largest);
}

std::vector<float> read_global_scale(std::string_view where, const std::string& name,
                                     const tensor::TensorView& view) {
  std::vector<float> out = tensor::widen(view);
  if (!(out[0] > 0) || !std::isfinite(out[0]))
    fail("{}: tensor '{}' holds {}; a global scale must be positive and finite", where, name,
         out[0]);
  return out;
}

}  // namespace atom::model
