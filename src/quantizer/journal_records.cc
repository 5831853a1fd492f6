#include "quantizer/journal_records.h"

#include "base/error.h"

namespace atom::quantizer {
namespace {

using model::LayerTensors;
using model::LinearTensors;

// The linears that are solved, in one order for writing and reading.
template <class Layer>
auto solved_linears(Layer& layer) {
  std::vector<decltype(&layer.q)> out = {&layer.q, &layer.k, &layer.v, &layer.out};
  for (auto& expert : layer.experts)
    out.insert(out.end(), {&expert.gate, &expert.up, &expert.down});
  return out;
}

template <class Layer>
auto sites(Layer& layer) {
  return std::vector<decltype(&layer.qkv_input)>{&layer.qkv_input, &layer.out_input,
                                                 &layer.ffn_input, &layer.down_input};
}

void put_linear(Record& record, const LinearTensors& linear) {
  Json segments = Json::array();
  for (int i = 0; i < 2; ++i) {
    const format::Segment& segment = linear.segments.at[i];
    segments.push_back({format::name(segment.format), segment.size});
    const std::string at = fmt::format("{}.{}.", linear.name, i);
    record.put(at + "codes", linear.part[i].codes);
    record.put(at + "scales", linear.part[i].scales);
    record.put(at + "multipliers", linear.part[i].multipliers);
    record.put(at + "global_scale", linear.part[i].global_scale);
  }
  record.json["linears"][linear.name] = std::move(segments);
}

void require_size(const std::string& name, size_t size, int64_t wanted) {
  if (static_cast<int64_t>(size) != wanted)
    fail("the journal's record of {} has an array of {} values where its format has {}", name, size,
         wanted);
}

// None, or `count` blocks of as many values.
template <class T>
void require_blocks(const char* name, const std::vector<std::vector<T>>& blocks, int count,
                    int64_t values) {
  if (!blocks.empty() && blocks.size() != static_cast<size_t>(count))
    fail("the journal has {} of \"{}\" in a layer, not {}", blocks.size(), name, count);
  for (const std::vector<T>& block : blocks) require_size(name, block.size(), values);
}

void require_order(const char* name, const Permutation& order, int channels) {
  if (order.empty()) return;
  require_size(name, order.size(), channels);
  std::vector<bool> seen(order.size());
  for (const int32_t channel : order) {
    if (channel < 0 || channel >= channels || seen[static_cast<size_t>(channel)])
      fail("the journal's order of {} names channel {} twice, or has no such channel", name,
           channel);
    seen[static_cast<size_t>(channel)] = true;
  }
}

float clip_of(const Json& json) {
  const auto clip = json.get<float>();
  if (!(clip > 0 && clip <= 1)) fail("the journal has the clip {}, outside (0, 1]", clip);
  return clip;
}

void take_linear(const Record& record, const model::Scheme& scheme, LinearTensors& linear) {
  const Json* segments = nullptr;
  if (const auto all = record.json.find("linears"); all != record.json.end())
    if (const auto own = all->find(linear.name); own != all->end()) segments = &*own;
  if (segments == nullptr || segments->size() != 2)
    fail("the journal has no record of {}", linear.name);
  const model::LinearScheme* wanted = scheme.find(linear.name);
  if (wanted == nullptr)
    fail("the journal has a record of {}, which is not quantized", linear.name);
  const format::Segments all = model::weight_segments(*wanted, linear.k());
  for (int i = 0; i < 2; ++i) {
    const auto [format, size] = all.at[i];
    const Json& segment = (*segments)[static_cast<size_t>(i)];
    if (segment.at(0) != Json(format::name(format)) || segment.at(1) != Json(size))
      fail("the journal's record of {} has a segment {}, not {} of {} channels", linear.name,
           segment.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 60),
           format::name(format), size);
    linear.segments.at[i] = all.at[i];
    const std::string at = fmt::format("{}.{}.", linear.name, i);
    LinearTensors::Part& part = linear.part[i];
    part.codes = record.take<std::byte>(at + "codes");
    part.scales = record.take<std::byte>(at + "scales");
    part.multipliers = record.take<int8_t>(at + "multipliers");
    part.global_scale = record.take<float>(at + "global_scale");
    require_size(linear.name, part.codes.size(),
                 size > 0 ? linear.n * format::row_bytes(format, size) : 0);
    const bool scaled = size > 0 && format::is_integer(format);
    require_size(linear.name, part.scales.size(),
                 scaled ? int64_t{linear.n} * format::weight_scales(format, size) *
                              format::weight_scale_bytes(format)
                        : 0);
    require_size(linear.name, part.multipliers.size(),
                 size > 0 ? int64_t{linear.n} * format::weight_multipliers(format, size) : 0);
    require_size(linear.name, part.global_scale.size(),
                 size > 0 && format::has_global_scale(format) ? 1 : 0);
  }
}

}  // namespace

Record layer_record(const LayerTensors& tensors, const model::Scheme& scheme) {
  Record record;
  for (const LinearTensors* linear : solved_linears(tensors)) {
    put_linear(record, *linear);
    record.json["clips"][linear->name] = scheme.linears.at(linear->name).clip;
  }
  Json& clips = record.json["input_clips"] = Json::array();
  for (const model::Site* site : sites(tensors)) clips.push_back(site->clip);
  return record;
}

void restore_layer(const Record& record, LayerTensors& tensors, model::Scheme& scheme) {
  for (LinearTensors* linear : solved_linears(tensors)) {
    take_linear(record, scheme, *linear);
    scheme.linears.at(linear->name).clip = clip_of(record.json.at("clips").at(linear->name));
  }
  size_t i = 0;
  for (model::Site* site : sites(tensors))
    site->clip = clip_of(record.json.at("input_clips").at(i++));
}

void put_orders(Record& record, const std::string& at, const LayerOrders& orders) {
  record.put(at + "qkv", orders.qkv);
  record.put(at + "out", orders.out);
  record.put(at + "ffn", orders.ffn);
  record.json[at + "down"] = orders.down.size();
  for (size_t e = 0; e < orders.down.size(); ++e)
    record.put(fmt::format("{}down.{}", at, e), orders.down[e]);
}

LayerOrders take_orders(const Record& record, const std::string& at) {
  LayerOrders orders{.qkv = record.take<int32_t>(at + "qkv"),
                     .out = record.take<int32_t>(at + "out"),
                     .ffn = record.take<int32_t>(at + "ffn"),
                     .down = {}};
  const auto experts = record.json.at(at + "down").get<size_t>();
  for (size_t e = 0; e < experts; ++e)
    orders.down.push_back(record.take<int32_t>(fmt::format("{}down.{}", at, e)));
  return orders;
}

void put_transform(Record& record, const std::string& at, const LayerTransform& transform) {
  record.json[at + "heads"] = transform.heads;
  record.json[at + "values"] = transform.value.size();
  record.json[at + "inverses"] = transform.value_inverse.size();
  record.json[at + "ups"] = transform.up.size();
  for (size_t i = 0; i < transform.value.size(); ++i)
    record.put(fmt::format("{}value.{}", at, i), transform.value[i]);
  for (size_t i = 0; i < transform.value_inverse.size(); ++i)
    record.put(fmt::format("{}value_inverse.{}", at, i), transform.value_inverse[i]);
  for (size_t i = 0; i < transform.up.size(); ++i)
    record.put(fmt::format("{}up.{}", at, i), transform.up[i]);
  record.put(at + "key", transform.key);
  record.put(at + "key_offset", transform.key_offset);
}

LayerTransform take_transform(const Record& record, const std::string& at) {
  LayerTransform transform;
  transform.heads = record.json.at(at + "heads").get<bool>();
  const auto count = [&](const char* what) { return record.json.at(at + what).get<size_t>(); };
  for (size_t i = 0; i < count("values"); ++i)
    transform.value.push_back(record.take<float>(fmt::format("{}value.{}", at, i)));
  for (size_t i = 0; i < count("inverses"); ++i)
    transform.value_inverse.push_back(record.take<float>(fmt::format("{}value_inverse.{}", at, i)));
  for (size_t i = 0; i < count("ups"); ++i)
    transform.up.push_back(record.take<double>(fmt::format("{}up.{}", at, i)));
  transform.key = record.take<double>(at + "key");
  transform.key_offset = record.take<float>(at + "key_offset");
  return transform;
}

void require_fits(const LayerOrders& orders, const model::ModelConfig& config) {
  require_order("qkv", orders.qkv, config.hidden);
  require_order("out", orders.out, config.attention_size());
  require_order("ffn", orders.ffn, config.hidden);
  if (!orders.down.empty() && orders.down.size() != static_cast<size_t>(config.experts))
    fail("the journal has orders of {} experts, but the model has {}", orders.down.size(),
         config.experts);
  for (const Permutation& order : orders.down) require_order("down", order, config.intermediate);
}

void require_fits(const LayerTransform& transform, const model::ModelConfig& config) {
  const int64_t d = config.head_dim;
  require_blocks("value", transform.value, config.kv_heads, d * d);
  require_blocks("value_inverse", transform.value_inverse, config.kv_heads, d * d);
  require_size("value_inverse", transform.value_inverse.size(),
               static_cast<int64_t>(transform.value.size()));
  require_blocks("up", transform.up, config.experts, config.intermediate);
  if (!transform.key.empty()) require_size("key", transform.key.size(), config.kv_heads * d / 2);
  if (!transform.key_offset.empty())
    require_size("key_offset", transform.key_offset.size(), config.kv_heads * d);
}

Json choices_json(std::span<const LayerChoice> choices) {
  Json out = Json::array();
  for (const LayerChoice& choice : choices) {
    const KeptCounts& kept = choice.kept;
    out.push_back({{"kept", {kept.qkv, kept.out, kept.ffn, kept.down}},
                   {"heads", choice.heads},
                   {"down", choice.down},
                   {"by_error", choice.by_error}});
  }
  return out;
}

std::vector<LayerChoice> choices_of(const Json& json) {
  std::vector<LayerChoice> out;
  for (const Json& choice : json) {
    const auto kept = choice.at("kept").get<std::vector<int>>();
    if (kept.size() != 4) fail("a choice of the journal has {} counts, not 4", kept.size());
    for (const int count : kept)
      if (count < 0 || count % 16 != 0)
        fail("a choice of the journal keeps {} channels, no multiple of 16", count);
    out.push_back({.kept = {kept[0], kept[1], kept[2], kept[3]},
                   .heads = choice.at("heads").get<bool>(),
                   .down = choice.at("down").get<bool>(),
                   .by_error = choice.at("by_error").get<std::vector<std::string>>()});
  }
  return out;
}

}  // namespace atom::quantizer
