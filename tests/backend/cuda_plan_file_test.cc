// Measured plans: what a file may say, and which entry serves a linear. No device is needed.
#include "backend/cuda/plan_file.h"

#include <gtest/gtest.h>

#include <functional>

#include "backend/cuda/hopper_tuned.h"
#include "base/error.h"
#include "base/json.h"
#include "base/random.h"
#include "testing/expect_error.h"

namespace atom::backend::cuda {
namespace {

using hopper::Kernels;
using hopper::MeasuredPlan;
using hopper::Plan;

constexpr const char* kSource = "tuned.json";

MeasuredPlan entry(Kernels kernels, int n, int k, int rows, const Plan& plan) {
  return {.size = {kernels, n, k}, .rows = rows, .plan = plan, .microseconds = 9.5};
}

const Plan kFew16 = {.rows = 16, .blocks = 2, .groups = 1, .cluster = 2, .many = false};
const Plan kMany64 = {.rows = 64, .blocks = 2, .groups = 1, .cluster = 1, .many = true};

PlanFile good_file() {
  return {.device = "A device \"x\"",
          .multiprocessors = 132,
          .toolkit = "13.0",
          .driver = "13.1",
          .atom = "0.1.0",
          .plans = {entry(Kernels::kW4A8, 4096, 4096, 16, kFew16),
                    entry(Kernels::kW8A8, 4096, 4096, 16, kFew16),
                    entry(Kernels::kW4A4, 4096, 4096, 300, kMany64),
                    entry(Kernels::kF16, 32000, 4096, 64, kMany64),
                    entry(Kernels::kW4A16, 1, 1, 1 << 20, kMany64)}};
}

void expect_same(const Plan& a, const Plan& b) {
  EXPECT_EQ(plan_name(a), plan_name(b));
  EXPECT_EQ(a.many, b.many);
}

TEST(PlanFile, ComesBackAsItWas) {
  const PlanFile wrote = good_file();
  const std::string text = plan_file_text(wrote);
  const PlanFile read = parse_plan_file(text, kSource);
  EXPECT_EQ(read.device, wrote.device);
  EXPECT_EQ(read.multiprocessors, wrote.multiprocessors);
  EXPECT_EQ(read.toolkit, wrote.toolkit);
  EXPECT_EQ(read.driver, wrote.driver);
  EXPECT_EQ(read.atom, wrote.atom);
  ASSERT_EQ(read.plans.size(), wrote.plans.size());
  for (size_t i = 0; i < read.plans.size(); ++i) {
    EXPECT_EQ(read.plans[i].size.kernels, wrote.plans[i].size.kernels);
    EXPECT_EQ(read.plans[i].size.n, wrote.plans[i].size.n);
    EXPECT_EQ(read.plans[i].size.k, wrote.plans[i].size.k);
    EXPECT_EQ(read.plans[i].rows, wrote.plans[i].rows);
    EXPECT_EQ(read.plans[i].microseconds, wrote.plans[i].microseconds);
    expect_same(read.plans[i].plan, wrote.plans[i].plan);
  }
  EXPECT_EQ(plan_file_text(read), text);
  PlanFile empty = wrote;
  empty.plans.clear();
  EXPECT_TRUE(parse_plan_file(plan_file_text(empty), kSource).plans.empty());
}

struct Rule {
  const char* name;
  std::function<void(Json&)> breaks;
  const char* message;  // a part of it
};
void PrintTo(const Rule& rule, std::ostream* out) { *out << rule.name; }

std::function<void(Json&)> set(std::string key, const char* value) {
  return [key, value](Json& json) { json[key] = parse_json(value); };
}
std::function<void(Json&)> set_plan(std::string key, const char* value) {
  return [key, value](Json& json) { json["plans"][1][key] = parse_json(value); };
}

class BadPlanFile : public ::testing::TestWithParam<Rule> {};

TEST_P(BadPlanFile, IsRefused) {
  Json json = parse_json(plan_file_text(good_file()));
  GetParam().breaks(json);
  testing::expect_error([&] { parse_plan_file(json.dump(), kSource); },
                        {kSource, GetParam().message});
}

const Rule kRules[] = {
    {"NoObject", [](Json& j) { j = Json::array(); }, "must be a JSON object"},
    {"NoVersion", [](Json& j) { j.erase("atom_plans"); }, "\"atom_plans\" is missing"},
    {"OtherVersion", set("atom_plans", "2"), "\"atom_plans\" must be in [1, 1], but is 2"},
    {"VersionFirst", [](Json& j) { j["atom_plans"] = 2, j["new"] = 1; }, "but is 2"},
    {"UnknownField", set("speed", "1"), "unknown field \"speed\""},
    {"NoDevice", [](Json& j) { j.erase("device"); }, "\"device\" is missing"},
    {"DeviceNumber", set("device", "7"), "\"device\" must be a string, but is 7"},
    {"Multiprocessors", set("multiprocessors", "0"), "\"multiprocessors\" must be in [1, "},
    {"Toolkit", set("toolkit", "13"), "\"toolkit\" must be a string, but is 13"},
    {"NoPlans", [](Json& j) { j.erase("plans"); }, "\"plans\" must be an array"},
    {"PlansObject", set("plans", "{}"), "\"plans\" must be an array"},
    {"PlanNumber", set("plans", "[3]"), "plans[0]: must be a JSON object"},
    {"PlanField", set_plan("tiles", "1"), "plans[1]: unknown field \"tiles\""},
    {"Kernels", set_plan("kernels", R"("w2a2")"), "w4a16, but is \"w2a2\""},
    {"NoSize", [](Json& j) { j["plans"][1].erase("n"); }, "plans[1]: the field \"n\" is missing"},
    {"SizeZero", set_plan("n", "0"), "\"n\" must be in [1, 16777216], but is 0"},
    {"SizeHuge", set_plan("k", "18446744073709551615"), "\"k\" must be in [1, "},
    {"SizeFraction", set_plan("k", "1.5"), "\"k\" must be an integer, but is 1.5"},
    {"Rows", set_plan("rows", "-1"), "\"rows\" must be in [1, 1048576], but is -1"},
    {"Kind", set_plan("kind", R"("some")"), "\"kind\" must be few or many, but is \"some\""},
    {"Tile", set_plan("tile", "4294967312"), "\"tile\" must be in [1, 1024]"},
    {"Time", set_plan("us", "-1"), "\"us\" must be in [0, "},
    {"NoKernel", set_plan("groups", "5"), "must be a kernel of w8a8, but are few 16x2x5 x2"},
    {"NoCluster", set_plan("cluster", "4"), "must be a kernel of w8a8, but are few 16x2x1 x4"},
    {"Twice", [](Json& j) { j["plans"][1] = j["plans"][0]; }, "plans[1]: an entry before it has"},
    {"TooMany",
     [](Json& j) {
       for (int i = 0; i < 1 << 14; ++i) j["plans"].push_back(1);
     },
     "\"plans\" may have 16384 entries, but has 16389"},
};
INSTANTIATE_TEST_SUITE_P(Rules, BadPlanFile, ::testing::ValuesIn(kRules),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(PlanFile, OfAnotherDeviceIsRefused) {
  const PlanFile file = good_file();
  EXPECT_NO_THROW(require_device(file, kSource, file.device, 132));
  testing::expect_error([&] { require_device(file, kSource, "NVIDIA H200", 132); },
                        {kSource, "\"device\"", "NVIDIA H200", "A device"});
  testing::expect_error([&] { require_device(file, kSource, file.device, 114); },
                        {kSource, "\"multiprocessors\"", "114", "132"});
}

// Whatever a file says is refused in one sentence, or names kernels that exist.
TEST(PlanFile, SurvivesDamage) {
  const std::string whole = plan_file_text(good_file());
  constexpr char kBytes[] = "{}[]\",:0123456789-.e\\u\xff\n ";  // and the NUL at its end
  Random random(5);
  int refused = 0, accepted = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string text = whole;
    for (uint64_t damages = 1 + random.below(3); damages > 0; --damages) {
      const size_t at = random.below(text.size());
      const char byte = kBytes[random.below(sizeof kBytes)];
      switch (random.below(4)) {
        case 0:
          text[at] = byte;
          break;
        case 1:
          text.insert(at, 1, byte);
          break;
        case 2:
          text.erase(at, 1 + random.below(8));
          break;
        default:
          if (random.below(8) == 0) text.resize(at + 1);
      }
    }
    try {
      for (const MeasuredPlan& p : parse_plan_file(text, kSource).plans) {
        EXPECT_TRUE(has_kernel(p.size.kernels, p.plan)) << text;
        EXPECT_GT(p.size.n, 0);
        EXPECT_GT(p.rows, 0);
      }
      ++accepted;
    } catch (const Error& error) {
      EXPECT_EQ(std::string_view(error.what()).find(kSource), 0u) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
  EXPECT_GT(accepted, 100);  // blanks, other numbers
}

hopper::Weight weight_of_size(int n, int k, bool grouped = false) {
  hopper::Weight w;
  w.n = n;
  w.slots4 = (k - 128) / 128;
  w.slots8 = 2;
  w.grouped = grouped ? 1 : 0;
  return w;
}

constexpr int kTunedDevice = hopper::kTunedMultiprocessors, kOtherDevice = 78;

std::string chosen(int rows, const hopper::Weight& w, std::span<const MeasuredPlan> measured,
                   int multiprocessors) {
  return plan_name(plan(rows, w, false, {multiprocessors, measured}));
}

TEST(MeasuredPlans, WinOverTheBuiltInOnesUnlessTheseAreNearer) {
  const std::vector<MeasuredPlan> measured = {entry(Kernels::kW4A8, 4096, 4096, 16, kFew16)};
  const auto built_in = [](int rows, int n, int k) {
    return plan_name(hopper::plan(rows, weight_of_size(n, k), false, kTunedDevice));
  };
  ASSERT_NE(built_in(16, 4096, 4096), plan_name(kFew16));
  for (const int rows : {9, 16})
    EXPECT_EQ(chosen(rows, weight_of_size(4096, 4096), measured, kTunedDevice), plan_name(kFew16));
  EXPECT_EQ(chosen(16, weight_of_size(4160, 4224), measured, kTunedDevice), plan_name(kFew16));
  // Another class of rows, a shape that the built-in table has, other kernels.
  for (const int rows : {8, 17})
    EXPECT_EQ(chosen(rows, weight_of_size(4096, 4096), measured, kTunedDevice),
              built_in(rows, 4096, 4096));
  EXPECT_EQ(chosen(16, weight_of_size(12288, 4096), measured, kTunedDevice),
            built_in(16, 12288, 4096));
  const hopper::Weight grouped = weight_of_size(4096, 4096, true);
  EXPECT_EQ(chosen(16, grouped, measured, kTunedDevice),
            plan_name(hopper::plan(16, grouped, false, kTunedDevice)));
}

TEST(MeasuredPlans, WinOverTheCostModel) {
  const std::vector<MeasuredPlan> measured = {entry(Kernels::kW4A8, 4096, 4096, 16, kFew16)};
  // However far away: nothing else was measured.
  for (const int n : {4096, 64, 100000})
    EXPECT_EQ(chosen(16, weight_of_size(n, 4096), measured, kOtherDevice), plan_name(kFew16));
  EXPECT_EQ(chosen(32, weight_of_size(4096, 4096), measured, kOtherDevice),
            chosen(32, weight_of_size(4096, 4096), {}, kOtherDevice));
}

TEST(MeasuredPlans, TheNearestServes) {
  using hopper::find_nearest;
  const Plan other = {.rows = 16, .blocks = 1, .groups = 6, .cluster = 1, .many = false};
  const Plan third = {.rows = 16, .blocks = 1, .groups = 3, .cluster = 1, .many = false};
  const std::vector<MeasuredPlan> measured = {
      entry(Kernels::kW4A8, 4096, 4096, 12, kFew16), entry(Kernels::kW4A8, 4096, 4096, 10, third),
      entry(Kernels::kW4A8, 8192, 8192, 16, other), entry(Kernels::kW8A8, 5000, 5000, 16, third)};
  const auto nearest = [&](int n, int k, int rows) {
    return find_nearest(measured, {Kernels::kW4A8, n, k}, rows);
  };
  expect_same(*nearest(5000, 5000, 12).plan, kFew16);
  expect_same(*nearest(4096, 4096, 10).plan, third);   // as many rows
  expect_same(*nearest(4096, 4096, 11).plan, kFew16);  // the least not below
  expect_same(*nearest(4096, 4096, 15).plan, kFew16);  // the most
  expect_same(*nearest(8192, 8000, 12).plan, other);
  // sqrt(4096 * 8192) = 5793: nearer to 8192 from there on, as ratios go.
  expect_same(*nearest(5700, 5700, 12).plan, kFew16);
  expect_same(*nearest(5900, 5900, 12).plan, other);
  EXPECT_EQ(nearest(4096, 4096, 12).distance, 0);
  EXPECT_EQ(nearest(4096, 4096, 8).plan, nullptr);
  EXPECT_EQ(find_nearest(measured, {Kernels::kF16, 1, 1}, 16).plan, nullptr);
}

TEST(MeasuredPlans, ThatDoNotSuitAWeightAreNotTaken) {
  Plan wide = kMany64;
  wide.rows = 256;
  const std::vector<MeasuredPlan> measured = {entry(Kernels::kW4A8, 4096, 4096, 4096, wide),
                                              entry(Kernels::kW4A8, 4096, 4096, 16, kFew16)};
  for (const int n : {4097, 4100}) {  // boxes of results in f16 need n % 8 == 0
    hopper::Weight odd = weight_of_size(n, 4096);
    EXPECT_EQ(plan(4096, odd, false, {kOtherDevice, measured}).rows, 128) << n;
  }
  hopper::Weight small = weight_of_size(4096, 4096);
  small.slots4 = 1, small.slots8 = 0;
  EXPECT_EQ(plan(16, small, false, {kOtherDevice, measured}).cluster, 1);
}

TEST(MeasuredPlans, OfLinearsWithFloatingPointInputs) {
  hopper::HalfWeight w;
  w.n = 32000, w.k = 4096;
  const Plan given = {.rows = 16, .blocks = 2, .groups = 1, .cluster = 4, .many = false};
  const std::vector<MeasuredPlan> measured = {entry(Kernels::kF16, 32000, 4096, 16, given)};
  for (const int device : {kTunedDevice, kOtherDevice}) {
    expect_same(half_plan(16, w, false, {device, measured}), given);
    expect_same(half_plan(32, w, false, {device, measured}), half_plan(32, w, false, device));
    w.kind = hopper::HalfKind::kInt4;
    expect_same(half_plan(16, w, false, {device, measured}), half_plan(16, w, false, device));
    w.kind = hopper::HalfKind::kF16;
  }
  w.k = 256;  // two slots, a cluster of four
  EXPECT_LE(half_plan(16, w, false, {kOtherDevice, measured}).cluster, 2);
}

TEST(MeasuredPlans, InOrderNeverCutK) {
  const std::vector<MeasuredPlan> measured = {
      entry(Kernels::kW4A4, 4096, 4096, 16,
            {.rows = 16, .blocks = 1, .groups = 6, .cluster = 2, .many = false}),
      entry(Kernels::kW4A8, 4096, 4096, 16, kFew16)};
  const Plan grouped =
      plan_in_order(16, weight_of_size(4096, 4096, true), false, {kTunedDevice, measured});
  EXPECT_EQ(grouped.groups * grouped.cluster, 1);
  expect_same(plan_in_order(16, weight_of_size(4096, 4096), false, {kTunedDevice, measured}),
              kFew16);
}

TEST(MeasuredPlans, AreWorthMeasuringWhereTheyCanBeTaken) {
  const auto expect = [](int rows, const auto& w, const std::vector<Plan>& plans) {
    EXPECT_GT(plans.size(), w.n % 8 == 0 ? 1u : 0u) << rows;
    for (const Plan& p : plans) {
      EXPECT_TRUE(has_kernel(size_of(w).kernels, p)) << plan_name(p);
      EXPECT_TRUE(suits(p, w)) << plan_name(p);
    }
  };
  for (const int rows : hopper::kTunedRows) {
    for (const int n : {4096, 4097})
      for (const bool grouped : {false, true}) {
        const hopper::Weight w = weight_of_size(n, 4096, grouped);
        expect(rows, w, plans_to_measure(rows, w));
      }
    for (const auto kind : {hopper::HalfKind::kF16, hopper::HalfKind::kInt4}) {
      hopper::HalfWeight w;
      w.kind = kind, w.n = 4096, w.k = 256;
      expect(rows, w, plans_to_measure(rows, w));
    }
  }
}

TEST(PlanFile, PutsAnEntryInItsPlace) {
  std::vector<MeasuredPlan> plans = good_file().plans;
  const size_t count = plans.size();
  put_plan(plans, entry(Kernels::kW4A4, 4096, 4096, 300, kFew16));
  ASSERT_EQ(plans.size(), count);
  expect_same(plans[2].plan, kFew16);
  put_plan(plans, entry(Kernels::kW4A4, 4096, 4096, 301, kFew16));
  EXPECT_EQ(plans.size(), count + 1);
}

}  // namespace
}  // namespace atom::backend::cuda
