// atom doctor: what this build and this machine offer.
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>

#include "backend/open.h"
#include "base/affinity.h"
#include "base/file.h"
#include "console.h"
#include "machine.h"
#include "model/config.h"
#include "session.h"
#include "verbs.h"

namespace atom::app::doctor {
namespace {

struct Options {
  CommonOptions common;
};

struct Level {
  std::string name;
  std::string problem;  // why it cannot be used; empty: it can
};

std::vector<Level> isa_levels(Executor& executor) {
  std::vector<Level> levels;
  for (const char* name : {"baseline", "avx2", "avx512-vnni"}) {
    Level level = {.name = name, .problem = ""};
    try {
      backend::open_backend("cpu", {.executor = &executor, .isa = name});
    } catch (const Error& error) {
      level.problem = error.what();
    }
    levels.push_back(std::move(level));
  }
  return levels;
}

// The GPU, or why there is none.
struct Cuda {
  std::string device;
  std::string problem;  // empty: it can be used
};

Cuda find_cuda(Executor& executor, const CommonOptions& options) {
  try {
    const BackendChoice choice = {
        .name = "cuda", .isa = "", .cuda_plugin = options.cuda_plugin, .tuned = options.tuned};
    return {.device = open_backend(choice, executor)->description(), .problem = ""};
  } catch (const Error& error) {
    return {.device = "", .problem = error.what()};
  }
}

struct Pair {
  const char* preset;
  format::Format weight, input;
  int kept;
};

const Pair kPairs[] = {{"w16a16", format::kF16, format::kF32, 0},
                       {"w16a16", format::kBF16, format::kF32, 0},
                       {"w8a8", format::kInt8, format::kInt8, 0},
                       {"w4a16", format::int4(128), format::kF32, 0},
                       {"w4a8", format::int4_progressive(128), format::kInt8, 128},
                       {"w4a4", format::int4(128), format::int4(128), 128},
                       {"w4a4 --group row", format::int4(0), format::int4(0), 128},
                       {"fp4", format::e2m1(128), format::e2m1(128), 128},
                       {"mxfp4", format::kMxfp4, format::kMxfp4, 128},
                       {"nvfp4", format::kNvfp4, format::kNvfp4, 128}};

// Runs one small linear and tells how the backend computed it.
std::string served_by(Executor& executor, const CommonOptions& options, const Pair& pair) {
  constexpr int kInputs = 512, kOutputs = 32;
  const format::Format kept = pair.kept > 0 ? format::kInt8 : format::Format{};
  const int normal = kInputs - pair.kept;
  const format::Segments weights = {{{{pair.weight, normal}, {kept, pair.kept}}}};
  const format::Segments inputs = {{{{pair.input, normal}, {kept, pair.kept}}}};
  const auto backend = open_backend(backend_choice(options), executor);
  std::vector<std::byte> memory[4];
  const std::vector<int8_t> multipliers(kOutputs * kInputs, 1);
  const float global = 1;
  backend::LinearWeight weight = {.n = kOutputs, .segments = weights};
  for (int i = 0; i < 2; ++i) {
    const format::Segment& segment = weights.at[i];
    if (segment.size == 0) continue;
    memory[2 * i].resize(kOutputs * format::row_bytes(segment.format, segment.size));
    memory[2 * i + 1].resize(static_cast<size_t>(kOutputs) *
                             format::weight_scales(segment.format, segment.size) *
                             format::weight_scale_bytes(segment.format));
    weight.part[i] = {memory[2 * i].data(), memory[2 * i + 1].data(), multipliers.data(), &global};
  }
  try {
    const auto packed = backend->pack({&weight, 1}, inputs);
    const backend::InputSpec spec = {.segments = inputs};
    const backend::Buffer x = backend->allocate(sizeof(float) * kInputs);
    const backend::Buffer y = backend->allocate(sizeof(float) * kOutputs);
    const backend::Buffer activation = backend->allocate(backend->activation_bytes(spec, 1));
    const std::vector<float> ones(kInputs, 1.0f);
    backend->upload(x.data(), ones.data(), sizeof(float) * kInputs);
    const backend::Activation input = {activation.data(), &spec, 1};
    backend->quantize({.x = x.as<float>(), .y = input});
    const backend::PackedLinear* linear = packed.get();
    backend->linear({.x = input, .weights = {&linear, 1}, .y = y.as<float>()});
  } catch (const Error& error) {
    return error.what();
  }
  const std::vector<std::string> fallbacks = backend->fallbacks();
  if (!fallbacks.empty()) return fallbacks.front();
  if (!format::is_integer(pair.input)) return "floating-point products of widened weights";
  return format::is_progressive(pair.weight) ? "integer products, sums in s32 per segment"
                                             : "integer products, sums in s32 per group";
}

struct Cache {
  format::KvKind kind;
  bool open_page;
};

const Cache kCaches[] = {{format::KvKind::kF32, false},  {format::KvKind::kF16, false},
                         {format::KvKind::kInt8, false}, {format::KvKind::kInt8Int4, true},
                         {format::KvKind::kInt4, false}, {format::KvKind::kInt4, true}};

std::string word(const Cache& cache) {
  return std::string(format::name(cache.kind)) + (cache.open_page ? ", open page int8" : "");
}

// Runs attention of one small decoding step and tells how the backend computed it.
std::string attended_by(Executor& executor, const CommonOptions& options, const Cache& cache) {
  constexpr int kDim = 128;
  const format::KvLayout layout = {
      .kind = cache.kind, .kv_heads = 1, .head_dim = kDim, .open_page = cache.open_page};
  const auto backend = open_backend(backend_choice(options), executor);
  const backend::InputSpec spec = {.segments = format::whole(format::kF32, kDim)};
  const auto ones = [&](size_t count) {
    const std::vector<float> values(count, 1.0f);
    backend::Buffer buffer = backend->allocate(count * sizeof(float));
    backend->upload(buffer.data(), values.data(), count * sizeof(float));
    return buffer;
  };
  try {
    const backend::Buffer qkv = ones(3 * kDim), angles = ones(kDim / 2);
    const backend::Buffer pages = backend->allocate(static_cast<size_t>(layout.page_bytes()));
    const backend::Buffer open =
        backend->allocate(static_cast<size_t>(layout.of_open_page().page_bytes()));
    const backend::Buffer y = backend->allocate(backend->activation_bytes(spec, 1));
    const int32_t page_table[] = {0};
    const backend::SequenceStep step = {.row_end = 1, .page_table = page_table};
    backend->attention({.qkv = qkv.as<float>(),
                        .rows = 1,
                        .heads = 1,
                        .layout = layout,
                        .pages = pages.data(),
                        .rope_cos = angles.as<float>(),
                        .rope_sin = angles.as<float>(),
                        .open_pages = open.data(),
                        .sequences = {&step, 1},
                        .y = {y.data(), &spec, 1}});
    backend->synchronize();
  } catch (const Error& error) {
    return error.what();
  }
  const std::vector<std::string> fallbacks = backend->fallbacks();
  return fallbacks.empty() ? "the backend's own kernel" : fallbacks.front();
}

std::string word(const Pair& pair, format::Format normal) {
  return pair.kept == 0 ? format::name(normal)
                        : fmt::format("{} + {} int8", format::name(normal), pair.kept);
}

struct Machine {
  std::string cpu, system, huge_pages, memory_limit;
  int cpus_online = 0, cpus_allowed = 0;
  std::optional<int> quota;
  int64_t memory_total = 0, memory_available = 0;
};

Machine read_machine() {
  Machine machine;
  machine.cpu = kernel_field(kernel_text("/proc/cpuinfo"), "model name");
  utsname name = {};
  if (::uname(&name) == 0)
    machine.system = fmt::format("{} {} {}", name.sysname, name.release, name.machine);
  machine.huge_pages = first_line(kernel_text("/sys/kernel/mm/transparent_hugepage/enabled"));
  machine.memory_limit = first_line(kernel_text("/sys/fs/cgroup/memory.max"));
  machine.cpus_online = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  machine.cpus_allowed = static_cast<int>(allowed_cpus().size());
  machine.quota = cgroup_cpu_quota("/sys/fs/cgroup", kernel_text("/proc/self/cgroup"));
  const std::string memory = kernel_text("/proc/meminfo");
  machine.memory_total = kib_field(memory, "MemTotal");
  machine.memory_available = kib_field(memory, "MemAvailable");
  return machine;
}

std::string build_text() {
#ifdef __clang__
  std::string text = "Clang " __clang_version__;
#else
  std::string text = "GCC " __VERSION__;
#endif
#ifndef NDEBUG
  text += ", with assertions";
#endif
  return text;
}

std::vector<Fact> machine_facts(const Machine& machine, int threads) {
  std::string limit = machine.memory_limit;
  if (limit.empty() || limit == "max")
    limit = "no limit set";
  else
    limit = "limit " + human_bytes(std::strtoll(limit.c_str(), nullptr, 10));
  return {{"CPU", machine.cpu.empty() ? "unknown" : machine.cpu},
          {"threads", fmt::format("{} (online {}, allowed {}, cgroup quota {})", threads,
                                  machine.cpus_online, machine.cpus_allowed,
                                  machine.quota ? std::to_string(*machine.quota) : "none")},
          {"memory", fmt::format("{}, {} available, {}", human_bytes(machine.memory_total),
                                 human_bytes(machine.memory_available), limit)},
          {"huge pages", machine.huge_pages.empty() ? "unknown" : machine.huge_pages},
          {"system", machine.system}};
}

void print_doctor(const Options& options, Runtime& runtime, const Machine& machine,
                  const std::vector<Level>& levels, const Cuda& cuda) {
  print_heading("atom " ATOM_VERSION);
  std::vector<Fact> facts = {{"build", build_text()}};
  for (Fact& fact : machine_facts(machine, runtime.executor().threads()))
    facts.push_back(std::move(fact));
  facts.push_back({"backends", cuda.problem.empty() ? "cpu, cuda, reference" : "cpu, reference"});
  facts.push_back({"GPU", cuda.problem.empty() ? cuda.device : "none: " + cuda.problem});
  for (size_t i = 0; i < levels.size(); ++i)
    facts.push_back({i == 0 ? "ISA levels" : "",
                     levels[i].name + (levels[i].problem.empty() ? ": yes" : ": no")});
  facts.push_back({"chosen", runtime.backend().description()});
  facts.push_back({"architectures", joined(model::supported_architectures())});
  print_facts(facts);
  fmt::print("\n");
  Table table = {.header = {"linear", "weights", "inputs", "computed by"}, .left = {0, 1, 2, 3}};
  for (const Pair& pair : kPairs)
    table.rows.push_back({pair.preset, word(pair, pair.weight), word(pair, pair.input),
                          served_by(runtime.executor(), options.common, pair)});
  print_table(table);
  fmt::print("\n");
  Table caches = {.header = {"KV-cache", "attention of a decoding step"}, .left = {0, 1}};
  for (const Cache& cache : kCaches)
    caches.rows.push_back({word(cache), attended_by(runtime.executor(), options.common, cache)});
  print_table(caches);
}

Json doctor_json(const Options& options, Runtime& runtime, const Machine& machine,
                 const std::vector<Level>& levels, const Cuda& cuda) {
  Json backends = {"cpu", "reference"};
  if (cuda.problem.empty()) backends.push_back("cuda");
  Json isa = Json::array();
  for (const Level& level : levels)
    isa.push_back(
        {{"name", level.name}, {"available", level.problem.empty()}, {"problem", level.problem}});
  Json linears = Json::array();
  for (const Pair& pair : kPairs)
    linears.push_back({{"preset", pair.preset},
                       {"weights", word(pair, pair.weight)},
                       {"inputs", word(pair, pair.input)},
                       {"computed_by", served_by(runtime.executor(), options.common, pair)}});
  Json attention = Json::array();
  for (const Cache& cache : kCaches)
    attention.push_back({{"kv", std::string(format::name(cache.kind))},
                         {"open_page", cache.open_page},
                         {"computed_by", attended_by(runtime.executor(), options.common, cache)}});
  return {
      {"version", ATOM_VERSION},
      {"build", build_text()},
      {"cpu", machine.cpu},
      {"system", machine.system},
      {"threads", runtime.executor().threads()},
      {"cpus_online", machine.cpus_online},
      {"cpus_allowed", machine.cpus_allowed},
      {"cgroup_cpu_quota", machine.quota ? Json(*machine.quota) : Json(nullptr)},
      {"memory_total", machine.memory_total},
      {"memory_available", machine.memory_available},
      {"cgroup_memory_max", machine.memory_limit},
      {"huge_pages", machine.huge_pages},
      {"backends", std::move(backends)},
      {"cuda",
       {{"available", cuda.problem.empty()}, {"device", cuda.device}, {"problem", cuda.problem}}},
      {"isa_levels", std::move(isa)},
      {"backend", runtime.backend().description()},
      {"linears", std::move(linears)},
      {"attention", std::move(attention)},
      {"architectures", model::supported_architectures()}};
}

int run(const Options& options) {
  start(options.common);
  Runtime runtime(options.common);
  const Machine machine = read_machine();
  const std::vector<Level> levels = isa_levels(runtime.executor());
  const Cuda cuda = find_cuda(runtime.executor(), options.common);
  if (options.common.json)
    print_json(doctor_json(options, runtime, machine, levels, cuda));
  else
    print_doctor(options, runtime, machine, levels, cuda);
  return kSuccess;
}

}  // namespace

void add(Program& program) {
  CLI::App& verb = add_verb(
      program.app(),
      {.name = "doctor",
       .text = "Show what this build and this machine offer",
       .footer =
           "JSON keys: version, build, cpu, system, threads, cpus_online, cpus_allowed,\n"
           "cgroup_cpu_quota, memory_total, memory_available, cgroup_memory_max, huge_pages,\n"
           "backends, cuda {available, device, problem}, isa_levels [{name, available, problem}],\n"
           "backend, linears [{preset, weights, inputs, computed_by}],\n"
           "attention [{kv, open_page, computed_by}], architectures"});
  const auto options = std::make_shared<Options>();
  add_compute_options(verb, options->common);
  add_output_options(verb, options->common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::doctor
