// atom bench: the verbs that take times on random data.
#include "verbs.h"

namespace atom::app {

void add_bench(Program& program) {
  CLI::App& bench = add_verb_group(
      program.app(),
      {.name = "bench",
       .text = "Time operations (ops), decoding (step), throughput, a server (serve)",
       .footer = ""});
  add_bench_ops(program, bench);
  add_bench_serve(program, bench);
  add_bench_step(program, bench);
  add_bench_throughput(program, bench);
}

}  // namespace atom::app
