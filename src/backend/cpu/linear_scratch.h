// The scratch memory of linear_kernel.h: spans of K and what is kept of one. Included by kernels.cc
// (see vec.h).
#pragma once

inline constexpr int kFloatSpan = 256;  // k per widened panel: 16 KiB on AVX2, 32 KiB on AVX-512
inline constexpr int kIntSpan = 1024;

ATOM_INLINE bool is_integer(Element e) { return e >= Element::kInt8; }
ATOM_INLINE int smaller(int a, int b) { return a < b ? a : b; }
ATOM_INLINE int larger(int a, int b) { return a > b ? a : b; }
ATOM_INLINE int ceil_div(int a, int b) { return (a + b - 1) / b; }

// f32 scratch of one of `panels` panels widened at once: they share the span, and whole octets of k
// are written.
ATOM_INLINE int panel_floats(int panels) { return (kFloatSpan / panels + 7) * kColumns; }

// k of an integer span: whole groups.
ATOM_INLINE int int_span(const WeightSegment& w) {
  return w.group >= kIntSpan ? w.group : kIntSpan / w.group * w.group;
}

// Hands out parts of the scratch memory, 64-byte aligned. With a null base it only counts.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <typename T>
  T* take(int64_t count) {
    T* part = base_ == nullptr ? nullptr : (T*)(base_ + used_);
    used_ += (size_t)((count * (int64_t)sizeof(T) + 63) / 64 * 64);
    return part;
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

struct LinearScratch {
  float* sums = nullptr;           // [panels][rows][kColumns]
  float* panel = nullptr;          // [panels at once][span + 7][kColumns]
  float* values = nullptr;         // [rows][kFloatSpan]
  uint8_t* bytes = nullptr;        // [span / 4][kColumns][4]
  int8_t* codes = nullptr;         // [rows][span]
  float* w_scales = nullptr;       // [groups of a span][kColumns]
  float* x_scales = nullptr;       // [rows][groups of a span]
  int32_t* zeros = nullptr;        // [rows][groups of a span]
  int32_t* multipliers = nullptr;  // [groups of a span][kColumns], progressive
  int32_t* totals = nullptr;       // [panels][rows][kColumns], progressive
  size_t bytes_used = 0;
};

static LinearScratch carve(const LinearTask& t, std::byte* base) {
  Carver carver(base);
  LinearScratch s;
  const int64_t rows = t.row_end - t.row_begin;
  s.sums = carver.take<float>((t.panel_end - t.panel_begin) * rows * kColumns);
  int64_t span = 0, groups = 0;
  bool floats = false, progressive = false;
  for (int i = 0; i < 2; ++i) {
    const WeightSegment& w = t.w[i];
    if (w.size == 0) continue;
    if (!is_integer(w.element) || !is_integer(t.x.at[i].element)) {
      floats = true;
      continue;
    }
    const int this_span = smaller(int_span(w), (w.size + 7) / 8 * 8);
    span = span > this_span ? span : this_span;
    const int this_groups = ceil_div(this_span, w.group);
    groups = groups > this_groups ? groups : this_groups;
    progressive = progressive || w.progressive;
  }
  if (floats) {
    const int most = panels_at_once((int)rows);
    s.panel = carver.take<float>(int64_t{most} * panel_floats(most));
    s.values = carver.take<float>(rows * kFloatSpan);
  }
  if (span > 0) {
    s.bytes = carver.take<uint8_t>((span + 8) * kColumns);
    s.codes = carver.take<int8_t>(rows * (span + 8));
    s.w_scales = carver.take<float>(groups * kColumns);
    s.x_scales = carver.take<float>(rows * groups);
    s.zeros = carver.take<int32_t>(rows * groups);
  }
  if (progressive) {
    s.multipliers = carver.take<int32_t>(groups * kColumns);
    s.totals = carver.take<int32_t>((t.panel_end - t.panel_begin) * rows * kColumns);
  }
  s.bytes_used = carver.used();
  return s;
}
