// y = x * w^T over a range of rows and panels. Included by kernels.cc (see vec.h).
//
// K is cut into spans so that a span of one widened panel stays in L1 and a span of the rows in L2;
// partial sums stay in f32 between spans, so the order of additions of an element does not depend
// on the cut. Floating-point inputs: the panel is widened (or dequantized, s * q) to f32. Integer
// inputs: the panel is widened to bytes. Every number of rows takes this one path. Progressive
// weights with integer inputs: partial sums of a whole segment stay in s32, scaled once at its end.
#pragma once

ATOM_INLINE int source_row(const LinearTask& t, int row) {
  return t.row_index == nullptr ? row : t.row_index[row];
}

// ---- floating-point inputs

// One vector of w's multipliers of a group.
ATOM_INLINE I group_multiplier(const WeightSegment& w, int64_t panel, int group, int column) {
  const uint8_t* scales = w.scales + panel * w.panel_scale_bytes;
  const I bytes = widen_u8(scales + (int)sizeof(float) * kColumns + group * kColumns + column);
  return (bytes << 24) >> 24;
}

// One vector of w's group scales, as f32.
ATOM_INLINE F group_scale(const WeightSegment& w, int64_t panel, int group, int column) {
  const uint8_t* scales = w.scales + panel * w.panel_scale_bytes;
  if (w.progressive)
    return load((const float*)scales + column) *
           to_float(group_multiplier(w, panel, group, column));
  const int at = group * kColumns + column;
  return w.element == Element::kInt4 ? widen_f16((const uint16_t*)scales + at)
                                     : load((const float*)scales + at);
}

// s * q of eight k. words[0]: the nibbles, or the bytes of the first four k; words[1]: bytes of the
// others.
template <Element kElement>
ATOM_INLINE void dequantize_octet(const I (&words)[2], F scale, float* to) {
  for (int i = 0; i < 8; ++i) {
    I code;
    if constexpr (kElement == Element::kInt4)
      code = ((words[0] >> (8 * (i % 4) + 4 * (i / 4))) & 15) - 8;
    else
      code = (words[i / 4] << (24 - 8 * (i % 4))) >> 24;
    store(to + i * kColumns, to_float(code) * scale);
  }
}

// Rows [k, k + span) of a panel as s * q; k is a multiple of 8. Writes whole octets.
template <Element kElement>
static void dequantize_panel(const WeightSegment& w, int64_t panel, int k, int span, float* to) {
  constexpr int kOctet =
      kElement == Element::kInt8 ? 8 * kColumns : 4 * kColumns;  // bytes of eight k
  const uint8_t* from = w.panels + panel * w.panel_bytes + int64_t{k / 8} * kOctet;
  for (int column = 0; column < kColumns; column += kLanes) {
    int group = -1;
    F scale{};
    for (int i = 0; i < span; i += 8) {
      if ((k + i) / w.group != group) {
        group = (k + i) / w.group;
        scale = group_scale(w, panel, group, column);
      }
      const uint8_t* at = from + int64_t{i / 8} * kOctet + 4 * column;
      I words[2] = {load_as<I>(at), I{}};
      if constexpr (kElement == Element::kE2M1) {  // signed bytes
        words[1] = subtract_bytes(e2m1_bytes((words[0] >> 4) & 0x0f0f0f0f), kE2M1Offset);
        words[0] = subtract_bytes(e2m1_bytes(words[0] & 0x0f0f0f0f), kE2M1Offset);
      } else if constexpr (kElement == Element::kInt8) {
        words[1] = load_as<I>(at + 4 * kColumns);
        if constexpr (kByteOffset != 0)
          for (I& word : words) word ^= (int32_t)0x80808080;
      }
      dequantize_octet<kElement>(words, scale, to + int64_t{i} * kColumns + column);
    }
  }
}

// The span after this one is fetched meanwhile: few rows jump between panels, which no hardware
// follows.
template <F (*kWiden)(const uint16_t*)>
static void widen_halves(const uint16_t* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += kColumns) {
    __builtin_prefetch(from + count + i);
    store(to + i, kWiden(from + i));
    store(to + i + kLanes, kWiden(from + i + kLanes));
  }
}

// f32 rows [k, k + span) of a panel, in `to` or in place.
static const float* widen_panel(const WeightSegment& w, int64_t panel, int k, int span, float* to) {
  const uint8_t* from = w.panels + panel * w.panel_bytes;
  const int64_t begin = int64_t{k} * kColumns, count = int64_t{span} * kColumns;
  switch (w.element) {
    case Element::kF32:
      return (const float*)from + begin;
    case Element::kF16:
      widen_halves<widen_f16>((const uint16_t*)from + begin, count, to);
      break;
    case Element::kBF16:
      widen_halves<widen_bf16>((const uint16_t*)from + begin, count, to);
      break;
    case Element::kInt8:
      dequantize_panel<Element::kInt8>(w, panel, k, span, to);
      break;
    case Element::kInt4:
      dequantize_panel<Element::kInt4>(w, panel, k, span, to);
      break;
    case Element::kE2M1:
      dequantize_panel<Element::kE2M1>(w, panel, k, span, to);
      break;
  }
  return to;
}

// Rows of x over [k, k + span): in place when they lie evenly, otherwise gathered or dequantized.
struct Values {
  const float* at;
  int64_t stride;
};
static Values input_values(const LinearTask& t, const InputSegment& x, int k, int span, float* to) {
  if (!is_integer(x.element) && t.row_index == nullptr)
    return {x.values + t.row_begin * x.stride + k, x.stride};
  for (int row = t.row_begin; row < t.row_end; ++row) {
    const int64_t from = source_row(t, row);
    float* row_to = to + int64_t{row - t.row_begin} * kFloatSpan;
    if (!is_integer(x.element)) {
      __builtin_memcpy(row_to, x.values + from * x.stride + k, (size_t)span * sizeof(float));
      continue;
    }
    for (int i = 0; i < span; ++i)
      row_to[i] = x.scales[from * x.groups + (k + i) / x.group] * x.codes[from * x.stride + k + i];
  }
  return {to, kFloatSpan};
}

static void float_segment(const LinearTask& t, int segment, const LinearScratch& s) {
  const WeightSegment& w = t.w[segment];
  const int rows = t.row_end - t.row_begin, most = panels_at_once(rows);
  const int whole_span = kFloatSpan / most;
  for (int k = 0; k < w.size; k += whole_span) {
    const int span = smaller(whole_span, w.size - k);
    const Values x = input_values(t, t.x.at[segment], k, span, s.values);
    const int64_t c_next = int64_t{rows} * kColumns;
    float* sums = s.sums;
    for (int panel = t.panel_begin; panel < t.panel_end; panel += most, sums += most * c_next) {
      const int panels = smaller(most, t.panel_end - panel);
      const float* b[kMostPanels];
      for (int i = 0; i < panels; ++i)
        b[i] = widen_panel(w, panel + i, k, span, s.panel + i * panel_floats(most));
      const int64_t b_next = panels > 1 ? b[1] - b[0] : 0;
      multiply({span, x.at, x.stride, b[0], kColumns, b_next, sums, kColumns, c_next}, rows,
               panels);
    }
  }
}

// ---- integer inputs

struct Codes {
  const int8_t* at;
  int64_t stride;
};
static Codes input_codes(const LinearTask& t, const InputSegment& x, int k, int span, int8_t* to) {
  if (t.row_index == nullptr) return {x.codes + t.row_begin * x.stride + k, x.stride};
  const int bytes = (span + 7) / 8 * 8;
  for (int row = t.row_begin; row < t.row_end; ++row)
    __builtin_memcpy(to + int64_t{row - t.row_begin} * bytes,
                     x.codes + source_row(t, row) * x.stride + k, (size_t)bytes);
  return {to, bytes};
}

// Scale and zero-point correction of each row and weight group of a span.
static void input_groups(const LinearTask& t, int segment, int k, int groups,
                         const LinearScratch& s) {
  const InputSegment& x = t.x.at[segment];
  const WeightSegment& w = t.w[segment];
  const int offset = w.element == Element::kInt4   ? 8
                     : w.element == Element::kE2M1 ? kE2M1Offset
                                                   : kByteOffset;
  for (int row = t.row_begin; row < t.row_end; ++row) {
    const int64_t from = source_row(t, row);
    for (int g = 0; g < groups; ++g) {
      const int begin = k + g * w.group, end = smaller(begin + w.group, w.size);
      int32_t sum = 0;
      for (int i = begin / x.sum_span; i < ceil_div(end, x.sum_span); ++i)
        sum += x.code_sums[from * x.sums + i];
      const int64_t at = int64_t{row - t.row_begin} * groups + g;
      s.zeros[at] = offset * sum;
      s.x_scales[at] = x.scales[from * x.groups + begin / x.group];
    }
  }
}

// Nibbles of a span to bytes: code + offset.
template <Element kElement>
static void widen_nibbles(const uint8_t* from, int span, uint8_t* to) {
  for (int i = 0; i < span; i += 8, from += 4 * kColumns, to += 8 * kColumns) {
    for (int column = 0; column < kColumns; column += kLanes) {
      const I words = load_as<I>(from + 4 * column);
      I low = words & 0x0f0f0f0f, high = (words >> 4) & 0x0f0f0f0f;
      if constexpr (kElement == Element::kE2M1) {
        low = e2m1_bytes(low);
        high = e2m1_bytes(high);
      }
      store(to + 4 * column, low);
      store(to + 4 * column + 4 * kColumns, high);
    }
  }
}

// Bytes of the steps of [k, k + span): in place for int8, unpacked for four bits.
static const uint8_t* widen_codes(const WeightSegment& w, int64_t panel, int k, int span,
                                  uint8_t* to) {
  const uint8_t* from = w.panels + panel * w.panel_bytes;
  if (w.element == Element::kInt8) return from + int64_t{k} * kColumns;
  from += int64_t{k} * kColumns / 2;
  if (w.element == Element::kE2M1)
    widen_nibbles<Element::kE2M1>(from, span, to);
  else
    widen_nibbles<Element::kInt4>(from, span, to);
  return to;
}

template <typename Dot, bool kProgressive>
struct IntSweep {
  IntTile tile;
  template <int R>
  ATOM_INLINE_MEMBER void run(int row) const {
    IntTile t = tile;
    t.x += row * t.x_stride;
    t.x_scales += row * t.groups;
    t.zeros += row * t.groups;
    t.sums += int64_t{row} * kColumns * 4;
    int_tile<R, Dot, kProgressive>(t);
  }
};

// Scales of a span's groups, or their multipliers, for one panel.
static void weight_groups(const WeightSegment& w, int panel, int first, int groups,
                          const LinearScratch& s) {
  for (int g = 0; g < groups; ++g)
    for (int column = 0; column < kColumns; column += kLanes) {
      const int to = g * kColumns + column;
      if (w.progressive)
        store(s.multipliers + to, group_multiplier(w, panel, first + g, column));
      else
        store(s.w_scales + to, group_scale(w, panel, first + g, column));
    }
}

// sums = fma(float(total), row scale * input scale, sums).
static void scale_totals(const LinearTask& t, int segment, const LinearScratch& s) {
  const WeightSegment& w = t.w[segment];
  const InputSegment& x = t.x.at[segment];
  float* sums = s.sums;
  const int32_t* totals = s.totals;
  for (int panel = t.panel_begin; panel < t.panel_end; ++panel) {
    const float* row_scales = (const float*)(w.scales + panel * w.panel_scale_bytes);
    for (int row = t.row_begin; row < t.row_end; ++row) {
      const F x_scale = broadcast(x.scales[int64_t{source_row(t, row)} * x.groups]);
      for (int column = 0; column < kColumns; column += kLanes, sums += kLanes, totals += kLanes)
        store(sums,
              fma(to_float(load_as<I>(totals)), load(row_scales + column) * x_scale, load(sums)));
    }
  }
}

static void int_segment(const LinearTask& t, int segment, const LinearScratch& s) {
  const WeightSegment& w = t.w[segment];
  const InputSegment& x = t.x.at[segment];
  const int rows = t.row_end - t.row_begin, whole_span = int_span(w);
  const int64_t panel_sums = int64_t{rows} * kColumns;
  if (w.progressive)
    __builtin_memset(s.totals, 0,
                     (size_t)((t.panel_end - t.panel_begin) * panel_sums) * sizeof(int32_t));
  for (int k = 0; k < w.size; k += whole_span) {
    const int span = smaller(whole_span, w.size - k);
    const int groups = ceil_div(span, w.group);
    const Codes codes = input_codes(t, x, k, span, s.codes);
    input_groups(t, segment, k, groups, s);
    for (int panel = t.panel_begin; panel < t.panel_end; ++panel) {
      const int64_t at = (panel - t.panel_begin) * panel_sums;
      const uint8_t* bytes = widen_codes(w, panel, k, span, s.bytes);
      weight_groups(w, panel, k / w.group, groups, s);
      const int steps = ceil_div(span, 8) * 2;
      IntTile tile{groups,
                   ceil_div(w.group, 4),
                   steps,
                   0,
                   codes.at,
                   codes.stride,
                   bytes,
                   (const char*)s.w_scales,
                   s.x_scales,
                   s.zeros,
                   (char*)(s.sums + at)};
      if (groups == 1) tile.group_steps = steps;
      if (w.progressive) {
        tile.factors = (const char*)s.multipliers;
        tile.sums = (char*)(s.totals + at);
        tile.flush_steps = NibbleDot::flush_steps(8);
        for_tiles<kTileRows>(0, rows, IntSweep<NibbleDot, true>{tile});
      } else if (w.element == Element::kE2M1) {
        tile.flush_steps = NibbleDot::kE2M1FlushSteps;
        for_tiles<kTileRows>(0, rows, IntSweep<NibbleDot, false>{tile});
      } else if (w.element == Element::kInt4) {
        tile.flush_steps = NibbleDot::flush_steps(x.element == Element::kInt4 ? 4 : 8);
        for_tiles<kTileRows>(0, rows, IntSweep<NibbleDot, false>{tile});
      } else {
        tile.flush_steps = ByteDot::flush_steps(8);
        for_tiles<kByteTileRows>(0, rows, IntSweep<ByteDot, false>{tile});
      }
    }
  }
  if (w.progressive) scale_totals(t, segment, s);
}

// ---- both

static void write_sums(const LinearTask& t, const float* sums) {
  for (int panel = t.panel_begin; panel < t.panel_end; ++panel) {
    const int begin = panel * kColumns, columns = smaller(kColumns, t.n - begin);
    for (int row = t.row_begin; row < t.row_end; ++row, sums += kColumns) {
      float result[kColumns];
      __builtin_memcpy(result, sums, sizeof result);
      float* y = t.y + int64_t{row} * t.n + begin;
      if (t.bias != nullptr)
        for (int j = 0; j < kColumns; ++j) result[j] += t.bias[begin + j];
      if (t.add)
        for (int j = 0; j < columns; ++j) y[j] += result[j];
      else
        __builtin_memcpy(y, result, (size_t)columns * sizeof(float));
    }
  }
}

static size_t linear_scratch(const LinearTask& t) { return carve(t, nullptr).bytes_used; }

static void linear(const LinearTask& t, std::byte* scratch) {
  const LinearScratch s = carve(t, scratch);
  const int64_t count = int64_t{t.panel_end - t.panel_begin} * (t.row_end - t.row_begin) * kColumns;
  __builtin_memset(s.sums, 0, (size_t)count * sizeof(float));
  for (int i = 0; i < 2; ++i) {
    if (t.w[i].size == 0) continue;
    if (is_integer(t.w[i].element) && is_integer(t.x.at[i].element))
      int_segment(t, i, s);
    else
      float_segment(t, i, s);
  }
  write_sums(t, s.sums);
}
