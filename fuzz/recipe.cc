// Recipes: what is accepted is written, read back the same, and gives a model its formats.
#include "quantizer/recipe.h"

#include "fuzz/fuzz.h"

namespace atom::fuzz {

void run_recipe(std::string_view bytes) {
  static const model::ModelConfig config = [] {
    model::ModelConfig small;
    small.family = &model::find_family("MixtralForCausalLM", "fuzz");
    small.vocabulary = small.hidden = small.intermediate = 256;
    small.layers = small.experts = small.heads = 2;
    small.kv_heads = small.experts_per_token = 1;
    small.head_dim = 128;
    return small;
  }();
  using quantizer::Method;
  const Method method = take_choice(bytes, 2) == 0 ? Method::kPublished : Method::kBest;
  accepts([&] {
    quantizer::Recipe recipe = quantizer::preset("w4a4", method);
    apply_json(recipe, parse_json(bytes, {.source = "fuzz"}), "fuzz");
    const Json written = to_json(recipe);
    quantizer::Recipe again = quantizer::preset("w4a4", method);
    const bool read = accepts([&] { apply_json(again, parse_json(written.dump()), "fuzz"); });
    if (!read || to_json(again) != written) check(false, "a recipe changes: " + written.dump());
    std::vector<std::string> notices;
    to_scheme(recipe, config, notices);
  });
}

}  // namespace atom::fuzz
