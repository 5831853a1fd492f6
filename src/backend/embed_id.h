// Which row of its table an embedding reads, for backends whose memory is the host's.
#pragma once

#include "backend/operations.h"
#include "base/error.h"

namespace atom::backend {

// -1: none, the row becomes NaN.
inline int32_t embed_id(const EmbedArgs& args, int row) {
  const int32_t id = args.ids[row];
  const bool follows = id < 0 && args.sampled != nullptr;
  const int32_t known = follows ? args.sampled[sampled_row(id)] : id;
  check((known >= 0 && known < args.table.count) || (follows && known == -1),
        "an id outside the table");
  return known;
}

}  // namespace atom::backend
