// Layout of one page of the KV-cache of one layer, the same on every backend.
//
// A page holds `tokens` consecutive positions. First the KV heads of K (side 0), then those of V (side 1), each:
//   codes   [tokens, row]   row = head_dim * bits / 8 bytes; int4: two codes a byte, the even index low
//   params  [tokens]        integer formats only: {lo, step} as two f16
// The sides may have different bits (kInt8Int4), so the heads of K and of V different bytes.
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

  int bits(int side) const { return kv_bits(kv_side(kind, side)); }

  int64_t row_bytes(int side) const { return int64_t{head_dim} * bits(side) / 8; }
  int64_t param_bytes(int side) const { return bits(side) < 16 ? 4 : 0; }  // of one token and head
  int64_t head_bytes(int side) const { return tokens * (row_bytes(side) + param_bytes(side)); }
  int64_t page_bytes() const { return kv_heads * (head_bytes(0) + head_bytes(1)); }

  KvLayout of_open_page() const {
    return {.kind = KvKind::kInt8, .kv_heads = kv_heads, .head_dim = head_dim, .tokens = tokens};
  }

  // Byte offsets inside a page.
  int64_t head_offset(int side, int head) const {
    return (side == 0 ? 0 : kv_heads * head_bytes(0)) + head * head_bytes(side);
  }
  int64_t row_offset(int side, int head, int token) const {
    return head_offset(side, head) + token * row_bytes(side);
  }
  int64_t param_offset(int side, int head, int token) const {
    return head_offset(side, head) + tokens * row_bytes(side) + token * param_bytes(side);
  }
};

}  // namespace atom::format
