// Rotation, the KV-cache's formats, and causal attention of the queries of one KV head. Included by
// kernels.cc (see vec.h).
//
// Keys are taken in tiles of 64 absolute positions, whatever the chunk of queries: a tile's K and V
// are widened to f32 once per task and multiplied with all its queries by the register tiles of
// tile.h. Each query keeps a running maximum and mass (online softmax, Milakov, Gimelshein 2018),
// updated once per tile, so its result depends only on its own position and the stored keys. Keys
// after the query's position have probability 0 and do not enter the maximum; a tile all after it
// is skipped.
#pragma once

inline constexpr int kKeys = 64;

enum Side { kKey = 0, kValue = 1 };

struct AttentionScratch {
  float* q;        // [queries][head_dim]
  float* scores;   // [queries][kKeys], then probabilities
  float* sums;     // [queries][padded]
  float* largest;  // [queries]
  float* mass;     // [queries]
  float* tile;     // [kKeys][padded]: K, then V
  float* keys;     // [head_dim][kKeys]
  int queries, padded;
  size_t bytes_used;
};

static AttentionScratch carve(const AttentionTask& t, std::byte* base) {
  Carver carver(base);
  AttentionScratch s;
  s.queries = (t.row_end - t.row_begin) * (t.heads / t.kv_heads);
  s.padded = round_up(t.head_dim, kColumns);
  const int64_t queries = s.queries;
  s.q = carver.take<float>(queries * t.head_dim);
  s.scores = carver.take<float>(queries * kKeys);
  s.sums = carver.take<float>(queries * s.padded);
  s.largest = carver.take<float>(queries);
  s.mass = carver.take<float>(queries);
  s.tile = carver.take<float>(int64_t{kKeys} * s.padded);
  s.keys = carver.take<float>(int64_t{round_up(t.head_dim, 4)} * kKeys);
  s.bytes_used = carver.used();
  return s;
}

// Pairs (i, i + d/2) turn by the angles of a position; every product and sum is rounded.
static void rotate(const AttentionTask& t, int position, const float* x, float* y) {
  const int half = t.head_dim / 2;
  const float* cos = t.rope_cos + int64_t{position} * half;
  const float* sin = t.rope_sin + int64_t{position} * half;
  for_vectors(half, [&](int i, int count) {
    const F c = load_part(cos + i, count), s = load_part(sin + i, count);
    const F a = load_part(x + i, count), b = load_part(x + half + i, count);
    store_part(y + i, a * c - b * s, count);
    store_part(y + half + i, b * c + a * s, count);
  });
  if (t.hadamard != 0) block_hadamard(y, t.head_dim, t.hadamard);
}

ATOM_INLINE const float* head_of(const AttentionTask& t, int row, int head) {
  return t.qkv + (int64_t{row} * (t.heads + 2 * t.kv_heads) + head) * t.head_dim;
}

// Where the vector of a position lies in the cache.
struct Place {
  uint8_t* row;
  uint8_t* params;
};
ATOM_INLINE Place find(const AttentionTask& t, int side, int kv_head, int position) {
  const int token = position % t.page_tokens;
  const CacheSide& s = t.sides[side];
  uint8_t* head = t.pages + t.page_table[position / t.page_tokens] * t.page_bytes + s.offset +
                  kv_head * s.head_bytes;
  return {head + token * s.row_bytes, head + t.page_tokens * s.row_bytes + token * s.param_bytes};
}

// Where it lies in int8: among the step's rows, or in the open page.
ATOM_INLINE Place find_open(const AttentionTask& t, int side, int kv_head, int position) {
  if (position >= t.first_position) {
    const int64_t row = t.first_row + position - t.first_position;
    uint8_t* codes = t.fresh + ((row * 2 + side) * t.kv_heads + kv_head) * (t.head_dim + 4);
    return {codes, codes + t.head_dim};
  }
  const int token = position % t.page_tokens;
  uint8_t* head = t.open_page + (int64_t{side} * t.kv_heads + kv_head) * t.open_head_bytes;
  return {head + token * t.head_dim, head + t.page_tokens * t.head_dim + token * 4};
}
// The first position of a query's own page, whose keys it reads in int8; after the query without open pages.
ATOM_INLINE int own_page(const AttentionTask& t, int position) {
  return t.open_page == nullptr ? position + 1 : position - position % t.page_tokens;
}

// The first position that a query reads.
ATOM_INLINE int oldest(const AttentionTask& t, int position) {
  return t.window > 0 ? larger(0, position + 1 - t.window) : 0;
}

// ---- store

// f16 lo and step of x [d]; NaN when a value is not finite.
static void kv_params(const float* x, int d, int high, float clip, uint16_t (&params)[2]) {
  F low = broadcast(x[0]), top = low;
  I magnitude{};
  for_vectors(d, [&](int i, int count) {
    F v = load_part(x + i, count);
    for (int j = count; j < kLanes; ++j) v[j] = x[0];
    low = min(v, low);
    top = max(v, top);
    magnitude = max(magnitude, bits_of(v) & 0x7fffffff);
  });
  if (max_lanes(magnitude) >= 0x7f800000) {
    params[0] = params[1] = 0x7e00;
    return;
  }
  const float lo = -max_lanes(-low), range = max_lanes(top) - lo;
  uint16_t halves[kLanes];
  F both{};
  both[0] = lo + range * ((1.0f - clip) / 2.0f);
  both[1] = range * clip / (float)high;
  narrow_f16(halves, both);
  params[0] = halves[0];
  params[1] = halves[1] == 0 ? 0x3c00 : halves[1];
}

static void store_codes(const AttentionTask& t, int bits, const float* x, const Place& to,
                        uint8_t* codes) {
  const int high = bits == 4 ? 15 : 255;
  uint16_t params[2];
  kv_params(x, t.head_dim, high, bits == 4 ? t.kv_clip : 1.0f, params);
  __builtin_memcpy(to.params, params, sizeof params);
  const auto [lo, step] = widen_pair(params);
  const F inv = broadcast(1.0f / step), low = broadcast(lo);
  for_vectors(t.head_dim, [&](int i, int count) {
    const F v = load_part(x + i, count) - low;
    store_bytes(codes + i, quantize_vector(v, inv, F{}, broadcast((float)high)));
  });
  if (bits == 8)
    __builtin_memcpy(to.row, codes, (size_t)t.head_dim);
  else
    for (int i = 0; i < t.head_dim / 2; ++i)
      to.row[i] = (uint8_t)(codes[2 * i] | codes[2 * i + 1] << 4);
}

static void store_vector(const AttentionTask& t, int bits, const float* x, const Place& to,
                         uint8_t* codes) {
  if (bits < 16) return store_codes(t, bits, x, to, codes);
  if (bits == 32) {
    __builtin_memcpy(to.row, x, (size_t)t.head_dim * sizeof(float));
    return;
  }
  for_vectors(t.head_dim, [&](int i, int count) {
    uint16_t halves[kLanes];
    narrow_f16(halves, load_part(x + i, count));
    __builtin_memcpy(to.row + 2 * i, halves, (size_t)count * 2);
  });
}

static void subtract(float* x, const float* offset, int d) {
  for_vectors(d, [&](int i, int count) {
    store_part(x + i, load_part(x + i, count) - load_part(offset + i, count), count);
  });
}

static void store_kv(const AttentionTask& t, std::byte* scratch) {
  float* rotated = (float*)scratch;
  uint8_t* codes = (uint8_t*)(rotated + round_up(t.head_dim, kLanes));
  for (int row = t.row_begin; row < t.row_end; ++row) {
    const int position = t.position + row - t.row_begin;
    for (int head = 0; head < t.kv_heads; ++head) {
      rotate(t, position, head_of(t, row, t.heads + head), rotated);
      if (t.key_offset != nullptr) subtract(rotated, t.key_offset + head * t.head_dim, t.head_dim);
      const float* value = head_of(t, row, t.heads + t.kv_heads + head);
      store_vector(t, t.sides[kKey].bits, rotated, find(t, kKey, head, position), codes);
      store_vector(t, t.sides[kValue].bits, value, find(t, kValue, head, position), codes);
      if (t.open_page == nullptr) continue;
      store_codes(t, 8, rotated, find_open(t, kKey, head, position), codes);
      store_codes(t, 8, value, find_open(t, kValue, head, position), codes);
    }
  }
}

// ---- load

template <int kBits>
static void load_vector(const AttentionTask& t, const Place& from, float* to) {
  Pair params{};  // lo, step
  if constexpr (kBits < 16) params = widen_pair(from.params);
  const F lo = broadcast(params.first), step = broadcast(params.second);
  const auto widen = [&](const uint8_t* at) {
    if constexpr (kBits == 32) return load_as<F>(at);
    if constexpr (kBits == 16) return widen_f16((const uint16_t*)at);
    if constexpr (kBits == 8) return fma(to_float(widen_u8(at)), step, lo);
    if constexpr (kBits == 4) return fma(to_float(widen_u4(at)), step, lo);
  };
  for_vectors(t.head_dim, [&](int i, int count) {
    const uint8_t* at = from.row + i * kBits / 8;
    if (count == kLanes) return store(to + i, widen(at));
    uint8_t part[kLanes * 4] = {};
    __builtin_memcpy(part, at, (size_t)(count * kBits / 8));
    store_part(to + i, widen(part), count);
  });
}

// What `count` vectors leave of s.tile.
static void clear_tile(const AttentionTask& t, const AttentionScratch& s, int count) {
  for (int i = 0; i < count; ++i)
    for (int d = t.head_dim; d < s.padded; ++d) s.tile[int64_t{i} * s.padded + d] = 0;
  __builtin_memset(s.tile + int64_t{count} * s.padded, 0,
                   (size_t)((kKeys - count) * s.padded) * sizeof(float));
}

// Rows of s.tile: one side of the positions [begin, begin + count) of the task's KV head, in the
// cache's format or in the one of `own` pages; the rest is 0.
static void load_tile(const AttentionTask& t, Side side, bool own, int begin, int count,
                      const AttentionScratch& s) {
  if (own) {
    for (int i = 0; i < count; ++i)
      load_vector<8>(t, find_open(t, side, t.kv_head, begin + i), s.tile + int64_t{i} * s.padded);
    return clear_tile(t, s, count);
  }
  const CacheSide& cache = t.sides[side];
  const int bits = cache.bits;
  Place from{};
  for (int i = 0; i < count; ++i, from.row += cache.row_bytes, from.params += cache.param_bytes) {
    if (i == 0 || (begin + i) % t.page_tokens == 0) from = find(t, side, t.kv_head, begin + i);
    float* to = s.tile + int64_t{i} * s.padded;
    if (bits == 32) load_vector<32>(t, from, to);
    if (bits == 16) load_vector<16>(t, from, to);
    if (bits == 8) load_vector<8>(t, from, to);
    if (bits == 4) load_vector<4>(t, from, to);
  }
  clear_tile(t, s, count);
}

// keys[d][key] = tile[key][d], in squares of 4.
static void transpose_tile(const AttentionTask& t, const AttentionScratch& s) {
  typedef float Quad __attribute__((vector_size(16)));  // NOLINT
  for (int key = 0; key < kKeys; key += 4) {
    for (int d = 0; d < t.head_dim; d += 4) {  // padded is a multiple of 4
      const float* from = s.tile + int64_t{key} * s.padded + d;
      const Quad r0 = load_as<Quad>(from), r1 = load_as<Quad>(from + s.padded);
      const Quad r2 = load_as<Quad>(from + 2 * s.padded), r3 = load_as<Quad>(from + 3 * s.padded);
      const Quad a = __builtin_shufflevector(r0, r1, 0, 4, 1, 5);
      const Quad b = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
      const Quad c = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
      const Quad e = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
      float* to = s.keys + int64_t{d} * kKeys + key;
      store(to, (Quad)__builtin_shufflevector(a, c, 0, 1, 4, 5));
      store(to + kKeys, (Quad)__builtin_shufflevector(a, c, 2, 3, 6, 7));
      store(to + 2 * kKeys, (Quad)__builtin_shufflevector(b, e, 0, 1, 4, 5));
      store(to + 3 * kKeys, (Quad)__builtin_shufflevector(b, e, 2, 3, 6, 7));
    }
  }
}

// ---- attend

// Keys of a tile that a query sees.
struct Visible {
  int begin, end;
};

// One tile's scores of a query become probabilities; the visible keys count, one at least.
static void soften(const AttentionTask& t, const AttentionScratch& s, int query, Visible visible) {
  float* scores = s.scores + int64_t{query} * kKeys;
  for (int i = 0; i < visible.begin; ++i) scores[i] = -__builtin_inff();
  for (int i = visible.end; i < kKeys; ++i) scores[i] = -__builtin_inff();
  const F scale = broadcast((float)(1.0 / __builtin_sqrt((double)t.head_dim)));
  F top = broadcast(-__builtin_inff());
  F v[kKeys / kLanes];
  for (int i = 0; i < kKeys / kLanes; ++i) {
    v[i] = load(scores + i * kLanes) * scale;
    top = max(v[i], top);
  }
  const float before = s.largest[query];
  float largest = max_lanes(top);
  if (!(largest > before)) largest = before;
  const F base = broadcast(largest);
  F mass{};
  for (int i = 0; i < kKeys / kLanes; ++i) {
    const F p = exp(v[i] - base);
    store(scores + i * kLanes, p);
    mass += p;
  }
  s.largest[query] = largest;
  const float keep = exp(broadcast(before) - base)[0];
  s.mass[query] = s.mass[query] * keep + sum_lanes(mass);
  if (keep == 1.0f) return;
  float* sums = s.sums + int64_t{query} * s.padded;
  for (int i = 0; i < s.padded; i += kLanes) store(sums + i, load(sums + i) * keep);
}

// Whether a value of the tile is NaN or infinite: its product with a probability of 0 is not 0.
static bool has_special(const AttentionScratch& s) {
  I magnitude{};
  for (int i = 0; i < kKeys * s.padded; i += kLanes)
    magnitude = max(magnitude, bits_of(load(s.tile + i)) & 0x7fffffff);
  return max_lanes(magnitude) >= 0x7f800000;
}

// c += a * b for the queries [begin, end); the columns are whole panels, side by side.
static void multiply_queries(FloatProduct t, int begin, int end, int columns) {
  t.a += begin * t.a_stride;
  t.c += begin * t.c_stride;
  t.b_next = t.c_next = kColumns;
  multiply(t, end - begin, columns / kColumns);
}

// The keys of a tile that the queries read in the cache's format, or those that they read as of their own page.
static void attend_tile(const AttentionTask& t, const AttentionScratch& s, int tile, bool own) {
  const int sharing = t.heads / t.kv_heads;  // query heads of the KV head
  const int count = smaller(kKeys, t.position + t.row_end - t.row_begin - tile);
  const auto visible = [&](int query) -> Visible {
    const int position = t.position + query / sharing, page = own_page(t, position);
    const int first = larger(0, oldest(t, position) - tile);
    if (!own) return {first, smaller(kKeys, smaller(page, position + 1) - tile)};
    return {larger(first, page - tile), smaller(kKeys, position + 1 - tile)};
  };
  const auto sees = [&](int query) { return visible(query).begin < visible(query).end; };
  // Queries lie row by row: those that see something are neighbours, but for a window that ends inside a query's own page.
  int first = 0, last = s.queries;
  while (first < last && !sees(first)) ++first;
  while (first < last && !sees(last - 1)) --last;
  if (first == last) return;

  load_tile(t, kKey, own, tile, count, s);
  transpose_tile(t, s);
  __builtin_memset(s.scores + int64_t{first} * kKeys, 0,
                   (size_t)(last - first) * kKeys * sizeof(float));
  multiply_queries({t.head_dim, s.q, t.head_dim, s.keys, kKeys, 0, s.scores, kKeys, 0}, first, last,
                   kKeys);
  bool whole = true;
  for (int query = first; query < last; ++query) {
    const Visible seen = visible(query);
    whole = whole && seen.begin == 0 && seen.end >= count;
    if (seen.begin < seen.end)
      soften(t, s, query, seen);
    else
      __builtin_memset(s.scores + int64_t{query} * kKeys, 0, kKeys * sizeof(float));
  }

  load_tile(t, kValue, own, tile, count, s);
  FloatProduct product{count, s.scores, kKeys, s.tile, s.padded, 0, s.sums, s.padded, 0};
  if (whole || !has_special(s)) return multiply_queries(product, first, last, s.padded);
  for (int query = first; query < last; ++query) {
    const Visible seen = visible(query);
    if (seen.begin >= seen.end) continue;
    product.k = seen.end - seen.begin;
    product.a = s.scores + seen.begin;
    product.b = s.tile + int64_t{seen.begin} * s.padded;
    multiply_queries(product, query, query + 1, s.padded);
  }
}

static size_t attention_scratch(const AttentionTask& t) {
  const size_t store_bytes = (size_t)round_up(t.head_dim, 64) * (sizeof(float) + 1);
  const size_t bytes = carve(t, nullptr).bytes_used;
  return bytes > store_bytes ? bytes : store_bytes;
}

static void attention(const AttentionTask& t, std::byte* scratch) {
  const AttentionScratch s = carve(t, scratch);
  const int sharing = t.heads / t.kv_heads, d = t.head_dim;
  for (int query = 0; query < s.queries; ++query) {
    const int row = t.row_begin + query / sharing;
    const int head = t.kv_head * sharing + query % sharing;
    rotate(t, t.position + query / sharing, head_of(t, row, head), s.q + int64_t{query} * d);
    s.largest[query] = -__builtin_inff();
    s.mass[query] = 0;
  }
  __builtin_memset(s.sums, 0, (size_t)s.queries * s.padded * sizeof(float));

  const int end = t.position + t.row_end - t.row_begin;
  for (int tile = oldest(t, t.position) / kKeys * kKeys; tile < end; tile += kKeys) {
    attend_tile(t, s, tile, false);
    if (t.open_page != nullptr) attend_tile(t, s, tile, true);
  }

  for (int query = 0; query < s.queries; ++query) {
    const int row = t.row_begin + query / sharing;
    const int head = t.kv_head * sharing + query % sharing;
    float* out = t.out + (int64_t{row} * t.heads + head) * d;
    const F mass = broadcast(s.mass[query]);
    for_vectors(d, [&](int i, int count) {
      store_part(out + i, load(s.sums + int64_t{query} * s.padded + i) / mass, count);
    });
  }
}
