// Layout of one page of the KV-cache of one layer, the same on every backend.
//
// A page holds `tokens` consecutive positions. For K and then for V, KV head by KV head:
//   codes   [tokens, row]   row = head_dim * bits / 8 bytes; int4: two codes a byte, the even index low
//   params  [tokens]        integer formats only: {lo, step} as two f16
//
// With an open page, a sequence has one page more, of int8: queries read the positions of their own page from there,
// and those of earlier pages in the cache's format. It holds the page that is being filled.
#pragma once

#include <cstddef>
#include <cstdint>

#include "format/format.h"

namespace atom::format {

struct KvLayout {
  KvKind kind = KvKind::kF16;
  int kv_heads = 0;
  int head_dim = 0;  // even
  int tokens = 64;   // positions per page
  bool open_page = false;

  int64_t row_bytes() const { return int64_t{head_dim} * kv_bits(kind) / 8; }
  int64_t param_bytes() const { return kv_bits(kind) < 16 ? 4 : 0; }  // of one token and head
  int64_t head_bytes() const { return tokens * (row_bytes() + param_bytes()); }
  int64_t page_bytes() const { return 2 * kv_heads * head_bytes(); }

  KvLayout of_open_page() const {
    return {.kind = KvKind::kInt8, .kv_heads = kv_heads, .head_dim = head_dim, .tokens = tokens};
  }

  // Byte offsets inside a page; side 0 is K, side 1 is V.
  int64_t row_offset(int side, int head, int token) const {
    return (int64_t{side} * kv_heads + head) * head_bytes() + token * row_bytes();
  }
  int64_t param_offset(int side, int head, int token) const {
    return (int64_t{side} * kv_heads + head) * head_bytes() + tokens * row_bytes() +
           token * param_bytes();
  }
};

}  // namespace atom::format
