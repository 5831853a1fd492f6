// The weight of one linear as GPTQ, AWQ or compressed-tensors store it: codes, scales, zeros and the order of groups.
//
//   const PackedWeight weight(find, "model", "model.layers.0.mlp.up_proj", format);   // all but the codes is checked
//   weight.decode(out);                                                               // [rows, inputs], F32
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/packed_config.h"
#include "tensor/tensor.h"

namespace atom::checkpoint {

class PackedWeight {
 public:
  // A tensor of the files by its name, no value without it. Its bytes outlive the weight.
  using Find = std::function<std::optional<tensor::TensorView>(const std::string& name)>;

  // Error naming `where`, the tensor, the rule and the value: a tensor is missing; sizes, types, group or bits do not fit
  // each other; a scale is NaN or infinite; a zero is no code; an entry of the order is no group.
  PackedWeight(const Find& find, std::string where, std::string module, const PackedFormat& format);

  const std::string& module() const { return module_; }
  const PackedFormat& format() const { return format_; }
  int64_t rows() const { return rows_; }
  int64_t inputs() const { return inputs_; }
  int64_t group() const { return group_; }                          // inputs that share a scale
  const std::vector<std::string>& parts() const { return parts_; }  // names of its tensors
  uint64_t stored_bytes() const { return stored_bytes_; }
  const std::string& kind() const { return kind_; }  // "gptq4", "int8", "f8_e4m3"

  // Values as F32: one rounding, and none where scales have 16 bits. Error: a code of FP8 is NaN.
  void decode(std::span<std::byte> out) const;

  // Why Atom does not compute with the weight as it is stored; empty: it does, with int4 weights and inputs in floating
  // point, or with int8 weights and inputs. Reads int8 codes up to the first -128.
  std::string misfit() const;
  // Of a weight that fits: int4 codes as I32 [rows, ceil(inputs / 8)] or int8 codes, and F16 scales [rows, groups] or F32
  // scales [rows, 1].
  bool is_int4() const { return format_.bits == 4; }
  std::vector<std::byte> int4_codes() const;
  tensor::TensorView int8_codes() const { return codes_; }
  std::vector<std::byte> fitting_scales() const;

 private:
  struct Parameters {
    std::vector<float> scales;      // [scale_rows, groups]
    std::vector<int16_t> zeros;     // the same, or empty: all are middle()
    std::vector<int32_t> group_of;  // [inputs], or empty: input / group
  };

  [[noreturn]] void refuse(const std::string& part, const std::string& rule) const;
  std::optional<tensor::TensorView> take_if(const Find& find, const std::string& part);
  tensor::TensorView take(const Find& find, const std::string& part);
  void require(const std::string& part, const tensor::TensorView& view,
               std::initializer_list<tensor::DType> dtypes, const tensor::Shape& shape) const;
  void take_codes(const Find& find);
  void read_shape(const Find& find);
  void set_groups();
  void take_scales(const Find& find);
  void take_rest(const Find& find);

  bool transposed() const {  // inputs first
    return format_.layout == PackedFormat::Layout::kGptq ||
           format_.layout == PackedFormat::Layout::kAwq;
  }
  bool is_float() const { return format_.layout >= PackedFormat::Layout::kFloat8; }
  int middle() const { return 1 << (format_.bits - 1); }
  Parameters parameters() const;
  std::vector<float> read_scales() const;
  std::vector<int16_t> read_zeros() const;
  std::vector<int32_t> read_order() const;
  void unpack(int64_t first, int64_t count, uint8_t* out) const;
  std::vector<float> values_of_codes() const;

  std::string where_, module_, kind_;
  PackedFormat format_;
  int64_t rows_ = 0, inputs_ = 0, group_ = 0, groups_ = 0, rows_of_scale_ = 0, scale_rows_ = 0;
  std::vector<std::string> parts_;
  uint64_t stored_bytes_ = 0;
  std::string codes_part_, scales_part_, zeros_part_, order_part_;
  tensor::TensorView codes_, scales_;
  std::optional<tensor::TensorView> zeros_, order_, global_;
  bool in_order_ = true, middle_zeros_ = true, half_scales_ = true;
};

}  // namespace atom::checkpoint
