// A backend that leaves out operations: the steps of a forward pass with only its linears, only its attention, ..., so
// that each kind can be timed by itself.
//
//   SelectedBackend selected(*model.backend);
//   model::Forward forward(model.config, selected, options);
//   selected.select(Kind::kAttention);
//   forward.layer(...);                    // enqueues attention and nothing else
//
// Operations that run read what an earlier, whole step left in the buffers, so one should have run. Inputs of linears are
// an exception, since a forward pass keeps all of them in one buffer: selected alone, linears get inputs of their own.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/forwarding.h"

namespace atom::timing {

enum class Kind {
  kLinears,  // of the layers
  kAttention,
  kProducers,  // embedding, norms, gates, quantization
  kRouting,    // of a mixture: choice and sum of experts
  kHead,       // its linear
};
inline constexpr int kKinds = 5;

class SelectedBackend final : public backend::ForwardingBackend {
 public:
  // `head` is the linear of Kind::kHead, null: none.
  SelectedBackend(backend::Backend& inner, const backend::PackedLinear* head)
      : ForwardingBackend(inner), head_(head) {}

  void select(Kind kind) { all_ = false, kind_ = kind; }
  void select_all() { all_ = true; }

  void embed(const backend::EmbedArgs& args) override {
    if (runs(Kind::kProducers)) inner().embed(args);
  }
  void norm(const backend::NormArgs& args) override {
    if (runs(Kind::kProducers)) inner().norm(args);
  }
  void quantize(const backend::QuantizeArgs& args) override {
    if (runs(Kind::kProducers)) inner().quantize(args);
  }
  void linear(const backend::LinearArgs& args) override;
  void attention(const backend::AttentionArgs& args) override {
    if (runs(Kind::kAttention)) inner().attention(args);
  }
  void gate(const backend::GateArgs& args) override {
    if (runs(Kind::kProducers)) inner().gate(args);
  }
  void route(const backend::RouteArgs& args) override {
    if (runs(Kind::kRouting)) inner().route(args);
  }
  void combine(const backend::CombineArgs& args) override {
    if (runs(Kind::kRouting)) inner().combine(args);
  }

 private:
  struct Input {
    format::Segments segments;
    int rows = 0;
    backend::Buffer data;
  };
  bool runs(Kind kind) const { return all_ || kind_ == kind; }
  void* random_input(const backend::Activation& like);

  const backend::PackedLinear* head_;
  bool all_ = true;
  Kind kind_ = Kind::kLinears;
  std::vector<Input> inputs_;
};

}  // namespace atom::timing
