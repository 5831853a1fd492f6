// atom bench: the verbs that take times on random data.
#include "verbs.h"

namespace atom::app {

void add_bench(Program& program) {
  CLI::App& bench = add_verb_group(
      program.app(),
      {.name = "bench",
       .text = "Time operations (ops), decoding (step), throughput, a server (serve)",
       .footer = ""});
  bench_ops::add(program, bench);
  bench_serve::add(program, bench);
  bench_step::add(program, bench);
  bench_throughput::add(program, bench);
}

}  // namespace atom::app
