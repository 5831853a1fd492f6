#include "quantizer/clip.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "format/quantize.h"

namespace atom::quantizer {
namespace {

// Direct: the error of one candidate.
double error_of(const std::vector<float>& x, float scale, const std::vector<float>& importance) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double code = std::clamp(std::nearbyint(double{x[i]} / double{scale}), -8.0, 7.0);
    sum += importance[i] * std::pow(x[i] - double{scale} * code, 2);
  }
  return sum;
}

TEST(SearchedClip, IsTheBestOfItsCandidates) {
  Random random(4);
  for (int trial = 0; trial < 20; ++trial) {
    std::vector<float> x, importance;
    for (int i = 0; i < 128; ++i) {
      x.push_back(static_cast<float>(random.normal()));
      importance.push_back(static_cast<float>(random.uniform() + 0.1));
    }
    const float unclipped = format::absmax(x) / 7.0f;
    const float best = searched_clip(x, unclipped, importance);
    const auto error = [&](float clip) {
      return error_of(x, format::f16_to_f32(format::weight_scale_bits(unclipped * clip)),
                      importance);
    };
    for (int percent = 50; percent <= 100; percent += 5)
      EXPECT_LE(error(best), error(static_cast<float>(percent) / 100.0f) * (1 + 1e-5)) << percent;
  }
  // One outlier that nobody listens to is cut off; one that counts is not.
  std::vector<float> x(128, 0.5f), deaf(128, 1.0f), loud(128, 1.0f);
  for (size_t i = 0; i < x.size(); ++i) x[i] *= static_cast<float>(i % 13) / 12.0f;
  x[7] = 1;
  deaf[7] = 0;
  loud[7] = 1000;
  EXPECT_EQ(searched_clip(x, 1.0f / 7, deaf), 0.5f);
  EXPECT_EQ(searched_clip(x, 1.0f / 7, loud), 1.0f);
}

TEST(SearchedClip, WithBothSignsIsBetterOnAverageAndNeverWorse) {
  Random random(8);
  double one = 0, both = 0;
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<float> x;
    for (int i = 0; i < 128; ++i) x.push_back(static_cast<float>(random.normal()));
    const std::vector<float> ones(x.size(), 1.0f);
    const float unclipped = format::absmax(x) / 7.5f;
    const auto error = [&](float clip) {
      return error_of(x, format::f16_to_f32(format::weight_scale_bits(unclipped * clip)), ones);
    };
    const double a = error(searched_clip(x, unclipped, {})),
                 b = error(searched_clip(x, unclipped, {}, true));
    EXPECT_LE(b, a * (1 + 1e-5));
    one += a;
    both += b;
  }
  EXPECT_LT(both, 0.98 * one);
}

// Direct: every multiplier of either sign.
TEST(SearchedMultiplier, IsTheBestThatFitsTheGroup) {
  Random random(9);
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<float> x, importance;
    for (int i = 0; i < 64; ++i) {
      x.push_back(static_cast<float>(random.normal()));
      importance.push_back(static_cast<float>(random.uniform() + 0.1));
    }
    const float row_scale = format::absmax(x) / 7.0f / static_cast<float>(1 + trial % 15);
    const auto error = [&](int m) {
      return error_of(x, row_scale * static_cast<float>(m), importance);
    };
    const int best = searched_multiplier(x, row_scale, importance, true);
    const int positive = searched_multiplier(x, row_scale, importance, false);
    EXPECT_GT(positive, 0);
    const int spans = 1 + trial % 15;  // the group, without a clip
    for (int m = std::max(1, spans / 2); m <= spans; ++m) {
      EXPECT_LE(error(positive), error(m) * (1 + 1e-5)) << m;
      EXPECT_LE(error(best), std::min(error(m), error(-m)) * (1 + 1e-5)) << m;
    }
  }
  EXPECT_EQ(searched_multiplier(std::vector<float>(32, 0.0f), 1.0f, {}, true), 1);
}

TEST(SearchedClip, IsTheBestOfItsCandidatesForFp4) {
  Random random(5);
  for (const format::Format format : {format::e2m1(32), format::kNvfp4}) {
    for (int trial = 0; trial < 20; ++trial) {
      std::vector<float> x, importance;
      for (int i = 0; i < format.group; ++i) {
        x.push_back(static_cast<float>(random.normal()));
        importance.push_back(static_cast<float>(random.uniform() + 0.1));
      }
      const float global = format == format::kNvfp4 ? 100.0f : 1.0f;
      const auto error = [&](float clip) {
        const float step = format::fp4_scale(format, format::absmax(x), clip, global).step;
        double sum = 0;
        for (size_t i = 0; i < x.size(); ++i) {
          double least = INFINITY;
          for (const int code : format::kE2M1Codes)
            least = std::min(least, std::abs(double{x[i]} - double{step} * code));
          sum += double{importance[i]} * least * least;
        }
        return sum;
      };
      const float best = searched_clip({format, x, global}, importance);
      for (int percent = 50; percent <= 100; percent += 5)
        EXPECT_LE(error(best), error(static_cast<float>(percent) / 100.0f) * (1 + 1e-5)) << percent;
    }
  }
}

TEST(InputSampleTest, ChoosesTheClipByTheOutputsOfAllReaders) {
  Executor executor({.threads = 1});
  const auto solver = make_cpu_solver(executor);
  Random random(6);
  constexpr int kRows = 300, kNormal = 128, kK = 144;
  // Channel 0 is three times as loud as the others; one reader ignores it, one reads nothing else.
  std::vector<float> x;
  for (int i = 0; i < kRows * kK; ++i)
    x.push_back(static_cast<float>(random.normal() * (i % kK == 0 ? 3 : 1)));
  std::vector<float> ignores, reads(kK);
  for (int j = 0; j < kK; ++j) ignores.push_back(j == 0 ? 0.0f : 1.0f);
  reads[0] = 100;
  const model::LinearTensors deaf = model::from_f32("deaf", 1, kK, format::kF32, ignores.data());
  const model::LinearTensors loud = model::from_f32("loud", 1, kK, format::kF32, reads.data());
  InputSample sample;
  sample.add({.site = SiteKind::kQkv, .expert = 0, .x = x.data(), .rows = kRows, .k = kK});
  const format::Segment normal{format::int4(128), kNormal};
  const auto clip = [&](std::vector<const model::LinearTensors*> readers, bool signs = false) {
    const std::vector<std::vector<const model::LinearTensors*>> list = {std::move(readers)};
    return sample.best_clip(SiteKind::kQkv, normal, signs, list, *solver);
  };
  EXPECT_LT(clip({&deaf}), 0.9f);
  EXPECT_EQ(clip({&loud}), 1.0f);
  EXPECT_EQ(clip({&deaf, &loud}), 1.0f);
  // A signed scale has a longer side for the loud channel: nothing of it needs to be cut, and less of the rest is lost.
  EXPECT_LT(clip({&deaf}, true), 0.95f);
  EXPECT_EQ(sample.best_clip(SiteKind::kOut, normal, false, {}, *solver), 0.0f);
}

}  // namespace
}  // namespace atom::quantizer
