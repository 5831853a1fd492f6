// Operations on single rows: each producer writes f32, then quantizes for its consumer.
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

}  // namespace

void CudaBackend::embed(const EmbedArgs& args) {
  require(launch_embed({.ids = args.ids,
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

void CudaBackend::gate(const GateArgs& args) {
  const int rows = args.y.rows, k = args.y.spec->k();
  float* plain = rows_scratch(rows, k);
  require(launch_gate({.x = args.x, .y = plain, .rows = rows, .k = k}, stream_), "gate");
  quantize_rows(plain, args.y);
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
