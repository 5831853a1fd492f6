// The linears that other programs quantized, seen as tensors of a plain folder or of one that Atom wrote (docs/formats.md).
//
//   auto packed = PackedModel::read(names, find, config, folder);   // null: the folder holds nothing of the kind
//   packed->see(PackedView::kFloats);
//   packed->tensor("model.layers.0.mlp.up_proj.weight");            // F32, decoded once; freed by release()
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/packed_config.h"
#include "checkpoint/packed_weight.h"
#include "checkpoint/tensor_header.h"

namespace atom::checkpoint {

enum class PackedView : uint8_t {
  kFloats,  // X.weight in F32
  kStored,  // weight_packed and weight_scale of int4, weight and weight_scale of int8; all weights must fit
};

class PackedModel {
 public:
  // `quantization` is what config.json says under quantization_config, or a file beside it. Null: its quant_method is none
  // that is read. Error: as read_packed_config and PackedWeight; a tensor that no group of the config names; no tensor at
  // all. The bytes of `find` outlive the model.
  static std::unique_ptr<PackedModel> read(const std::vector<std::string>& names,
                                           const PackedWeight::Find& find, const Json& quantization,
                                           const std::string& source, const std::string& where);

  const std::map<std::string, PackedWeight>& weights() const { return weights_; }  // by module
  const std::set<std::string>& parts() const { return parts_; }  // stored tensors, seen no more
  std::string description() const;                               // "GPTQ, gptq4 in groups of 128"

  void see(PackedView view);
  std::vector<std::string> names() const;  // of the tensors that are seen
  // `name` is one of names().
  TensorHeader header(std::string_view name) const;
  tensor::TensorView tensor(std::string_view name) const;
  void release(std::string_view name) const;  // ends what tensor() gave
  const PackedWeight& weight_of(std::string_view name) const;

 private:
  enum class What : uint8_t { kFloats, kCodes, kScales };
  struct Seen {
    const PackedWeight* weight = nullptr;
    What what = What::kFloats;
  };
  const Seen& seen(std::string_view name) const;
  static std::vector<std::byte> made(const Seen& seen);

  PackedConfig config_;
  std::map<std::string, PackedWeight> weights_;
  std::set<std::string> parts_;
  std::map<std::string, Seen, std::less<>> seen_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::vector<std::byte>, std::less<>> made_;
};

}  // namespace atom::checkpoint
