// Operations on single rows. On Hopper a producer is one kernel (hopper_producers.h); elsewhere, and where that has
// none, it writes f32, which a second one quantizes for the consumer.
#include "backend/cuda/activation.h"
#include "backend/cuda/cuda_backend.h"
#include "base/error.h"
#include "format/list.h"

namespace atom::backend::cuda {
namespace {

Element table_element(format::Format format) {
  check(!format::is_integer(format), "a table holds floating-point rows");
  if (format == format::kF32) return Element::kF32;
  return format == format::kF16 ? Element::kF16 : Element::kBF16;
}

// "gate to int4.g128 10880 + int8 128 in an order: plain kernel"
std::string plain_notice(const InputSpec& spec, std::string_view name) {
  std::string words;
  for (const format::Segment& s : spec.segments.at)
    if (s.size > 0)
      words += fmt::format("{}{} {}", words.empty() ? "" : " + ", format::name(s.format), s.size);
  return fmt::format("{} to {}{}: plain kernel", name, words,
                     spec.order != nullptr ? " in an order" : "");
}

}  // namespace

void CudaBackend::embed(const EmbedArgs& args) {
  require(launch_embed({.ids = args.ids,
                        .sampled = args.sampled,
                        .table = args.table.rows,
                        .element = table_element(args.table.format),
                        .rows = args.rows,
                        .count = args.table.count,
                        .width = args.table.width,
                        .y = args.y},
                       stream_),
          "embed");
}

void CudaBackend::norm(const NormArgs& args) {
  if (produce({.source = hopper::Source::kNorm,
               .x = args.x,
               .gain = args.gain,
               .epsilon = args.epsilon,
               .plain = args.plain},
              args.y, "norm"))
    return;
  const int rows = args.y.rows, k = args.y.spec->k();
  float* plain = args.plain != nullptr ? args.plain : rows_scratch(rows, k);
  require(launch_norm({.x = args.x,
                       .gain = args.gain,
                       .epsilon = args.epsilon,
                       .rows = rows,
                       .k = k,
                       .y = plain},
                      stream_),
          "norm");
  quantize_rows(plain, args.y);
}

void CudaBackend::norm_heads(const NormHeadsArgs& args) {
  check((args.qkv != nullptr) != (args.qkv_f16 != nullptr),
        "norm_heads: exactly one of qkv and qkv_f16 is given");
  require(launch_norm_heads({.qkv = args.qkv,
                             .qkv_f16 = args.qkv_f16,
                             .rows = args.rows,
                             .heads = args.heads,
                             .kv_heads = args.kv_heads,
                             .head_dim = args.head_dim,
                             .q_gain = args.q_gain,
                             .k_gain = args.k_gain,
                             .epsilon = args.epsilon},
                            stream_),
          "norm of heads");
}

void CudaBackend::gate(const GateArgs& args) {
  check((args.x != nullptr) != (args.x_f16 != nullptr),
        "gate: exactly one of x and x_f16 is given");
  if (produce({.source = hopper::Source::kGate, .x = args.x, .x_f16 = args.x_f16}, args.y, "gate"))
    return;
  const int rows = args.y.rows, k = args.y.spec->k();
  float* plain = rows_scratch(rows, k);
  require(
      launch_gate({.x = args.x, .x_f16 = args.x_f16, .y = plain, .rows = rows, .k = k}, stream_),
      "gate");
  quantize_rows(plain, args.y);
}

void CudaBackend::quantize(const QuantizeArgs& args) { quantize_rows(args.x, args.y); }

bool CudaBackend::produce(hopper::ProduceTask task, const Activation& y, std::string_view name) {
  if (y.data == halved_.data) forget_halves();
  if (!is_hopper()) return false;
  const InputSpec& spec = *y.spec;
  task.order = spec.order;
  task.hadamard = spec.hadamard;
  task.clip = spec.clip;
  task.y = input_view(y);
  task.silu_offsets = silu_offsets_.as<int8_t>();
  task.dependent = 1;
  if (!hopper::can_produce(task)) {
    note(plain_notice(spec, name));
    return false;
  }
  if (hopper::can_produce_half(task, device_.multiprocessors))
    task.half = reserve_halves(y.rows, spec.k());
  require(hopper::launch_produce(task, stream_), name);
  if (task.half.values != nullptr) halved_ = {y.data, y.rows, spec.k()};
  return true;
}

void CudaBackend::quantize_rows(const float* x, const Activation& y) {
  if (produce({.source = hopper::Source::kRows, .x = x}, y, "quantize")) return;
  const InputSpec& spec = *y.spec;
  QuantizeTask task{.x = x,
                    .order = spec.order,
                    .hadamard = spec.hadamard,
                    .clip = spec.clip,
                    .y = input_view(y)};
  if (spec.order != nullptr || spec.hadamard != 0) {
    ordered_.reserve(static_cast<size_t>(y.rows) * static_cast<size_t>(spec.k()) * sizeof(float));
    task.ordered = ordered_.as<float>();
  }
  require(launch_quantize(task, stream_), "quantize");
}

void CudaBackend::route(const RouteArgs& args) {
  check(args.top_k >= 1 && args.top_k <= args.experts, "route: top_k is in [1, experts]");
  chosen_.reserve(static_cast<size_t>(args.rows) * static_cast<size_t>(args.top_k) *
                  sizeof(int32_t));
  require(launch_route({.logits = args.logits,
                        .rows = args.rows,
                        .experts = args.experts,
                        .top_k = args.top_k,
                        .renormalize = args.renormalize,
                        .chosen = chosen_.as<int32_t>(),
                        .row_index = args.row_index,
                        .row_ends = args.row_ends,
                        .slots = args.slots,
                        .weights = args.weights},
                       stream_),
          "route");
}

void CudaBackend::combine(const CombineArgs& args) {
  require(launch_combine({.x = args.x,
                          .slots = args.slots,
                          .weights = args.weights,
                          .rows = args.rows,
                          .top_k = args.top_k,
                          .n = args.n,
                          .y = args.y},
                         stream_),
          "combine");
}

}  // namespace atom::backend::cuda
