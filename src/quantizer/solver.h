// The heavy algebra of the quantizer behind a small interface, so that another device can do it.
//
//   auto solver = make_cpu_solver(executor);
//   solver->add_gram(x, rows, k, gram.values.data());       // again and again
//   solver->finish_gram(k, gram.values.data());
//   const Factor factor = damped_factor(*solver, gram, "q_proj");
//   const Rounded r = solver->gptq(problem);
//
// The CPU side cuts work into tiles and row panels of fixed size, each one thread's: results do not
// depend on the thread count.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/executor.h"
#include "quantizer/gptq.h"

namespace atom::quantizer {

class Solver {
 public:
  virtual ~Solver() = default;

  // gram [k, k] += x^T x, x = [rows, k]. Only the upper triangle is defined until finish_gram()
  // mirrors it.
  virtual void add_gram(const float* x, int rows, int k, float* gram) = 0;
  virtual void finish_gram(int k, float* gram) = 0;

  // Upper U [k, k] (the rest 0) with U^T U = (gram + diagonal)^-1; `diagonal` = [k] is added.
  // False: not positive definite.
  virtual bool inverse_factor(const float* gram, int k, const double* diagonal, float* u) = 0;

  virtual Rounded gptq(const RoundingProblem& problem) = 0;

  // a [rows, inner] * b [inner, columns], row-major.
  virtual std::vector<float> product(const float* a, int rows, int inner, const float* b,
                                     int columns) = 0;

  // tr(a gram a^T), a = [n, k]: the squared norm of the outputs that `a` makes of the observed
  // inputs.
  virtual double output_energy(const float* a, int n, int k, const float* gram) = 0;
};

// Single-threaded OpenBLAS on tiles, run by the executor. Sets OpenBLAS of the process to one
// thread.
std::unique_ptr<Solver> make_cpu_solver(Executor& executor);

// Sum of x x^T over the inputs of one linear (GPTQ's Hessian up to a factor).
struct Gram {
  int k = 0;
  int64_t rows = 0;           // tokens seen
  std::vector<float> values;  // [k, k]
};

// What GPTQ needs of a Hessian.
struct Factor {
  std::vector<float> u;       // [k, k]
  std::vector<uint8_t> dead;  // [k], 1: the channel was always 0
  double damping = 0.01;      // of the mean diagonal, as it was needed in the end
  double added = 0;           // that in the diagonal's unit
};

// Adds 1 % of the mean diagonal (dead channels count 1), ten times that when the matrix still is
// not positive definite, and so on. Error naming the module: observed inputs that are not finite.
Factor damped_factor(Solver& solver, const Gram& gram, std::string_view module);

}  // namespace atom::quantizer
