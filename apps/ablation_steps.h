// The steps of `atom eval ablation`: recipes that grow by one ingredient at a time.
#pragma once

#include <string_view>
#include <vector>

#include "quantizer/recipe.h"

namespace atom::app {

// What a step changes in the recipe of the step before it. `kept`: channels that the steps keep.
struct AblationStep {
  const char* name;
  void (*change)(quantizer::Recipe& recipe, int kept);
};

// "published": from plain rounding to the published method; "best": from there to method best; "all": both.
std::vector<AblationStep> ablation_steps(std::string_view which);

}  // namespace atom::app
