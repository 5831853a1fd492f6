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

#include "backend/backend.h"

namespace atom::timing {

enum class Kind {
  kLinears,  // of the layers
  kAttention,
  kProducers,  // embedding, norms, gates, quantization
  kRouting,    // of a mixture: choice and sum of experts
  kHead,       // its linear
};
inline constexpr int kKinds = 5;

class SelectedBackend final : public backend::Backend {
 public:
  // `head` is the linear of Kind::kHead, null: none.
  SelectedBackend(backend::Backend& inner, const backend::PackedLinear* head)
      : inner_(inner), head_(head) {}

  void select(Kind kind) { all_ = false, kind_ = kind; }
  void select_all() { all_ = true; }

  std::string name() const override { return inner_.name(); }
  std::string description() const override { return inner_.description(); }
  std::vector<std::string> fallbacks() const override { return inner_.fallbacks(); }
  void upload(void* device, const void* host, size_t bytes) override {
    inner_.upload(device, host, bytes);
  }
  void download(void* host, const void* device, size_t bytes) override {
    inner_.download(host, device, bytes);
  }
  void synchronize() override { inner_.synchronize(); }
  std::unique_ptr<backend::PackedLinear> pack(std::span<const backend::LinearWeight> parts,
                                              const format::Segments& input) override {
    return inner_.pack(parts, input);
  }
  size_t activation_bytes(const backend::InputSpec& spec, int rows) const override {
    return inner_.activation_bytes(spec, rows);
  }
  void embed(const backend::EmbedArgs& args) override {
    if (runs(Kind::kProducers)) inner_.embed(args);
  }
  void norm(const backend::NormArgs& args) override {
    if (runs(Kind::kProducers)) inner_.norm(args);
  }
  void quantize(const backend::QuantizeArgs& args) override {
    if (runs(Kind::kProducers)) inner_.quantize(args);
  }
  void linear(const backend::LinearArgs& args) override;
  void attention(const backend::AttentionArgs& args) override {
    if (runs(Kind::kAttention)) inner_.attention(args);
  }
  void gate(const backend::GateArgs& args) override {
    if (runs(Kind::kProducers)) inner_.gate(args);
  }
  void route(const backend::RouteArgs& args) override {
    if (runs(Kind::kRouting)) inner_.route(args);
  }
  void combine(const backend::CombineArgs& args) override {
    if (runs(Kind::kRouting)) inner_.combine(args);
  }
  void sample(const backend::SampleArgs& args) override { inner_.sample(args); }
  std::unique_ptr<backend::Recording> record(backend::StepFunction step) override {
    return inner_.record(std::move(step));
  }
  void dequantize(const backend::Activation& x, float* y) override { inner_.dequantize(x, y); }
  void export_codes(const backend::Activation& x, int8_t* codes, float* scales) override {
    inner_.export_codes(x, codes, scales);
  }
  backend::Ceilings ceilings() override { return inner_.ceilings(); }
  std::unique_ptr<backend::LibraryLinear> library_linear(
      const backend::LibraryShape& shape) override {
    return inner_.library_linear(shape);
  }
  std::string library() override { return inner_.library(); }
  void* allocate_bytes(size_t bytes) override { return inner_.allocate_bytes(bytes); }
  void free_bytes(void* data, size_t bytes) override { inner_.free_bytes(data, bytes); }

 private:
  struct Input {
    format::Segments segments;
    int rows = 0;
    backend::Buffer data;
  };
  bool runs(Kind kind) const { return all_ || kind_ == kind; }
  void* random_input(const backend::Activation& like);

  backend::Backend& inner_;
  const backend::PackedLinear* head_;
  bool all_ = true;
  Kind kind_ = Kind::kLinears;
  std::vector<Input> inputs_;
};

}  // namespace atom::timing
