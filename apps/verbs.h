// The verbs of the program; each adds its options and what it runs.
#pragma once

#include "command_line.h"

namespace atom::app {

void add_quantize(Program& program);
void add_eval(Program& program);                          // ppl, kld and ablation
void add_perplexity(Program& program, CLI::App& parent);  // eval ppl
void add_divergence(Program& program, CLI::App& parent);  // eval kld
void add_ablation(Program& program, CLI::App& parent);    // eval ablation
void add_generate(Program& program);
// before_step: of tests, which make a server fail; see serving::EngineThreadOptions.
void add_serve(Program& program, std::function<void()> before_step = {});
void add_chat(Program& program);
void add_inspect(Program& program);
void add_verify(Program& program);
void add_bench_serve(Program& program, CLI::App& parent);  // bench serve
void add_doctor(Program& program);
void add_bench(Program& program);                               // ops, step and throughput
void add_bench_ops(Program& program, CLI::App& parent);         // bench ops
void add_bench_step(Program& program, CLI::App& parent);        // bench step
void add_bench_throughput(Program& program, CLI::App& parent);  // bench throughput

}  // namespace atom::app
