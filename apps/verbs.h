// The verbs of the program. Each has a namespace of its own, where add() adds its options and what it runs: each has its
// Options and its run(), and a unity build compiles several of them as one file.
#pragma once

#include "command_line.h"

namespace atom::app {

void add_eval(Program& program);   // its verbs: perplexity, divergence, ablation
void add_bench(Program& program);  // its verbs: bench_*

namespace quantize {
void add(Program& program);
}
namespace perplexity {
void add(Program& program, CLI::App& parent);  // eval ppl
}
namespace divergence {
void add(Program& program, CLI::App& parent);  // eval kld
}
namespace ablation {
void add(Program& program, CLI::App& parent);  // eval ablation
}
namespace generate {
void add(Program& program);
}
namespace serve {
// before_step: of tests, which make a server fail; see serving::EngineThreadOptions.
void add(Program& program, std::function<void()> before_step = {});
}  // namespace serve
namespace chat {
void add(Program& program);
}
namespace inspect {
void add(Program& program);
}
namespace convert {
void add(Program& program);
}
namespace verify {
void add(Program& program);
}
namespace doctor {
void add(Program& program);
}
namespace bench_ops {
void add(Program& program, CLI::App& parent);  // bench ops
}
namespace bench_serve {
void add(Program& program, CLI::App& parent);  // bench serve
}
namespace bench_step {
void add(Program& program, CLI::App& parent);  // bench step
}
namespace bench_throughput {
void add(Program& program, CLI::App& parent);  // bench throughput
}

}  // namespace atom::app
