// Small dense algebra of the transforms, in f64: symmetric eigenproblems, functions of matrices, random rotations.
// Matrices are square and row-major.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace atom::quantizer {

struct Eigen {
  std::vector<double> values;   // [n] ascending
  std::vector<double> vectors;  // [n, n], row i belongs to values[i]
};
// Of a symmetric matrix (only its upper triangle is read), by LAPACK's divide and conquer.
Eigen symmetric_eigen(std::span<const double> a, int n);

// V^T diag(values^power) V; values below `floor` count as `floor`.
std::vector<double> symmetric_power(const Eigen& eigen, double power, double floor);

std::vector<double> multiply(std::span<const double> a, std::span<const double> b, int n);
std::vector<double> transpose(std::span<const double> a, int n);

// Uniformly distributed orthogonal matrix: the Q of a Gaussian matrix, signs fixed (Mezzadri 2007).
std::vector<double> random_rotation(int n, uint64_t seed);

}  // namespace atom::quantizer
