// The device interface. `reference` defines every operation with plain loops (sums in f64); the
// other backends compute the same, faster, and may differ only in the order of float additions
// (docs/formats.md).
//
//   auto backend = open_backend("cpu", {.executor = &pool});
//   auto w = backend->pack({&weight, 1}, input.segments);
//   backend->norm({.x = h, .gain = g, .epsilon = 1e-5f, .y = a});
//   backend->linear({.x = a, .weights = {&w, 1}, .y = y});
//
// Every producer of an Activation quantizes for its consumer, so a forward pass has no format
// branches. A backend is used by one thread at a time; it outlives its buffers and packed weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/operations.h"

namespace atom::backend {

class Backend;

// Owning handle of device memory (64-byte aligned at least). Movable.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Backend* backend, void* data, size_t bytes)
      : backend_(backend), data_(data), bytes_(bytes) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  void* data() const { return data_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  Backend* backend_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Enqueues the operations of a step. Every call gives all of them the same arguments, but for the sequences of its
// attention calls, which are those given here. It does not upload, download, sample or wait.
using StepFunction = std::function<void(std::span<const SequenceStep>)>;

// A step that runs again and again, made by Backend::record. What the step's function refers to outlives it.
class Recording {
 public:
  virtual ~Recording() = default;
  // Enqueues the step for `sequences`: as many, with the same rows, each time. Their page tables may change at once when
  // they are host memory.
  virtual void run(std::span<const SequenceStep> sequences) = 0;
};

// Ids on their way from the device.
class PendingIds {
 public:
  virtual ~PendingIds() = default;
  // Waits for them: [rows], -1 as SampleArgs says; they last as long as this.
  virtual std::span<const int32_t> wait() = 0;
};

// What a device does at best, a second: what times are held against. 0: not known.
struct Ceilings {
  double read_bytes = 0;  // of memory far larger than its caches
  double copy_bytes = 0;  // bytes read and bytes written, together
  double operations16 =
      0;                   // multiplications and additions of dense products, 16-bit floating point
  double operations8 = 0;  // 8-bit integers
  size_t cache_bytes = 0;  // of the largest cache: data to be read from memory exceeds it
  std::string origin;      // how the numbers were found: "read: measured; products: ..."
};

// Products of a library that others made fast, to compare with: y[rows, n] = x[rows, k] w[n, k]^T, stored row by row.
// kF32, kF16: y as x, sums in f32. kInt8: y in s32. kFp8: x and w e4m3, y bf16.
enum class LibraryFormat : uint8_t { kF32, kF16, kInt8, kFp8 };
struct LibraryShape {
  LibraryFormat format = LibraryFormat::kF16;
  int n = 0, k = 0, rows = 0;
};
class LibraryLinear {
 public:
  virtual ~LibraryLinear() = default;
  virtual int choices() const = 0;  // algorithms that the library proposes, its favourite first
  // May be recorded. x, w, y: memory of the backend.
  virtual void enqueue(int choice, const void* x, const void* w, void* y) = 0;
};

// The kernels among which a backend chooses for a linear: to be timed, the fastest to be kept in a file that a backend can
// be opened with (OpenOptions::tuned). Choices are numbered; what they stand for, only the backend knows.
class LinearTuner {
 public:
  virtual ~LinearTuner() = default;
  // In words, "few 16x2x4 x1", the one that Backend::linear() would take first. Fewer than two: nothing to choose.
  virtual std::vector<std::string> choices(const PackedLinear& weight, int rows) = 0;
  // As Backend::linear() of one dense weight, by a choice. May be recorded.
  virtual void linear(const LinearArgs& args, int choice) = 0;
  // From now on Backend::linear() takes this one of choices() for weights of this size and as many rows.
  virtual void prefer(const PackedLinear& weight, int rows, const std::string& choice) = 0;
  // Puts a choice, and what it took (0: not known), into the file.
  virtual void keep(const PackedLinear& weight, int rows, int choice, double seconds) = 0;
  // Its contents: what the backend was opened with, and what was kept.
  virtual std::string file() const = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string name() const = 0;  // "reference", "cpu"
  virtual std::string description()
      const = 0;  // device, instruction set, threads: for logs and doctor
  // Notices about slower or less exact paths taken so far ("linear f16 x int4: input dequantized"),
  // once each.
  virtual std::vector<std::string> fallbacks() const { return {}; }

  // Memory. allocate() does not clear. Error when the device has not enough.
  Buffer allocate(size_t bytes);
  // Bytes of a device's own memory; 0: not known, or the host's.
  virtual size_t available_memory() { return 0; }
  virtual void upload(void* device, const void* host, size_t bytes) = 0;
  virtual void download(void* host, const void* device, size_t bytes) = 0;
  virtual void synchronize() = 0;

  // Weights. Rows of the parts are concatenated (q, k, v become one linear); all have the segments
  // of the first. `input` says how activations arrive. Error: a combination that this backend
  // cannot compute.
  virtual std::unique_ptr<PackedLinear> pack(std::span<const LinearWeight> parts,
                                             const format::Segments& input) = 0;
  virtual size_t activation_bytes(const InputSpec& spec, int rows) const = 0;
  // Rows that a linear leaves to attention or gate are best kept in f16: LinearArgs::y_f16, AttentionArgs::qkv_f16,
  // GateArgs::x_f16. A backend that has none of these takes f32 only.
  virtual bool has_f16_rows() const { return false; }

  // Operations, in the order of a layer.
  virtual void embed(const EmbedArgs& args) = 0;
  virtual void norm(const NormArgs& args) = 0;
  virtual void quantize(const QuantizeArgs& args) = 0;
  virtual void linear(const LinearArgs& args) = 0;
  virtual void norm_heads(const NormHeadsArgs& args) = 0;
  virtual void attention(const AttentionArgs& args) = 0;
  virtual void gate(const GateArgs& args) = 0;
  virtual void route(const RouteArgs& args) = 0;
  virtual void combine(const CombineArgs& args) = 0;
  virtual void sample(const SampleArgs& args) = 0;
  // Edits, ordered by row, of logits = [rows, vocabulary] that are sampled next. This one takes the rows that are edited to the
  // host and back.
  virtual void edit_logits(float* logits, int vocabulary, std::span<const LogitEdit> edits);

  // Samples by args.rules (args.ids is not used, nothing is scored) without a wait for the device: `sampled`, [rows] of the
  // backend's memory, holds the ids for an embed that is enqueued later, so that the next step need not wait for the host.
  // args.rules may change at once. This one samples at once.
  virtual std::unique_ptr<PendingIds> sample_ahead(const SampleArgs& args, int32_t* sampled);
  // Operations are enqueued, and done later: to enqueue a step before the ids of the one before have come saves a pause
  // of the device. False: they are done when they return, and a step ahead would delay those ids.
  virtual bool runs_ahead() const { return false; }

  // A step whose launches a device may keep and replay at once: CUDA graphs, of steps of one row a sequence. This one
  // calls the function each time.
  virtual std::unique_ptr<Recording> record(StepFunction step);

  // What a linear sees: values in the linear's order, dequantized. y = [rows, k] f32.
  virtual void dequantize(const Activation& x, float* y) = 0;
  // Codes and scales for tests and reports, host memory: codes [rows, k] (0 for floating-point
  // segments), scales [rows, groups(segments)], segment by segment. FP4: twice the values, and half
  // the scales.
  virtual void export_codes(const Activation& x, int8_t* codes, float* scales) = 0;

  // Adds the saturated codes of x (format::saturated_codes, of all groups of all rows) to *count, memory of the backend.
  // Enqueued; floating-point segments have none.
  virtual void count_saturated(const Activation& x, uint64_t* count) = 0;

  // May measure, for some tenths of a second.
  virtual Ceilings ceilings() { return {}; }
  // Null: the library, or this machine, does not compute that. The backend outlives it.
  virtual std::unique_ptr<LibraryLinear> library_linear(const LibraryShape&) { return nullptr; }
  virtual std::string library() { return "no library"; }  // "cuBLASLt 13.0.0", "no cuBLASLt"
  // Null: nothing to tune. The backend outlives it.
  virtual std::unique_ptr<LinearTuner> linear_tuner() { return nullptr; }

  // The raw side of allocate(), for Buffer and for decorators.
  virtual void* allocate_bytes(size_t bytes) = 0;
  virtual void free_bytes(void* data, size_t bytes) = 0;
};

}  // namespace atom::backend
