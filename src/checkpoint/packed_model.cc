#include "checkpoint/packed_model.h"

#include <fmt/format.h>

#include <utility>

#include "base/error.h"

namespace atom::checkpoint {

using tensor::DType;
using tensor::Shape;

std::unique_ptr<PackedModel> PackedModel::read(const std::vector<std::string>& names,
                                               const PackedWeight::Find& find,
                                               const Json& quantization, const std::string& source,
                                               const std::string& where) {
  std::optional<PackedConfig> config = read_packed_config(quantization, source);
  if (!config) return nullptr;
  auto model = std::make_unique<PackedModel>();
  model->config_ = *std::move(config);
  const bool compressed = model->config_.method == "compressed-tensors";
  const std::set<std::string_view> known(names.begin(), names.end());
  for (const std::string& name : names) {
    const std::string_view last = std::string_view(name).substr(name.rfind('.') + 1);
    const bool codes = compressed ? last == "weight_packed" ||
                                        (last == "weight" && known.contains(name + "_scale"))
                                  : last == "qweight";
    if (!codes || last.size() + 1 >= name.size()) continue;
    const std::string module = name.substr(0, name.size() - last.size() - 1);
    const PackedFormat* format = model->config_.find(module);
    if (format == nullptr)
      fail("{}: tensor \"{}\" is quantized, but no group of {} targets \"{}\"", where, name, source,
           module);
    if (model->weights_.contains(module))
      fail("{}: tensor \"{}\" holds a weight that is there already", where, name);
    model->weights_.try_emplace(module, find, where, module, *format);
  }
  if (model->weights_.empty())
    fail("{}: {} says that the model is quantized ({}), but no tensor is", where, source,
         model->config_.method);
  for (const auto& [module, weight] : model->weights_)
    model->parts_.insert(weight.parts().begin(), weight.parts().end());
  return model;
}

std::string PackedModel::description() const {
  std::set<std::string> kinds;
  for (const auto& [module, weight] : weights_) {
    const PackedFormat& format = weight.format();
    const std::string scales = format.group != PackedFormat::kAll && format.rows != 1
                                   ? fmt::format("blocks of {} x {}", format.rows, format.group)
                               : format.group != PackedFormat::kAll
                                   ? fmt::format("groups of {}", format.group)
                               : format.rows == 1 ? "rows"
                                                  : "one group";
    kinds.insert(fmt::format("{} in {}", weight.kind(), scales));
  }
  std::string text = config_.method;
  for (const std::string& kind : kinds) text += ", " + kind;
  return text;
}

void PackedModel::see(PackedView view) {
  seen_.clear();
  for (const auto& [module, weight] : weights_) {
    if (view == PackedView::kFloats) {
      seen_[module + ".weight"] = {&weight, What::kFloats};
      continue;
    }
    check(weight.misfit().empty(), "a weight that is seen as stored must fit");
    seen_[module + (weight.is_int4() ? ".weight_packed" : ".weight")] = {&weight, What::kCodes};
    seen_[module + ".weight_scale"] = {&weight, What::kScales};
  }
}

std::vector<std::string> PackedModel::names() const {
  std::vector<std::string> names;
  for (const auto& [name, seen] : seen_) names.push_back(name);
  return names;
}

const PackedModel::Seen& PackedModel::seen(std::string_view name) const {
  const auto found = seen_.find(name);
  check(found != seen_.end(), "a tensor that is seen");
  return found->second;
}

const PackedWeight& PackedModel::weight_of(std::string_view name) const {
  return *seen(name).weight;
}

TensorHeader PackedModel::header(std::string_view name) const {
  const Seen& it = seen(name);
  const PackedWeight& weight = *it.weight;
  const int64_t rows = weight.rows(), inputs = weight.inputs();
  const bool int4 = weight.is_int4();
  const uint64_t scale_bytes =
      static_cast<uint64_t>(rows * (inputs / weight.group())) * (int4 ? 2 : 4);
  if (it.what == What::kFloats)
    return {DType::F32, {rows, inputs}, weight.kind(), weight.stored_bytes()};
  if (it.what == What::kScales)
    return {int4 ? DType::F16 : DType::F32,
            {rows, inputs / weight.group()},
            int4 ? "F16" : "F32",
            scale_bytes};
  const Shape shape = {rows, int4 ? (inputs + 7) / 8 : inputs};
  const DType dtype = int4 ? DType::I32 : DType::I8;
  return {dtype, shape, weight.kind(), tensor::byte_size(dtype, shape)};
}

std::vector<std::byte> PackedModel::made(const Seen& seen) {
  if (seen.what == What::kScales) return seen.weight->fitting_scales();
  if (seen.what == What::kCodes) return seen.weight->int4_codes();
  std::vector<std::byte> out(
      tensor::byte_size(DType::F32, {seen.weight->rows(), seen.weight->inputs()}));
  seen.weight->decode(out);
  return out;
}

tensor::TensorView PackedModel::tensor(std::string_view name) const {
  const Seen& it = seen(name);
  if (it.what == What::kCodes && !it.weight->is_int4()) return it.weight->int8_codes();
  const TensorHeader head = header(name);
  const std::lock_guard lock(mutex_);
  auto found = made_.find(name);
  if (found == made_.end()) found = made_.emplace(name, made(it)).first;
  return {head.dtype, head.shape, found->second};
}

void PackedModel::release(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  if (const auto found = made_.find(name); found != made_.end()) made_.erase(found);
}

}  // namespace atom::checkpoint
