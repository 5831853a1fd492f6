#include "backend/backend.h"

#include "base/error.h"

#include <utility>

namespace atom::backend {
namespace {

class RepeatedCalls final : public Recording {
 public:
  explicit RepeatedCalls(StepFunction step) : step_(std::move(step)) {}
  void run(std::span<const SequenceStep> sequences) override { step_(sequences); }

 private:
  StepFunction step_;
};

class IdsAtHand final : public PendingIds {
 public:
  explicit IdsAtHand(std::vector<int32_t> ids) : ids_(std::move(ids)) {}
  std::span<const int32_t> wait() override { return ids_; }

 private:
  std::vector<int32_t> ids_;
};

}  // namespace

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(backend_, other.backend_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ != nullptr) backend_->free_bytes(data_, bytes_);
}

Buffer Backend::allocate(size_t bytes) { return {this, allocate_bytes(bytes), bytes}; }

std::unique_ptr<PendingIds> Backend::sample_ahead(const SampleArgs& args, int32_t* sampled) {
  check(args.rules != nullptr, "sample_ahead: rules are given");
  std::vector<int32_t> ids(static_cast<size_t>(args.rows));
  sample({.logits = args.logits,
          .rows = args.rows,
          .vocabulary = args.vocabulary,
          .rules = args.rules,
          .ids = ids.data()});
  upload(sampled, ids.data(), ids.size() * sizeof(int32_t));
  return std::make_unique<IdsAtHand>(std::move(ids));
}

void Backend::edit_logits(float* logits, int vocabulary, std::span<const LogitEdit> edits) {
  std::vector<float> row(static_cast<size_t>(vocabulary));
  const size_t bytes = row.size() * sizeof(float);
  synchronize();
  for (size_t i = 0; i < edits.size();) {
    const int index = edits[i].row;
    float* data = logits + static_cast<size_t>(index) * row.size();
    download(row.data(), data, bytes);
    for (; i < edits.size() && edits[i].row == index; ++i) {
      float& logit = row.at(static_cast<size_t>(edits[i].id));
      logit = (logit > 0 ? logit / edits[i].factor : logit * edits[i].factor) + edits[i].add;
    }
    upload(data, row.data(), bytes);
  }
}

std::unique_ptr<Recording> Backend::record(StepFunction step) {
  return std::make_unique<RepeatedCalls>(std::move(step));
}

}  // namespace atom::backend
