#include "backend/cuda/plan_file.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "base/error.h"
#include "base/json.h"

namespace atom::backend::cuda {
namespace {

constexpr int kVersion = 1;
constexpr const char* kFew = "few";
constexpr const char* kMany = "many";
constexpr size_t kMostPlans = 1 << 14;
constexpr int64_t kMostSize = 1 << 24, kMostRows = 1 << 20, kMostMultiprocessors = 1 << 12;

// Strings of the file in a message: the console escapes control characters, length is ours to bound.
std::string shown(const std::string& text) { return text.substr(0, 60); }

void require_known(const Json& object, std::string_view source,
                   std::initializer_list<std::string_view> known) {
  if (!object.is_object()) fail("{}: must be a JSON object", source);
  for (const auto& [key, value] : object.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      fail("{}: unknown field \"{}\" (known: {})", source, shown(key),
           fmt::join(known.begin(), known.end(), ", "));
}

auto problem_of(const hopper::MeasuredPlan& p) {
  return std::make_tuple(p.size.kernels, p.size.n, p.size.k, p.rows);
}

hopper::Kernels parse_kernels(const Json& entry, std::string_view source) {
  const std::string word = get_string(entry, "kernels", source);
  const auto* const found =
      std::find(std::begin(hopper::kKernelsNames), std::end(hopper::kKernelsNames), word);
  if (found == std::end(hopper::kKernelsNames))
    fail("{}: the field \"kernels\" must be one of {}, but is \"{}\"", source,
         fmt::join(hopper::kKernelsNames, ", "), shown(word));
  return static_cast<hopper::Kernels>(found - std::begin(hopper::kKernelsNames));
}

hopper::MeasuredPlan parse_plan(const Json& entry, std::string_view source) {
  require_known(entry, source,
                {"kernels", "n", "k", "rows", "kind", "tile", "blocks", "groups", "cluster", "us"});
  const auto whole = [&](std::string_view key, int64_t most) {
    return static_cast<int>(get_int(entry, key, {.source = source, .min = 1, .max = most}));
  };
  hopper::MeasuredPlan out;
  out.size = {parse_kernels(entry, source), whole("n", kMostSize), whole("k", kMostSize)};
  out.rows = whole("rows", kMostRows);
  const std::string kind = get_string(entry, "kind", source);
  if (kind != kFew && kind != kMany)
    fail("{}: the field \"kind\" must be few or many, but is \"{}\"", source, shown(kind));
  constexpr int64_t kMost = 1024;  // far more than any kernel has
  out.plan = {.rows = whole("tile", kMost),
              .blocks = whole("blocks", kMost),
              .groups = whole("groups", kMost),
              .cluster = whole("cluster", kMost),
              .many = kind == kMany};
  out.microseconds = get_number_or(entry, "us", 0, {.source = source, .min = 0, .max = 1e12});
  if (!has_kernel(out.size.kernels, out.plan))
    fail("{}: the fields \"kind\" to \"cluster\" must be a kernel of {}, but are {}", source,
         hopper::kKernelsNames[static_cast<size_t>(out.size.kernels)], plan_name(out.plan));
  return out;
}

Json plan_json(const hopper::MeasuredPlan& p) {
  return {{"kernels", hopper::kKernelsNames[static_cast<size_t>(p.size.kernels)]},
          {"n", p.size.n},
          {"k", p.size.k},
          {"rows", p.rows},
          {"kind", p.plan.many ? kMany : kFew},
          {"tile", p.plan.rows},
          {"blocks", p.plan.blocks},
          {"groups", p.plan.groups},
          {"cluster", p.plan.cluster},
          {"us", p.microseconds}};
}

}  // namespace

PlanFile parse_plan_file(std::string_view text, std::string_view source) {
  const Json json = parse_json(text, {.source = source, .max_depth = 4});
  // First, so that a file of another version is not blamed for its fields.
  get_int(json, "atom_plans", {.source = source, .min = kVersion, .max = kVersion});
  require_known(json, source,
                {"atom_plans", "device", "multiprocessors", "toolkit", "driver", "atom", "plans"});
  PlanFile out;
  out.device = get_string(json, "device", source);
  out.multiprocessors = static_cast<int>(
      get_int(json, "multiprocessors", {.source = source, .min = 1, .max = kMostMultiprocessors}));
  out.toolkit = get_string_or(json, "toolkit", "", source);
  out.driver = get_string_or(json, "driver", "", source);
  out.atom = get_string_or(json, "atom", "", source);
  const auto plans = json.find("plans");
  if (plans == json.end() || !plans->is_array())
    fail("{}: the field \"plans\" must be an array", source);
  if (plans->size() > kMostPlans)
    fail("{}: the field \"plans\" may have {} entries, but has {}", source, kMostPlans,
         plans->size());
  std::set<decltype(problem_of({}))> seen;
  for (const Json& entry : *plans) {
    const std::string name = fmt::format("{}: plans[{}]", source, out.plans.size());
    out.plans.push_back(parse_plan(entry, name));
    if (!seen.insert(problem_of(out.plans.back())).second)
      fail("{}: an entry before it has the same kernels, n, k and rows", name);
  }
  return out;
}

void require_device(const PlanFile& file, std::string_view source, std::string_view device,
                    int multiprocessors) {
  if (file.device != device)
    fail("{}: the field \"device\" must be that of this machine, {}, but is \"{}\"", source, device,
         shown(file.device));
  if (file.multiprocessors != multiprocessors)
    fail("{}: the field \"multiprocessors\" must be that of this device, {}, but is {}", source,
         multiprocessors, file.multiprocessors);
}

std::string plan_file_text(const PlanFile& file) {
  const Json head = {
      {"atom_plans", kVersion},  {"device", file.device}, {"multiprocessors", file.multiprocessors},
      {"toolkit", file.toolkit}, {"driver", file.driver}, {"atom", file.atom}};
  const auto dumped = [](const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  std::string text = dumped(head);
  text.back() = ',';  // a line for each plan
  text += "\n\"plans\": [";
  for (size_t i = 0; i < file.plans.size(); ++i)
    text += (i == 0 ? "\n" : ",\n") + dumped(plan_json(file.plans[i]));
  return text + "\n]}\n";
}

void put_plan(std::vector<hopper::MeasuredPlan>& plans, const hopper::MeasuredPlan& entry) {
  const auto same = std::find_if(plans.begin(), plans.end(), [&](const hopper::MeasuredPlan& p) {
    return problem_of(p) == problem_of(entry);
  });
  if (same == plans.end())
    plans.push_back(entry);
  else
    *same = entry;
}

}  // namespace atom::backend::cuda
