// atom eval: the verbs that measure.
#include "verbs.h"

namespace atom::app {

void add_eval(Program& program) {
  CLI::App* eval = add_verb(program.app, "eval", "Measure a model: perplexity (ppl), ablation");
  eval->require_subcommand(1);
  add_perplexity(program, *eval);
  add_ablation(program, *eval);
}

}  // namespace atom::app
