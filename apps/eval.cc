// atom eval: the verbs that measure.
#include "verbs.h"

namespace atom::app {

void add_eval(Program& program) {
  CLI::App& eval = add_verb_group(
      program.app(), {.name = "eval",
                      .text = "Measure a model: perplexity (ppl), KL divergence (kld), ablation",
                      .footer = ""});
  add_perplexity(program, eval);
  add_divergence(program, eval);
  add_ablation(program, eval);
}

}  // namespace atom::app
