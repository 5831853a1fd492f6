// The operations of one layer of a model, each to be timed by itself: its linears, their chain, what produces their
// inputs; and the same products by the backend's library.
//
//   LayerOps layer(backend, config, scheme, data, rotated);
//   layer.set_rows(16);
//   const Operation ours = layer.linear(Site::kQkv);
//   LibraryOps library(backend, config, LibraryFormat::kF16, data, rotated);
//   library.set_rows(16, options);
//   if (library.works()) time_operations(backend, {ours, library.linear(Site::kQkv)}, options);
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "backend/linear_rows.h"
#include "model/config.h"
#include "model/random_model.h"
#include "model/scheme.h"
#include "timing/linear_op.h"
#include "timing/operation.h"
#include "timing/random_data.h"

namespace atom::timing {

// Linears: q, k and v as one; gate and up as one, of one expert in mixtures.
enum class Site { kQkv, kOut, kGateUp, kDown };
inline constexpr int kSites = 4;
inline constexpr std::array<std::string_view, kSites> kSiteNames = {"qkv", "o", "gate+up", "down"};

struct SiteSize {
  int n = 0, k = 0;
};
SiteSize site_size(const model::ModelConfig& config, Site site);

// Of one layer, by Site; of a mixture, of one expert.
using LayerLinears = std::array<std::unique_ptr<LinearOp>, kSites>;
LayerLinears make_linears(backend::Backend& backend, const model::ModelConfig& config,
                          const model::Scheme& scheme, RandomData& data, size_t rotated);

class LayerOps {
 public:
  // Weights are packed as often as makes `rotated` bytes of each linear.
  LayerOps(backend::Backend& backend, const model::ModelConfig& config, const model::Scheme& scheme,
           RandomData& data, size_t rotated);
  LayerOps(const LayerOps&) = delete;
  LayerOps& operator=(const LayerOps&) = delete;

  // Makes inputs and outputs; what the calls below returned earlier is no more to be used.
  void set_rows(int rows);
  Operation linear(Site site) const;
  // The four in sequence; with_producers: the norms, the gate, and the quantization of attention's output between them.
  Operation chain() const;
  Operation chain_with_producers() const;
  // plain: writing f32 in the order of the source, as before a linear in 16 bits.
  Operation norm(bool plain) const;
  Operation gate(bool plain) const;
  Operation quantize(bool plain) const;

 private:
  const LinearOp& at(Site site) const { return *linears_[static_cast<size_t>(site)]; }
  // What a producer writes for a site.
  const backend::InputSpec& written(Site site, bool plain) const {
    return plain ? plain_[static_cast<size_t>(site)] : at(site).spec();
  }
  // To qkv_ or gate_up_, or to (`then`) rows of f32.
  void multiply(Site site, int copy, float* y, backend::Then then) const;
  // An operation that writes the input of `site` from rows of `width` values.
  Operation producer(
      Site site, int width, bool plain, const backend::Buffer& sources,
      std::function<void(const void* x, const backend::Activation& y)> produce) const;

  backend::Backend& backend_;
  model::ModelConfig config_;
  RandomData& data_;
  size_t rotated_;
  LayerLinears linears_;
  std::array<backend::InputSpec, kSites> plain_;  // f32 in the order of the source
  backend::Buffer gain_;
  int rows_ = 0;
  backend::Buffer h_, attended_, out_;
  backend::LinearRows qkv_, gate_up_;
  backend::Buffer sources_, gate_sources_, produced_;  // of the producers, several sets of rows
};

class LibraryOps {
 public:
  LibraryOps(backend::Backend& backend, const model::ModelConfig& config,
             backend::LibraryFormat format, RandomData& data, size_t rotated);
  LibraryOps(const LibraryOps&) = delete;
  LibraryOps& operator=(const LibraryOps&) = delete;

  // Times the algorithms that the library proposes, once for each number of rows, and takes the best.
  void set_rows(int rows, const RoundOptions& options);
  bool works(Site site) const { return products_[static_cast<size_t>(site)] != nullptr; }
  bool works() const;  // all sites
  Operation linear(Site site) const;
  Operation chain() const;

 private:
  Operation with_choice(Site site, int choice) const;
  void pick(const RoundOptions& options);

  backend::Backend& backend_;
  model::ModelConfig config_;
  backend::LibraryFormat format_;
  RandomData& data_;
  size_t rotated_;
  int rows_ = 0;
  std::array<std::vector<backend::Buffer>, kSites> weights_;
  std::array<backend::Buffer, kSites> x_;
  backend::Buffer y_;
  std::array<std::unique_ptr<backend::LibraryLinear>, kSites> products_;
  std::array<int, kSites> choices_{};
  std::map<int, std::array<int, kSites>> picked_;  // choices_, by rows
};

}  // namespace atom::timing
