#include "engine/saturation.h"

namespace atom::engine {

SaturationProbe::SaturationProbe(const model::Model& model, int period)
    : model_(model), period_(period), codes_of_row_(model.layers.size()) {
  int64_t any = 0;
  for (size_t layer = 0; layer < codes_of_row_.size(); ++layer)
    for (int i = 0; i < model::kSites; ++i) {
      const auto site = static_cast<model::SiteIndex>(i);
      const int inputs = site == model::SiteIndex::kDown ? model.config.experts_per_token : 1;
      int64_t& codes = codes_of_row_[layer].at(static_cast<size_t>(i)).sampled;
      for (const format::Segment& s : input_of(*model.layers[layer], site).spec.segments.at)
        if (format::is_integer(s.format)) codes += int64_t{inputs} * s.size;
      any += codes;
    }
  if (any == 0 || period == 0) return;
  counts_.resize(codes_of_row_.size() * model::kSites);
  device_counts_ = model.backend->allocate(counts_.size() * sizeof(uint64_t));
}

uint64_t* SaturationProbe::begin_step(int rows) {
  rows_ = 0;
  if (counts_.empty() || steps_++ % period_ != 0) return nullptr;
  rows_ = rows;
  counts_.assign(counts_.size(), 0);
  model_.backend->upload(device_counts_.data(), counts_.data(), device_counts_.bytes());
  return device_counts_.as<uint64_t>();
}

void SaturationProbe::end_step() {
  if (!looks()) return;
  model_.backend->synchronize();
  model_.backend->download(counts_.data(), device_counts_.data(), device_counts_.bytes());
  auto totals = totals_ ? std::make_shared<Saturation>(*totals_)
                        : std::make_shared<Saturation>(codes_of_row_.size());
  for (size_t i = 0; i < counts_.size(); ++i) {
    const size_t layer = i / model::kSites, site = i % model::kSites;
    SiteCodes& total = (*totals)[layer].at(site);
    total.saturated += static_cast<int64_t>(counts_[i]);
    total.sampled += rows_ * codes_of_row_[layer].at(site).sampled;
  }
  totals_ = std::move(totals);
  rows_ = 0;
}

}  // namespace atom::engine
