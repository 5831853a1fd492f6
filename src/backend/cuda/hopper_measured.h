// Plans of linears that were measured, as data that a choice takes into account (plan_file.h reads them from a file), and
// the plans that are worth measuring. Pure functions: no device, no CUDA.
//
//   const MeasuredPlan entry = {.size = {Kernels::kW4A8, 4096, 4096}, .rows = 16, .plan = p};
//   plan(16, weight, false, {.multiprocessors = 132, .measured = {&entry, 1}});
//
// Which entry serves a problem: those of its kernels and of its class of rows (up to 8, 16, 32, 64, 128, 256, 1024, more),
// of these the one whose n and k are nearest (the sum of the logarithms of their ratios), of equals that with the least
// rows not below the problem's, else with the most. It wins over the built-in entry unless that one is nearer by more than
// a tenth of a size; where there is no built-in table, over the cost model.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/cuda/hopper_half_linear.h"
#include "backend/cuda/hopper_linear.h"

namespace atom::backend::cuda::hopper {

// Kernels that share plans. Only kW4A4 and those with floating-point inputs have results that depend on the plan.
enum class Kernels : uint8_t { kW4A8, kW8A8, kW4A4, kF16, kW4A16 };
inline constexpr std::string_view kKernelsNames[] = {"w4a8", "w8a8", "w4a4", "f16", "w4a16"};
inline constexpr int kKernelsCount = 5;

// What a choice knows of a linear.
struct LinearSize {
  Kernels kernels = Kernels::kW4A8;
  int n = 0, k = 0;  // k: of packed inputs, in whole slots where the kernels have integer inputs
};
LinearSize size_of(const Weight& weight);
LinearSize size_of(const HalfWeight& weight);

struct MeasuredPlan {
  LinearSize size;
  int rows = 0;
  Plan plan;
  double microseconds = 0;  // for people
};

// Whether there is such a kernel.
bool has_kernel(Kernels kernels, const Plan& plan);

struct Nearest {
  const Plan* plan = nullptr;  // null: no entry of these kernels and this class of rows
  double distance = 1e30;
};
Nearest find_nearest(std::span<const MeasuredPlan> entries, const LinearSize& size, int rows);
// Of two that are about as near, the one of the file.
const Plan* nearer(const Nearest& of_file, const Nearest& built_in);
double distance(int a, int b);  // the logarithm of the ratio of two sizes, positive
int rows_class(int rows);       // 0 ..

struct PlanSource {
  int multiprocessors = 0;
  std::span<const MeasuredPlan> measured = {};
};
// As in hopper_linear.h and hopper_half_linear.h; those know no measured plans but the built-in ones.
Plan plan(int rows, const Weight& weight, bool by_expert, const PlanSource& source);
Plan plan_in_order(int rows, const Weight& weight, bool by_expert, const PlanSource& source);
Plan half_plan(int rows, const HalfWeight& weight, bool by_expert, const PlanSource& source);

// Whether the kernel of a plan, which exists, computes this weight.
bool suits(const Plan& plan, const Weight& weight);
bool suits(const Plan& plan, const HalfWeight& weight);

// Plans worth measuring, all of which compute the problem: tiles that suit the rows.
std::vector<Plan> plans_to_measure(int rows, const Weight& weight);
std::vector<Plan> plans_to_measure(int rows, const HalfWeight& weight);
std::string plan_name(
    const Plan& plan);  // "few 16x2x4 x1": tile, blocks, groups, cluster; "many 128x1 x2"

}  // namespace atom::backend::cuda::hopper
