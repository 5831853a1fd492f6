#include "model/random_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "base/error.h"
#include "format/kv_page.h"
#include "format/list.h"
#include "format/quantize.h"

namespace atom::model {
namespace {

// Rows are cut out of a pool of values at random places: as random to a device, and made at the speed of memory.
constexpr size_t kPoolBytes = size_t{1} << 20;
constexpr size_t kAlignment = 8;

// What codes of normal values of variance 1 are multiplied by before they are rounded: +-3 stay inside.
constexpr double kInt8Spread = 32, kInt4Spread = 2.5,
                 kE2M1Spread = 3;  // of codes: twice the values

format::Format stored(format::Format format) {
  return format == format::kF32 ? format::kF16 : format;
}

template <typename F>
double code_spread() {
  if constexpr (F::kE2M1) return kE2M1Spread;
  return F::kBits == 8 ? kInt8Spread : kInt4Spread;
}

int rounded(double value, int low, int high) {
  return std::clamp(static_cast<int>(std::lrint(value)), low, high);
}

// Two codes of four bits as a byte of any format of four bits.
template <typename F>
uint8_t random_nibble(Random& random) {
  if constexpr (F::kE2M1)
    return format::e2m1_pattern(
        format::e2m1_code(static_cast<float>(kE2M1Spread * random.normal())));
  else
    return static_cast<uint8_t>(rounded(kInt4Spread * random.normal(), F::kLow, F::kHigh) + 8);
}

template <typename F>
void fill_pool(std::vector<std::byte>& pool, double deviation, Random& random) {
  if constexpr (!F::kInteger) {
    auto* values = reinterpret_cast<typename F::Storage*>(pool.data());
    for (size_t i = 0; i < pool.size() / sizeof(typename F::Storage); ++i)
      values[i] = F::narrow(static_cast<float>(deviation * random.normal()));
  } else if constexpr (F::kBits == 8) {
    for (std::byte& byte : pool)
      byte = static_cast<std::byte>(rounded(kInt8Spread * random.normal(), F::kLow, F::kHigh));
  } else {
    for (std::byte& byte : pool) {
      const uint8_t low = random_nibble<F>(random);
      byte = static_cast<std::byte>(low | random_nibble<F>(random) << 4);
    }
  }
}

double jitter(Random& random) { return 0.75 + 0.5 * random.uniform(); }

template <typename T>
void append(std::vector<std::byte>& bytes, T value) {
  const auto* first = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), first, first + sizeof value);
}

// `step` is the value of a code.
template <typename F>
void add_scale(LinearTensors::Part& part, double step, Random& random) {
  const double wanted = step * jitter(random);
  if constexpr (F::kWeightScaleBytes == 4) {
    append(part.scales,
           static_cast<float>(F::kProgressive ? wanted / 8 : wanted));  // mean multiplier: 8
  } else if constexpr (F::kWeightScaleBytes == 2) {
    append(part.scales,
           format::weight_scale_bits(static_cast<float>(F::kE2M1 ? 2 * wanted : wanted)));
  } else if constexpr (F::kGlobal) {
    append(part.scales, format::f32_to_e4m3(static_cast<float>(wanted / step)));
  } else {
    const int exponent = static_cast<int>(std::lrint(std::log2(2 * wanted)));
    append(part.scales, static_cast<uint8_t>(std::clamp(exponent + 127, 1, 254)));
  }
}

template <typename F>
void fill_part(LinearTensors::Part& part, int n, const format::Segment& segment, double deviation,
               Random& random) {
  const auto row = static_cast<size_t>(format::row_bytes(segment.format, segment.size));
  const size_t total = row * static_cast<size_t>(n);
  const size_t spread = std::min(kPoolBytes, total) / kAlignment * kAlignment;
  std::vector<std::byte> pool(spread + (row + kAlignment - 1) / kAlignment * kAlignment);
  fill_pool<F>(pool, deviation, random);
  part.codes.resize(total);
  for (size_t i = 0; i < static_cast<size_t>(n); ++i)
    std::memcpy(part.codes.data() + i * row,
                pool.data() + random.below(spread / kAlignment + 1) * kAlignment, row);
  if constexpr (F::kInteger) {
    const double step = deviation / code_spread<F>();
    const int64_t scales = int64_t{n} * format::weight_scales(segment.format, segment.size);
    for (int64_t i = 0; i < scales; ++i) add_scale<F>(part, step, random);
    const int64_t groups = int64_t{n} * format::weight_multipliers(segment.format, segment.size);
    for (int64_t i = 0; i < groups; ++i)
      part.multipliers.push_back(static_cast<int8_t>(1 + random.below(15)));
    if constexpr (F::kGlobal) part.global_scale = {static_cast<float>(0.5 / step)};
  }
}

std::vector<float> normals(int count, double mean, double deviation, Random& random) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(mean + deviation * random.normal());
  return values;
}

std::vector<int32_t> permutation(int count, Random& random) {
  std::vector<int32_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

// Makes the linears and sites of one layer.
class LayerMaker {
 public:
  LayerMaker(const Scheme& scheme, Random& random) : scheme_(scheme), random_(random) {}

  LinearTensors linear(const std::string& module, int n, int k) {
    const LinearScheme* scheme = scheme_.find(module);
    const format::Segments segments =
        scheme == nullptr ? format::whole(format::kF16, k) : weight_segments(*scheme, k);
    return random_linear(module, n, k, segments, random_);
  }

  Site site(std::string name, const std::string& module, int k, bool ordered) {
    Site out{.name = std::move(name), .segments = format::whole(format::kF32, k)};
    const LinearScheme* scheme = scheme_.find(module);
    if (scheme == nullptr) return out;
    out.segments = input_segments(*scheme, k);
    out.clip = scheme->clip;
    out.signed_scales = scheme->signed_scales;
    out.hadamard = scheme->hadamard;
    if (ordered && scheme->kept > 0) out.order = permutation(k, random_);
    return out;
  }

 private:
  const Scheme& scheme_;
  Random& random_;
};

void fill_head(std::byte* head, const format::KvLayout& layout, int side,
               const std::vector<std::byte>& pool, Random& random) {
  const auto codes = static_cast<size_t>(layout.tokens * layout.row_bytes(side));
  const size_t places = (pool.size() - codes) / kAlignment + 1;
  std::memcpy(head, pool.data() + random.below(places) * kAlignment, codes);
  if (layout.param_bytes(side) == 0) return;
  // Codes are uniform over [0, 2^bits): their values over -sqrt(3) .. sqrt(3), of variance 1.
  const float step = 2 * std::sqrt(3.0f) / static_cast<float>(1 << layout.bits(side));
  const uint16_t params[2] = {format::f32_to_f16(-std::sqrt(3.0f)), format::f32_to_f16(step)};
  for (int token = 0; token < layout.tokens; ++token)
    std::memcpy(head + codes + sizeof params * static_cast<size_t>(token), params, sizeof params);
}

std::vector<std::byte> cache_values(const format::KvLayout& layout, int side, Random& random) {
  const auto codes = static_cast<size_t>(layout.tokens * layout.row_bytes(side));
  std::vector<std::byte> pool((kPoolBytes / 2 + codes) / kAlignment * kAlignment);
  const int bits = layout.bits(side);
  if (bits == 32) fill_pool<format::F32>(pool, 1, random);
  if (bits == 16) fill_pool<format::F16>(pool, 1, random);
  for (size_t i = 0; bits < 16 && i + kAlignment <= pool.size(); i += kAlignment) {
    const uint64_t word = random.next();
    std::memcpy(pool.data() + i, &word, sizeof word);
  }
  return pool;
}

// The same pages again and again, `kChunk` bytes of them.
void fill_pages(backend::Backend& backend, const format::KvLayout& layout, void* pages, int count,
                Random& random) {
  constexpr int64_t kChunk = int64_t{16} << 20;
  const int64_t page = layout.page_bytes();
  const int64_t at_once = std::clamp<int64_t>(kChunk / page, 1, count);
  std::vector<std::byte> host(static_cast<size_t>(page * at_once));
  for (const int side : {0, 1}) {
    const std::vector<std::byte> pool = cache_values(layout, side, random);
    for (int64_t p = 0; p < at_once; ++p)
      for (int head = 0; head < layout.kv_heads; ++head)
        fill_head(host.data() + p * page + layout.head_offset(side, head), layout, side, pool,
                  random);
  }
  for (int64_t p = 0; p < count; p += at_once)
    backend.upload(static_cast<std::byte*>(pages) + p * page, host.data(),
                   static_cast<size_t>(page * std::min(at_once, count - p)));
}

}  // namespace

LinearTensors random_linear(std::string name, int n, int k, const format::Segments& segments,
                            Random& random) {
  check(segments.k() == k && n > 0, "a random linear has the inputs of its segments");
  LinearTensors out{.name = std::move(name), .n = n, .segments = segments};
  for (int i = 0; i < 2; ++i) {
    format::Segment& segment = out.segments.at[i];
    if (segment.size == 0) continue;
    segment.format = stored(segment.format);
    format::visit(segment.format, [&](auto f) {
      fill_part<decltype(f)>(out.part[i], n, segment, 1 / std::sqrt(static_cast<double>(k)),
                             random);
    });
  }
  return out;
}

LayerTensors random_layer(const ModelConfig& config, const Scheme& scheme, int index,
                          Random& random) {
  LayerMaker maker(scheme, random);
  const auto module = [&](std::string_view below) { return module_name(index, below); };
  const int hidden = config.hidden, attention = config.attention_size();
  const int kv = config.kv_heads * config.head_dim;
  LayerTensors out;
  out.kv = scheme.kv[static_cast<size_t>(index)];
  out.qk_hadamard = scheme.qk_hadamard;
  out.kv_clip = scheme.kv_clip;
  out.open_page = scheme.open_page;
  out.window = config.window(index);
  if (config.family->qk_norm) {
    out.q_norm = normals(config.head_dim, 1, 0.1, random);
    out.k_norm = normals(config.head_dim, 1, 0.1, random);
  }
  if (scheme.key_offset) out.key_offset = normals(kv, 0, 0.1, random);
  out.attention_norm = normals(hidden, 1, 0.1, random);
  out.ffn_norm = normals(hidden, 1, 0.1, random);
  out.q = maker.linear(module("self_attn.q_proj"), attention, hidden);
  out.k = maker.linear(module("self_attn.k_proj"), kv, hidden);
  out.v = maker.linear(module("self_attn.v_proj"), kv, hidden);
  out.out = maker.linear(module("self_attn.o_proj"), hidden, attention);
  out.qkv_input = maker.site("qkv_input", out.q.name, hidden, true);
  out.out_input = maker.site("o_input", out.out.name, attention, true);
  const Family& family = *config.family;
  if (config.mixture()) out.router = maker.linear(module(family.router), config.experts, hidden);
  for (int e = 0; e < config.experts; ++e) {
    const auto name = [&](std::string_view part) { return expert_module_name(index, part, e); };
    ExpertTensors ffn;
    ffn.gate = maker.linear(name(family.gate), config.intermediate, hidden);
    ffn.up = maker.linear(name(family.up), config.intermediate, hidden);
    ffn.down = maker.linear(name(family.down), hidden, config.intermediate);
    out.experts.push_back(std::move(ffn));
  }
  const ExpertTensors& first = out.experts.front();
  out.ffn_input = maker.site("ffn_input", first.gate.name, hidden, true);
  out.down_input = maker.site("down_input", first.down.name, config.intermediate, false);
  return out;
}

RandomModel make_random_model(backend::Backend& backend, const RandomModelOptions& options) {
  const ModelConfig& config = options.config;
  const Scheme& scheme = options.scheme;
  check(!scheme.stream_basis, "a random model has no stream basis");
  Random random(options.seed);
  RandomModel out;
  out.model = std::make_unique<Model>();
  out.model->config = config;
  out.model->scheme = scheme;
  out.model->backend = &backend;
  {
    EndTensors ends;
    ends.table = random_linear("embedding", config.vocabulary, config.hidden,
                               format::whole(format::kF16, config.hidden), random);
    ends.final_norm = normals(config.hidden, 1, 0.1, random);
    ends.head = LayerMaker(scheme, random).linear("lm_head", config.vocabulary, config.hidden);
    out.bytes.head = ends.head.bytes();
    out.model->ends = bind_ends(backend, ends);
  }
  const LayerTensors layer = random_layer(config, scheme, 0, random);
  const ExpertTensors& expert = layer.experts.front();
  out.bytes.attention = layer.q.bytes() + layer.k.bytes() + layer.v.bytes() + layer.out.bytes();
  out.bytes.router = layer.router.bytes();
  out.bytes.expert = expert.gate.bytes() + expert.up.bytes() + expert.down.bytes();
  for (int i = 0; i < config.layers; ++i) {
    out.model->layers.push_back(bind_layer(backend, layer));
    if (options.progress) options.progress(i + 1, config.layers);
  }
  return out;
}

void fill_random(const kv::Pool& pool, backend::Backend& backend, uint64_t seed,
                 const std::function<void()>& between) {
  Random random(seed);
  for (int layer = 0; layer < pool.layers(); ++layer) {
    if (between) between();
    const format::KvLayout& layout = pool.layout(layer);
    fill_pages(backend, layout, pool.data(layer), pool.pages(), random);
    if (layout.open_page)
      fill_pages(backend, layout.of_open_page(), pool.open_pages(layer), pool.sequences(), random);
  }
}

}  // namespace atom::model
