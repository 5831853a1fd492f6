#include "model/rope.h"

#include <cmath>

namespace atom::model {

RopeTables make_rope_tables(const ModelConfig& config, int positions) {
  const int half = config.head_dim / 2;
  RopeTables out;
  out.cos.resize(static_cast<size_t>(positions) * half);
  out.sin.resize(out.cos.size());
  for (int i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    const float period = static_cast<float>(std::pow(config.rope_theta, double{exponent}));
    const float frequency = 1.0f / period;
    for (int p = 0; p < positions; ++p) {
      const float angle = static_cast<float>(p) * frequency;
      out.cos[static_cast<size_t>(p) * half + i] = static_cast<float>(std::cos(double{angle}));
      out.sin[static_cast<size_t>(p) * half + i] = static_cast<float>(std::sin(double{angle}));
    }
  }
  return out;
}

}  // namespace atom::model
