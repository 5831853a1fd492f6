#include "backend/cuda/ceilings.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "backend/cuda/cuda_backend.h"
#include "base/error.h"

namespace atom::backend::cuda {
namespace {

constexpr size_t kBytes = size_t{2} << 30;  // read at once, if the device has them to spare
constexpr int kPasses = 12;

class Event {
 public:
  Event() { require(cudaEventCreate(&event_), "creating an event"); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event_); }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

Ceilings CudaBackend::ceilings() {
  size_t free = 0, total = 0;
  require(cudaMemGetInfo(&free, &total), "asking for free memory");
  const size_t bytes = std::min(kBytes, free / 2) >> 16 << 16;
  const DeviceMemory data(bytes);
  const DeviceMemory words(sizeof(uint32_t) *
                           static_cast<size_t>(device_.multiprocessors * kReadBlocks));
  require(cudaMemsetAsync(data.as<void>(), 0x5a, bytes, stream_), "filling memory");
  const Event begin, end;
  const auto least_seconds = [&](const auto& enqueue) {
    float least = 1e30f;
    for (int pass = 0; pass < kPasses; ++pass) {
      require(cudaEventRecord(begin.get(), stream_), "timing");
      require(enqueue(), "reading memory");
      require(cudaEventRecord(end.get(), stream_), "timing");
      synchronize();
      float milliseconds = 0;
      require(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()), "timing");
      least = std::min(least, milliseconds);
    }
    return 1e-3 * static_cast<double>(least);
  };
  const auto read = [&]() -> Status {
    return launch_read(data.as<void>(), bytes, device_.multiprocessors, words.as<uint32_t>(),
                       stream_);
  };
  const size_t half = bytes / 2;
  const auto copy = [&]() -> Status {
    return cudaMemcpyAsync(data.as<uint8_t>() + half, data.as<void>(), half,
                           cudaMemcpyDeviceToDevice, stream_);
  };
  int kilohertz = 0, cache = 0;
  require(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, 0), "asking for the cache");
  require(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, 0), "asking for the clock");
  const TensorRate rate = tensor_rate(device_.major, device_.minor);
  const double clocks = 1e3 * kilohertz * device_.multiprocessors;
  Ceilings out;
  out.read_bytes = static_cast<double>(bytes) / least_seconds(read);
  out.copy_bytes = 2.0 * static_cast<double>(half) / least_seconds(copy);
  out.operations16 = rate.operations16 * clocks;
  out.operations8 = rate.operations8 * clocks;
  out.cache_bytes = static_cast<size_t>(cache);
  out.origin = fmt::format("read and copied: {} MiB, measured; products: data sheet at {} MHz",
                           bytes >> 20, kilohertz / 1000);
  return out;
}

}  // namespace atom::backend::cuda
