// atom eval: the verbs that measure.
#include "verbs.h"

namespace atom::app {

void add_eval(Program& program) {
  CLI::App& eval = add_verb_group(
      program.app(), {.name = "eval",
                      .text = "Measure a model: perplexity (ppl), KL divergence (kld), ablation",
                      .footer = ""});
  perplexity::add(program, eval);
  divergence::add(program, eval);
  ablation::add(program, eval);
}

}  // namespace atom::app
