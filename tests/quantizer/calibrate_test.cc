#include "quantizer/calibrate.h"

#include <gtest/gtest.h>

#include <map>

#include "backend/open.h"
#include "quantizer/random_checkpoint.h"
#include "testing/temp_folder.h"

namespace atom::quantizer {
namespace {

using atom::testing::random_ids;
using atom::testing::RandomModel;
using atom::testing::TempFolder;
using atom::testing::write_random_checkpoint;

struct Fixture {
  explicit Fixture(const RandomModel& shape) {
    write_random_checkpoint(folder / "in", shape);
    files.emplace(checkpoint::ModelFiles::open(folder / "in"));
    config = model::parse_config(files->config(), "config.json");
    plain.kv.assign(static_cast<size_t>(config.layers), format::KvKind::kF32);
    backend = backend::make_reference_backend();
  }
  std::unique_ptr<model::Layer> layer(backend::Backend& on) const {
    return model::bind_layer(on, model::read_layer(*files, config, plain, 0));
  }

  TempFolder folder;
  std::optional<checkpoint::ModelFiles> files;
  model::ModelConfig config;
  model::Scheme plain;
  std::unique_ptr<backend::Backend> backend;
};

TEST(Windows, AreSeededAndFitATextOfExactlyOneWindow) {
  const Fixture f({});
  const std::vector<int32_t> ids = random_ids(40, f.config.vocabulary);
  const Windows exact(f.config, *f.backend, {.ids = ids, .samples = 3, .sequence = 40});
  EXPECT_EQ(exact.starts(), (std::vector<int32_t>{0, 0, 0}));
  const Windows a(f.config, *f.backend, {.ids = ids, .samples = 50, .sequence = 38, .seed = 1});
  const Windows b(f.config, *f.backend, {.ids = ids, .samples = 50, .sequence = 38, .seed = 1});
  const Windows c(f.config, *f.backend, {.ids = ids, .samples = 50, .sequence = 38, .seed = 2});
  EXPECT_EQ(a.starts(), b.starts());
  EXPECT_NE(a.starts(), c.starts());
  EXPECT_EQ(*std::min_element(a.starts().begin(), a.starts().end()), 0);
  EXPECT_EQ(*std::max_element(a.starts().begin(), a.starts().end()),
            1);  // the last place is never drawn unless it is the only one
  // random.seed(0); [random.randint(0, 5000 - 17 - 1) for _ in range(4)]
  const std::vector<int32_t> many = random_ids(5000, f.config.vocabulary);
  const Windows drawn(f.config, *f.backend, {.ids = many, .samples = 4, .sequence = 17});
  EXPECT_EQ(drawn.starts(), (std::vector<int32_t>{3155, 3445, 331, 2121}));
}

TEST(Windows, StayApartAndAdvanceOnlyWhenTold) {
  const Fixture f({});
  const std::vector<int32_t> ids = random_ids(64, f.config.vocabulary);
  Windows both(f.config, *f.backend, {.ids = ids, .samples = 2, .sequence = 20, .seed = 3});
  both.embed(*f.files);
  const std::vector<float> before(both.hidden().begin(), both.hidden().end());
  const auto layer = f.layer(*f.backend);
  both.run(*layer, format::KvKind::kF32, Windows::After::kDiscard);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), both.hidden().begin()));
  both.run(*layer, format::KvKind::kF32, Windows::After::kAdvance);
  EXPECT_FALSE(std::equal(before.begin(), before.end(), both.hidden().begin()));

  // The second window alone.
  const auto second = std::span(ids).subspan(static_cast<size_t>(both.starts()[1]), 20);
  Windows alone(f.config, *f.backend, {.ids = second, .samples = 1, .sequence = 20});
  alone.embed(*f.files);
  alone.run(*layer, format::KvKind::kF32, Windows::After::kAdvance);
  EXPECT_TRUE(std::equal(alone.hidden().begin(), alone.hidden().end(),
                         both.hidden().begin() + 20 * f.config.hidden));
}

TEST(ObservingBackend, ShowsWhatEachLinearReads) {
  const Fixture f({});
  ObservingBackend observing(*f.backend);
  const std::vector<int32_t> ids = random_ids(30, f.config.vocabulary);
  Windows windows(f.config, observing, {.ids = ids, .samples = 1, .sequence = 30});
  windows.embed(*f.files);
  const auto layer = f.layer(observing);
  std::map<SiteKind, int> rows;
  std::vector<float> qkv;
  observing.observe(*layer, [&](const ObservedInput& input) {
    rows[input.site] += input.rows;
    EXPECT_EQ(input.expert, 0);
    EXPECT_EQ(input.k, input.site == SiteKind::kDown ? f.config.intermediate : f.config.hidden);
    if (input.site == SiteKind::kQkv)
      qkv.insert(qkv.end(), input.x, input.x + input.rows * input.k);
  });
  const std::vector<float> h(windows.hidden().begin(), windows.hidden().end());
  windows.run(*layer, format::KvKind::kF32, Windows::After::kAdvance);
  observing.stop();
  windows.run(*layer, format::KvKind::kF32, Windows::After::kAdvance);  // no longer observed
  for (const SiteKind site : {SiteKind::kQkv, SiteKind::kOut, SiteKind::kFfn, SiteKind::kDown})
    EXPECT_EQ(rows[site], 30);

  // The input of q, k and v is the norm of the hidden states.
  const model::LayerTensors tensors = model::read_layer(*f.files, f.config, f.plain, 0);
  for (int r = 0; r < 30; ++r) {
    double squares = 0;
    for (int c = 0; c < f.config.hidden; ++c)
      squares += double{h[r * f.config.hidden + c]} * h[r * f.config.hidden + c];
    const double factor = 1 / std::sqrt(squares / f.config.hidden + double{f.config.norm_epsilon});
    for (int c = 0; c < f.config.hidden; ++c) {
      const double want =
          h[r * f.config.hidden + c] * factor * tensors.attention_norm[static_cast<size_t>(c)];
      ASSERT_NEAR(qkv[r * f.config.hidden + c], want, 1e-5 * (1 + std::abs(want)));
    }
  }
}

// Energies and grams of experts come from the rows routed to them, and from no others.
TEST(ObservingBackend, GivesExpertsTheirRows) {
  const Fixture f({.experts = 4});
  ObservingBackend observing(*f.backend);
  Executor executor({.threads = 2});
  const auto solver = make_cpu_solver(executor);
  const std::vector<int32_t> ids = random_ids(50, f.config.vocabulary);
  Windows windows(f.config, observing, {.ids = ids, .samples = 1, .sequence = 50});
  windows.embed(*f.files);
  const auto layer = f.layer(observing);

  std::vector<std::vector<float>> ffn(4), down(4);
  std::vector<double> energy(static_cast<size_t>(f.config.hidden));
  Energies energies(f.config, executor);
  Grams grams(f.config, *solver);
  observing.observe(*layer, [&](const ObservedInput& input) {
    energies.add(input);
    grams.add(input);
    const std::vector<float> x(input.x, input.x + input.rows * input.k);
    if (input.site == SiteKind::kDown) down[static_cast<size_t>(input.expert)] = x;
    if (input.site != SiteKind::kFfn) return;
    ffn[static_cast<size_t>(input.expert)] = x;
    for (size_t i = 0; i < x.size(); ++i) energy[i % energy.size()] += double{x[i]} * x[i];
  });
  windows.run(*layer, format::KvKind::kF32, Windows::After::kAdvance);
  grams.finish();

  size_t routed = 0;
  for (size_t e = 0; e < 4; ++e) {
    const size_t rows = ffn[e].size() / static_cast<size_t>(f.config.hidden);
    EXPECT_EQ(down[e].size() / static_cast<size_t>(f.config.intermediate), rows);
    EXPECT_EQ(grams.of(SiteKind::kFfn, static_cast<int>(e)).rows, static_cast<int64_t>(rows));
    EXPECT_EQ(grams.of(SiteKind::kDown, static_cast<int>(e)).rows, static_cast<int64_t>(rows));
    routed += rows;
  }
  EXPECT_EQ(routed, 50u * 2u);  // each token goes to two experts
  EXPECT_EQ(energies.orders(0).ffn, energy_order(energy));

  // What an expert multiplies agrees with what its down_proj then reads: silu(gate x) * (up x), row
  // by row.
  const model::LayerTensors tensors = model::read_layer(*f.files, f.config, f.plain, 0);
  for (size_t e = 0; e < 4; ++e) {
    const std::vector<float> gate = model::to_f32(tensors.experts[e].gate),
                             up = model::to_f32(tensors.experts[e].up);
    const int hidden = f.config.hidden, width = f.config.intermediate;
    for (size_t r = 0; r * static_cast<size_t>(hidden) < ffn[e].size(); ++r)
      for (int i = 0; i < width; ++i) {
        double g = 0, u = 0;
        for (int c = 0; c < hidden; ++c) {
          g += double{gate[i * hidden + c]} * ffn[e][r * hidden + c];
          u += double{up[i * hidden + c]} * ffn[e][r * hidden + c];
        }
        const double want = g / (1 + std::exp(-g)) * u;
        ASSERT_NEAR(down[e][r * width + i], want, 1e-4 * (1 + std::abs(want)))
            << e << " " << r << " " << i;
      }
  }
  // And the gram is that of these rows.
  const Gram& gram = grams.of(SiteKind::kDown, 2);
  double want = 0;
  for (size_t r = 0; r * 96 < down[2].size(); ++r)
    want += double{down[2][r * 96 + 5]} * down[2][r * 96 + 7];
  EXPECT_NEAR(gram.values[5 * 96 + 7], want, 1e-4 * (1 + std::abs(want)));
  EXPECT_EQ(gram.values[5 * 96 + 7], gram.values[7 * 96 + 5]);
}

}  // namespace
}  // namespace atom::quantizer
