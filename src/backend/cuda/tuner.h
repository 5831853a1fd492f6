// The kernels of hopper_linear.h and hopper_half_linear.h as choices to be timed (backend.h: LinearTuner).
#pragma once

#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/plan_file.h"

namespace atom::backend::cuda {

class CudaBackend;
class CudaLinear;

class CudaTuner final : public LinearTuner {
 public:
  explicit CudaTuner(CudaBackend& backend);

  std::vector<std::string> choices(const PackedLinear& weight, int rows) override;
  void linear(const LinearArgs& args, int choice) override;
  void prefer(const PackedLinear& weight, int rows, const std::string& choice) override;
  void keep(const PackedLinear& weight, int rows, int choice, double seconds) override;
  std::string file() const override { return plan_file_text(file_); }

 private:
  std::vector<hopper::Plan> plans(const CudaLinear& weight, int rows) const;
  // As a file has it.
  static hopper::MeasuredPlan entry(const CudaLinear& weight, int rows, const hopper::Plan& plan);

  CudaBackend& backend_;
  PlanFile file_;
};

}  // namespace atom::backend::cuda
