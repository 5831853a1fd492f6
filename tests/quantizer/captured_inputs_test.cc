// Inputs of the shipped model's linears, as a text makes them, quantize to the codes and scales of `reference` on every
// backend, and linears of them to its sums: real rows have outliers and repeats that random ones lack.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "backend/backends_under_test.h"
#include "backend/linear_run.h"
#include "base/file.h"
#include "format/list.h"
#include "quantizer/calibrate.h"
#include "testing/compare.h"
#include "text/tokenizer.h"

namespace atom::quantizer {
namespace {

using backend::Candidate;
using backend::Input;

constexpr int kRows = 48;

struct Captured {
  std::string name;
  int k = 0;
  std::vector<float> rows;  // [kRows, k]
};

// Of every site of every layer of models/ref-dense-11m.
const std::vector<Captured>& captured_inputs() {
  static const std::vector<Captured> all = [] {
    const auto folder = std::filesystem::path(ATOM_SOURCE_DIR) / "models" / "ref-dense-11m";
    const checkpoint::ModelFiles files = checkpoint::ModelFiles::open(folder);
    const model::ModelConfig config = model::parse_config(files.config(), "config.json");
    const text::Tokenizer tokenizer = text::Tokenizer::from_file(*files.tokenizer_path());
    std::vector<int32_t> ids = tokenizer.encode(
        read_file(std::filesystem::path(ATOM_SOURCE_DIR) / "examples/text/wiki_eval.txt")
            .substr(0, 2000));
    ids.resize(kRows);
    const auto cpu = backend::make_cpu_backend({.executor = &backend::three_threads()});
    ObservingBackend observing(*cpu);
    Windows windows(config, observing, {.ids = ids, .samples = 1, .sequence = kRows});
    windows.embed(files);
    model::Scheme plain;
    plain.kv.assign(static_cast<size_t>(config.layers), format::KvKind::kF32);
    std::vector<Captured> result;
    for (int i = 0; i < config.layers; ++i) {
      const auto layer = model::bind_layer(observing, model::read_layer(files, config, plain, i));
      observing.observe(*layer, [&](const ObservedInput& input) {
        const auto count = static_cast<size_t>(input.rows) * static_cast<size_t>(input.k);
        result.push_back({fmt::format("layer {} site {}", i, static_cast<int>(input.site)),
                          input.k,
                          {input.x, input.x + count}});
      });
      windows.run(*layer, format::KvKind::kF32, Windows::After::kAdvance);
      observing.stop();
    }
    return result;
  }();
  return all;
}

struct Kind {
  backend::Formats formats;
  int kept;
  bool signed_scales;
  int hadamard;
};
std::vector<Kind> kinds() {
  const format::Format group = format::int4(128);
  const backend::Formats w4a4 = {group, group, format::kInt8, format::kInt8};
  const backend::Formats w4a8 = {format::int4_progressive(128), format::kInt8, format::kInt8,
                                 format::kInt8};
  return {{w4a4, 128, true, 128},
          {w4a4, 32, false, 0},
          {w4a8, 128, false, 128},
          {{format::kInt8, format::kInt8, format::kInt8, format::kInt8}, 0, false, 0}};
}

class CapturedInputs : public backend::BackendTest {
 protected:
  struct Run {
    Input::Codes codes;
    std::vector<float> y;
  };
  Run run(backend::Backend& on, const Captured& captured, const Kind& kind,
          const backend::HostWeight& w, const format::Segments& segments) {
    std::vector<int32_t> order(static_cast<size_t>(captured.k));
    std::iota(order.rbegin(), order.rend(), 0);
    Input input(on, segments, kRows, order, kind.signed_scales ? 1.0f : 0.9f);
    input.set_signed_scales(kind.signed_scales);
    input.set_hadamard(kind.hadamard);
    input.quantize(captured.rows);
    const auto packed = on.pack(backend::parts_of(w), segments);
    const backend::Guarded y(on, static_cast<size_t>(kRows) * static_cast<size_t>(w.n) * 4);
    const backend::PackedLinear* weights[] = {packed.get()};
    on.linear({.x = input.activation(), .weights = weights, .y = y.as<float>()});
    return {input.codes(), y.values<float>()};
  }
};

TEST_P(CapturedInputs, HaveTheReferencesCodesAndSums) {
  for (const Captured& captured : captured_inputs())
    for (const Kind& kind : kinds()) {
      const backend::Case c{.formats = kind.formats,
                            .m = kRows,
                            .n = 96,
                            .k = captured.k,
                            .kept = kind.kept,
                            .has_bias = false,
                            .then = backend::Then::kStore,
                            .data = backend::Data::kNormal};
      SCOPED_TRACE(captured.name + ", " + c.label());
      Random random(7);
      const backend::HostWeight w =
          backend::make_weight(random, {c.n, c.weight(), c.has_bias, c.data});
      const Run expected = run(*reference, captured, kind, w, c.input());
      const Run got = run(*backend, captured, kind, w, c.input());
      ASSERT_EQ(expected.codes.codes, got.codes.codes);
      ASSERT_EQ(expected.codes.scales, got.codes.scales);
      // Equal codes: sums of groups are equal integers, and at most one rounding for each group and product of
      // scales is left, of partial sums whose magnitudes a row's largest result times the groups bounds.
      double largest = 0;
      for (const float v : expected.y) largest = std::max(largest, std::abs(double{v}));
      const double groups = captured.k / 128 + 2;
      const std::vector<double> bounds(expected.y.size(), 2 * groups * groups * 0x1p-24 * largest);
      EXPECT_TRUE(atom::testing::all_within(expected.y, got.y, bounds));
    }
}

INSTANTIATE_TEST_SUITE_P(All, CapturedInputs, ::testing::ValuesIn(backend::candidates()),
                         backend::candidate_name);

}  // namespace
}  // namespace atom::quantizer
