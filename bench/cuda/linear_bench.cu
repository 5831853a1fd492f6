// Times the Hopper linear against cuBLASLt in f16 (and, of a layer, in FP8 and INT8) on the shapes of LLaMA-7B and 70B: microseconds in CUDA graphs of
// chained launches over more weights than the L2 cache holds; weights, inputs and outputs count as bytes. Results are those of a
// model: qkv, gate and up store f16, o and down add to f32.
//   linear_bench [few] [many] [layer] [sweep] [7b] [70b] [w4a4] [f32] [ours] [ROWS...]
//     w4a4: of w4a4, beside w4a8;  f32: a layer also without f16, and with all results stored in f32;  ours: a layer
//     without the library
#include <array>
#include <cstring>
#include <string>

#include "backend/cuda/hopper_measured.h"
#include "bench/cuda/linear_data.cuh"
#include "bench/cuda/linear_library.cuh"

namespace atom::bench {
namespace {

struct Named {
  const char* name;
  LinearShape shape;
  bool adds = false;  // to y, f32; else f16 is stored
};
constexpr int kLayer = 4;
constexpr int kLayerRows[] = {1, 8, 16, 32, 64, 128, 256, 1024, 4096};
constexpr Named k7b[kLayer] = {{"7B qkv", {12288, 4096, 128}},
                               {"7B o", {4096, 4096, 128}, true},
                               {"7B gate+up", {22016, 4096, 128}},
                               {"7B down", {4096, 11008, 128}, true}};
constexpr Named k70b[kLayer] = {{"70B qkv", {10240, 8192, 128}},
                                {"70B o", {8192, 8192, 128}, true},
                                {"70B gate+up", {57344, 8192, 128}},
                                {"70B down", {8192, 28672, 128}, true}};
constexpr int kMostRows = 8192;
constexpr double kRotatedBytes = 4.5e8;  // of weights, several times the L2 cache

int multiprocessors = 0;
LibrarySpace library;
// In a model; in a model that has no f16; all stored in f32.
enum class Results { kModel, kF32, kStoredF32 };

// Weights and inputs of a shape, ours and the library's.
struct Linear {
  Named named;
  std::vector<hopper::Weight> weights;
  LibraryData library[kNumberCount];
  uint8_t* x = nullptr;
};
float* y;
uint16_t* y_f16;

Linear make_linear(const Named& named, bool with_library) {
  Linear l{named, {}, {}, nullptr};
  const LinearShape& s = named.shape;
  const cuda::WeightView view = random_weight(s, 3);
  const int copies = std::max(2, static_cast<int>(kRotatedBytes / s.packed_bytes()));
  l.weights.push_back(packed(view, s));
  for (int i = 1; i < copies; ++i) {
    hopper::Weight w = l.weights[0];
    auto* slots = device_array<uint8_t>(s.packed_bytes());
    ATOM_REQUIRE(cudaMemcpy(slots, w.slots, s.packed_bytes(), cudaMemcpyDeviceToDevice));
    w.slots = slots;
    l.weights.push_back(w);
  }
  const cuda::InputView x = random_input(s, kMostRows, 4);
  l.x = x.data;
  if (!with_library) return l;
  for (const Number number : kNumbers)
    l.library[static_cast<int>(number)] = library_data(number, s.n, s.k, kMostRows, kRotatedBytes);
  return l;
}

hopper::Task task_for(const Linear& l, int rows, int copy, Results results = Results::kModel) {
  cuda::InputView x = input_layout(l.named.shape, rows);
  x.data = l.x;
  hopper::Task t = task_of(x, l.weights[copy % l.weights.size()], y);
  t.dependent = 1;
  if (results == Results::kStoredF32) return t;
  if (l.named.adds) {
    t.add = 1;
  } else if (results == Results::kModel) {
    t.y = nullptr;
    t.y_f16 = y_f16;
  }
  return t;
}

LibraryCall pick(const Linear& l, Number number, int rows, int nodes) {
  const LinearShape& s = l.named.shape;
  return pick_library(library, l.library[static_cast<int>(number)], number, s.n, s.k, rows,
                      std::max(2, nodes / 4));
}
void run_library(const LibraryCall& call, const Linear& l, int copy, cudaStream_t stream) {
  call.run(library, l.library[static_cast<int>(call.number)], copy, stream);
}

int nodes_for(double microseconds_each) {
  return std::max(2, std::min(60, static_cast<int>(6000 / microseconds_each)));
}

// Milliseconds of load before many rows are timed.
float warm_for(int rows) { return rows >= 1024 ? 250.0f : 0.0f; }

float time_plan(const Linear& l, int rows, const hopper::Plan& p, int nodes, int replays) {
  return graph_microseconds(
      nodes,
      [&](int i, cudaStream_t stream) {
        hopper::Task t = task_for(l, rows, i);
        t.dependent = i > 0;
        ATOM_REQUIRE(hopper::launch_linear(t, p, multiprocessors, stream));
      },
      replays, warm_for(rows));
}

double bytes_of(const Named& named, int rows) {
  const LinearShape& s = named.shape;
  return static_cast<double>(s.packed_bytes()) + 1.0 * rows * s.k +
         (named.adds ? 4.0 : 2.0) * rows * s.n;
}

float time_planned(const Linear& l, int rows, int nodes) {
  return time_plan(l, rows, hopper::plan(rows, l.weights[0], false, multiprocessors), nodes, 5);
}

using TimedPlan = std::pair<float, hopper::Plan>;
std::vector<TimedPlan> timed_plans(const Linear& l, int rows, int nodes) {
  std::vector<TimedPlan> times;
  for (const hopper::Plan& p : hopper::plans_to_measure(rows, l.weights[0]))
    times.push_back({time_plan(l, rows, p, nodes, 4), p});
  std::sort(times.begin(), times.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return times;
}
// A line of hopper_tuned.h to be.
void print_tuned(const Linear& l, int rows, const hopper::Plan& p) {
  std::printf("TUNED%s {%d, %d, %d, {%d, %d, %d, %d, %s}},",
              l.named.shape.grouped ? " grouped" : "", l.weights[0].blocks(),
              l.named.shape.slots4() + l.named.shape.slots8(), rows, p.rows, p.blocks, p.groups,
              p.cluster, p.many ? "true" : "false");
}
void sweep_plans(const Linear& l, int rows, int nodes) {
  const std::vector<TimedPlan> times = timed_plans(l, rows, nodes);
  std::printf(" |");
  for (const auto& [time, p] : times) std::printf(" %s %.2f", plan_name(p).c_str(), time);
  std::printf("\n");
  print_tuned(l, rows, times[0].second);
}

// base: the same linear in w4a8 with the library's weights; it may be l.
void one_linear(const Linear& l, const Linear& base, int rows, bool sweep) {
  const LinearShape& s = l.named.shape;
  const double flops = 2.0 * rows * s.n * s.k;
  const int nodes = nodes_for(std::max(s.packed_bytes() / 4.0e6, flops / 1.3e9));
  const hopper::Plan planned = hopper::plan(rows, l.weights[0], false, multiprocessors);
  const float ours = time_planned(l, rows, nodes);
  const LibraryCall call = pick(base, Number::kF16, rows, nodes);
  const float half = graph_microseconds(
      nodes, [&](int i, cudaStream_t stream) { run_library(call, base, i, stream); }, 5,
      warm_for(rows));
  std::printf("%-12s %5d  %8.2f us  %5.2f TB/s %6.0f TFLOPS  %-11s | f16 %8.2f us  %5.2fx",
              l.named.name, rows, ours, bytes_of(l.named, rows) / ours / 1e6, flops / ours / 1e6,
              plan_name(planned).c_str(), half, half / ours);
  if (s.grouped) {
    const float progressive = time_planned(base, rows, nodes);
    std::printf(" | w4a8 %8.2f us, %4.2f of it", progressive, ours / progressive);
  }
  if (sweep) sweep_plans(l, rows, nodes);
  std::printf("\n");
}

// Nodes of a graph of layers.
int layer_nodes(const std::vector<Linear>& linears, int rows) {
  double guess = 0;
  for (const Linear& l : linears)
    guess += std::max(l.named.shape.packed_bytes() / 4.0e6,
                      2.0 * rows * l.named.shape.n * l.named.shape.k / 1.3e9);
  return kLayer * std::max(2, std::min(12, static_cast<int>(8000 / guess)));
}
using LayerPlans = std::array<hopper::Plan, kLayer>;
LayerPlans planned(const std::vector<Linear>& linears, int rows) {
  LayerPlans plans;
  for (int i = 0; i < kLayer; ++i)
    plans[i] = hopper::plan(rows, linears[i].weights[0], false, multiprocessors);
  return plans;
}
float time_layer(const std::vector<Linear>& linears, const LayerPlans& plans, int rows,
                 int replays = 5, Results results = Results::kModel) {
  return kLayer *
         graph_microseconds(
             layer_nodes(linears, rows),
             [&](int i, cudaStream_t stream) {
               hopper::Task t = task_for(linears[i % kLayer], rows, i / kLayer, results);
               t.dependent = i > 0;
               ATOM_REQUIRE(hopper::launch_linear(t, plans[i % kLayer], multiprocessors, stream));
             },
             replays, warm_for(rows));
}
float time_library(const std::vector<Linear>& linears, const std::vector<LibraryCall>& calls,
                   int rows) {
  return kLayer * graph_microseconds(
                      layer_nodes(linears, rows),
                      [&](int i, cudaStream_t stream) {
                        run_library(calls[i % kLayer], linears[i % kLayer], i / kLayer, stream);
                      },
                      5, warm_for(rows));
}

// What a layer is compared with.
struct Beside {
  bool f32, library;
};
// grouped: the same linears in w4a4, or none.
void layer(const std::vector<Linear>& linears, const std::vector<Linear>& grouped, const char* name,
           int rows, const Beside& beside) {
  std::vector<LibraryCall> calls[kNumberCount];
  for (int i = 0; beside.library && i < kNumberCount; ++i)
    for (const Linear& l : linears) calls[i].push_back(pick(l, kNumbers[i], rows, 8));
  const std::vector<Linear>& shown = grouped.empty() ? linears : grouped;
  float time = 1e30f, f32 = 1e30f, stored = 1e30f, base = 1e30f,
        theirs[kNumberCount] = {1e30f, 1e30f, 1e30f};
  const LayerPlans plans = planned(shown, rows);
  for (int round = 0; round < 2; ++round) {  // alternating
    time = std::min(time, time_layer(shown, plans, rows));
    if (beside.f32) {
      f32 = std::min(f32, time_layer(shown, plans, rows, 5, Results::kF32));
      stored = std::min(stored, time_layer(shown, plans, rows, 5, Results::kStoredF32));
    }
    if (!grouped.empty()) base = std::min(base, time_layer(linears, planned(linears, rows), rows));
    for (int i = 0; beside.library && i < kNumberCount; ++i)
      theirs[i] = std::min(theirs[i], time_library(linears, calls[i], rows));
  }
  double bytes = 0;
  for (const Linear& l : shown) bytes += bytes_of(l.named, rows);
  std::printf("%-4s layer %5d  %8.2f us  %5.2f TB/s", name, rows, time, bytes / time / 1e6);
  if (beside.f32)
    std::printf(" | f32 %8.2f us  %5.3fx | stored f32 %8.2f us  %5.3fx", f32, f32 / time, stored,
                stored / time);
  for (int i = 0; beside.library && i < kNumberCount; ++i) {
    std::printf(" | %s %8.2f us  %5.2fx", name_of(kNumbers[i]), theirs[i], theirs[i] / time);
    const int computed = calls[i][0].rows;
    if (computed != rows) std::printf(" (%d rows)", computed);
  }
  if (!grouped.empty()) std::printf(" | w4a8 %8.2f us, %4.2f of it", base, time / base);
  std::printf("%s\n", warm_for(rows) > 0 ? "  sustained" : "");
}

// The fastest plans of a layer. What follows one another shares code and multiprocessors, so they need not be those that
// are the fastest alone: from these, and from the best plan for all, one linear's plan is changed at a time.
class LayerSearch {
 public:
  LayerSearch(const std::vector<Linear>& linears, int rows) : linears_(linears), rows_(rows) {
    for (int i = 0; i < kLayer; ++i) {
      const LinearShape& s = linears[i].named.shape;
      const double flops = 2.0 * rows * s.n * s.k;
      times_[i] = timed_plans(linears[i], rows,
                              nodes_for(std::max(s.packed_bytes() / 4.0e6, flops / 1.3e9)));
      best_[i] = times_[i][0].second;
    }
    time_ = time_layer(linears, best_, rows, 3);
    improve();
    for (const TimedPlan& timed : times_[0]) {
      LayerPlans same;
      same.fill(timed.second);
      try_plans(same);
    }
    improve();
  }
  void print(const char* name) const {
    std::printf("%-4s layer %5d  %8.2f us by", name, rows_, time_);
    for (int i = 0; i < kLayer; ++i)
      std::printf(" %s (alone %s %.2f)", plan_name(best_[i]).c_str(),
                  plan_name(times_[i][0].second).c_str(), times_[i][0].first);
    std::printf("\n");
    for (int i = 0; i < kLayer; ++i) {
      print_tuned(linears_[i], rows_, best_[i]);
      std::printf("\n");
    }
  }

 private:
  void try_plans(const LayerPlans& plans) {
    const float time = time_layer(linears_, plans, rows_, 3);
    if (time < time_) time_ = time, best_ = plans;
  }
  void improve() {
    for (int i = 0; i < kLayer; ++i)
      for (const TimedPlan& timed : times_[i]) {
        const float most = rows_ >= 1024 ? 1.06f : 1.3f;
        if (timed.first > most * times_[i][0].first) break;
        LayerPlans plans = best_;
        plans[i] = timed.second;
        try_plans(plans);
      }
  }

  const std::vector<Linear>& linears_;
  int rows_;
  std::vector<TimedPlan> times_[kLayer];
  LayerPlans best_;
  float time_ = 0;
};

void release(const std::vector<Linear>& linears) {
  for (const Linear& l : linears) {
    for (const auto& w : l.weights) cudaFree(const_cast<uint8_t*>(w.slots));
    for (const LibraryData& d : l.library) {
      for (void* w : d.weights) cudaFree(w);
      cudaFree(d.x);
    }
    cudaFree(l.x);
  }
}

bool is_number(const std::string& word) {
  return word.find_first_not_of("0123456789") == std::string::npos;
}

}  // namespace
}  // namespace atom::bench

int main(int count, char** words) {
  using namespace atom::bench;
  const auto has = [&](const char* word) {
    for (int i = 1; i < count; ++i)
      if (std::strcmp(words[i], word) == 0) return true;
    return false;
  };
  bool any_rows = true;
  for (int i = 1; i < count; ++i) any_rows = any_rows && !is_number(words[i]);
  const auto wants = [&](int rows) { return any_rows || has(std::to_string(rows).c_str()); };
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  cudaDeviceProp device;
  ATOM_REQUIRE(cudaGetDeviceProperties(&device, 0));
  multiprocessors = device.multiProcessorCount;
  const bool w4a4 = has("w4a4"), library_too = !has("ours") || has("few") || has("many");
  std::printf("%s, %d multiprocessors; %s, group 128, 128 kept; graphs of dependent launches\n",
              device.name, multiprocessors, w4a4 ? "w4a4" : "w4a8");
  ATOM_REQUIRE(cublasLtCreate(&library.handle));
  library.workspace = device_array<char>(kWorkspace);
  y = device_array<float>(size_t{kMostRows} * 57344);
  y_f16 = device_array<uint16_t>(size_t{kMostRows} * 57344);
  library.y = device_array<int>(size_t{kMostRows} * 57344);
  for (const bool large : {false, true}) {
    if (!has(large ? "70b" : "7b")) continue;
    std::vector<Linear> linears, grouped;
    for (Named named : large ? k70b : k7b) {
      linears.push_back(make_linear(named, library_too));
      named.shape.grouped = true;
      if (w4a4) grouped.push_back(make_linear(named, false));
    }
    ATOM_REQUIRE(cudaDeviceSynchronize());
    if (has("layer"))
      for (const int rows : kLayerRows) {
        if (!wants(rows)) continue;
        if (has("sweep"))
          LayerSearch(w4a4 ? grouped : linears, rows).print(large ? "70B" : "7B");
        else
          layer(linears, grouped, large ? "70B" : "7B", rows, {has("f32"), library_too});
      }
    for (int i = 0; i < kLayer; ++i) {
      const Linear& l = w4a4 ? grouped[i] : linears[i];
      if (has("few"))
        for (const int rows : {8, 16, 32})
          if (wants(rows)) one_linear(l, linears[i], rows, has("sweep"));
      if (has("many"))
        for (const int rows : {64, 128, 256, 1024, 4096})
          if (wants(rows)) one_linear(l, linears[i], rows, has("sweep"));
    }
    release(linears);
    release(grouped);
  }
  return 0;
}
