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
  const auto clip = [&](std::vector<const model::LinearTensors*> readers) {
    const std::vector<std::vector<const model::LinearTensors*>> list = {std::move(readers)};
    return sample.best_clip(SiteKind::kQkv, normal, list, *solver);
  };
  EXPECT_LT(clip({&deaf}), 0.9f);
  EXPECT_EQ(clip({&loud}), 1.0f);
  EXPECT_EQ(clip({&deaf, &loud}), 1.0f);
  EXPECT_EQ(sample.best_clip(SiteKind::kOut, normal, {}, *solver), 0.0f);
}

}  // namespace
}  // namespace atom::quantizer
