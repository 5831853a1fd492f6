#include "quantizer/linear_algebra.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"

// OpenBLAS carries LAPACK; its Fortran symbols need no header of their own. Matrices are column-major there.
// NOLINTBEGIN(readability-identifier-naming): LAPACK's names
extern "C" {
void dsyevd_(const char* jobz, const char* uplo, const int* n, double* a, const int* lda, double* w,
             double* work, const int* lwork, int* iwork, const int* liwork, int* info, size_t,
             size_t);
void dgeqrf_(const int* m, const int* n, double* a, const int* lda, double* tau, double* work,
             const int* lwork, int* info);
void dorgqr_(const int* m, const int* n, const int* k, double* a, const int* lda, const double* tau,
             double* work, const int* lwork, int* info);
}
// NOLINTEND(readability-identifier-naming)

namespace atom::quantizer {

Eigen symmetric_eigen(std::span<const double> a, int n) {
  Eigen out;
  out.values.resize(static_cast<size_t>(n));
  out.vectors.assign(a.begin(), a.end());
  double size = 0;
  int whole = 0, info = 0, query = -1;
  // The upper triangle of rows is the lower one of columns. Vectors come as columns, which are our rows.
  dsyevd_("V", "L", &n, out.vectors.data(), &n, out.values.data(), &size, &query, &whole, &query,
          &info, 1, 1);
  int work_size = static_cast<int>(size);
  std::vector<double> work(static_cast<size_t>(work_size));
  std::vector<int> whole_work(static_cast<size_t>(whole));
  dsyevd_("V", "L", &n, out.vectors.data(), &n, out.values.data(), work.data(), &work_size,
          whole_work.data(), &whole, &info, 1, 1);
  check(info == 0, "a symmetric eigenproblem has a solution");
  return out;
}

std::vector<double> symmetric_power(const Eigen& eigen, double power, double floor) {
  const size_t n = eigen.values.size();
  std::vector<double> scaled = eigen.vectors;
  for (size_t i = 0; i < n; ++i) {
    const double factor = std::pow(std::max(eigen.values[i], floor), power);
    for (size_t j = 0; j < n; ++j) scaled[i * n + j] *= factor;
  }
  std::vector<double> out(n * n);
  const int size = static_cast<int>(n);
  cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, size, size, size, 1.0, eigen.vectors.data(),
              size, scaled.data(), size, 0.0, out.data(), size);
  return out;
}

std::vector<double> multiply(std::span<const double> a, std::span<const double> b, int n) {
  std::vector<double> out(a.size());
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1.0, a.data(), n, b.data(), n,
              0.0, out.data(), n);
  return out;
}

std::vector<double> transpose(std::span<const double> a, int n) {
  std::vector<double> out(a.size());
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j)
      out[static_cast<size_t>(j) * static_cast<size_t>(n) + static_cast<size_t>(i)] =
          a[static_cast<size_t>(i) * static_cast<size_t>(n) + static_cast<size_t>(j)];
  return out;
}

std::vector<double> random_rotation(int n, uint64_t seed) {
  const size_t size = static_cast<size_t>(n);
  Random random(seed);
  std::vector<double> q(size * size), tau(size), signs(size);
  for (double& v : q) v = random.normal();
  double wanted = 0;
  int query = -1, info = 0;
  dgeqrf_(&n, &n, q.data(), &n, tau.data(), &wanted, &query, &info);
  int work_size = std::max(static_cast<int>(wanted), n * 64);
  std::vector<double> work(static_cast<size_t>(work_size));
  dgeqrf_(&n, &n, q.data(), &n, tau.data(), work.data(), &work_size, &info);
  check(info == 0, "a Gaussian matrix has a QR factorization");
  for (size_t i = 0; i < size; ++i) signs[i] = q[i * size + i] < 0 ? -1.0 : 1.0;
  dorgqr_(&n, &n, &n, q.data(), &n, tau.data(), work.data(), &work_size, &info);
  check(info == 0, "reflections multiply to an orthogonal matrix");
  for (size_t i = 0; i < size; ++i)
    for (size_t j = 0; j < size; ++j) q[i * size + j] *= signs[i];
  return q;
}

}  // namespace atom::quantizer
