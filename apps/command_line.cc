#include "command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "console.h"

namespace atom::app {
namespace {

constexpr size_t kNameColumns = 26;

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter() { column_width(kNameColumns); }

  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override {
    if (mode == CLI::AppFormatMode::Sub) return make_expanded(app);
    std::string text = make_description(app) + "\n" + make_usage(app, std::move(name));
    text += make_positionals(app) + make_subcommands(app, mode);
    for (const std::string& group : app->get_groups()) text += group_help(app, group);
    const std::string footer = make_footer(app);
    return footer.empty() ? text : text + "\n" + footer;
  }

  std::string make_usage(const CLI::App* app, std::string name) const override {
    for (const CLI::App* parent = app->get_parent(); parent != nullptr;
         parent = parent->get_parent())
      if (name.rfind(parent->get_name() + " ", 0) != 0 && !parent->get_name().empty() &&
          name.find(parent->get_name()) == std::string::npos)
        name = parent->get_name() + " " + name;
    std::string text = "Usage: " + name;
    if (!app->get_subcommands([](const CLI::App*) { return true; }).empty()) text += " COMMAND";
    for (const CLI::Option* option :
         app->get_options([](const CLI::Option* o) { return o->get_positional(); }))
      text += " " + make_option_usage(option);
    for (const CLI::Option* option : app->get_options(
             [](const CLI::Option* o) { return o->nonpositional() && o->get_required(); }))
      text += " " + option->get_name(false, true) + " " + option->get_option_text();
    return text + " [options]\n";
  }

  std::string make_option_name(const CLI::Option* option, bool positional) const override {
    return CLI::Formatter::make_option_name(option, positional);
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    return option->get_positional() || option->get_option_text().empty()
               ? ""
               : " " + option->get_option_text();
  }

 private:
  std::string group_help(const CLI::App* app, const std::string& group) const {
    if (group.empty()) return "";
    const std::vector<const CLI::Option*> options =
        app->get_options([&](const CLI::Option* option) {
          return option->get_group() == group && option->nonpositional();
        });
    return options.empty() ? "" : make_group(group, false, options);
  }
};

// Sets the option's name for messages, help and environment.
CLI::Option* described(CLI::Option* option, const Help& help) {
  option->option_text(help.value);
  option->group(help.group);
  return option;
}

}  // namespace

std::string environment_name(std::string_view option) {
  std::string name = "ATOM_";
  for (const char c : option.substr(std::min(option.find_first_not_of('-'), option.size())))
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

CLI::App* add_verb(CLI::App& parent, std::string name, std::string text) {
  CLI::App* verb = parent.add_subcommand(std::move(name), std::move(text));
  set_style(*verb);
  // Variables bind when the verb is met, so that those of other verbs cannot make this one fail.
  verb->preparse_callback([verb](size_t) {
    for (CLI::Option* option : verb->get_options())
      if (option->nonpositional() && option->get_name() != "--help")
        option->envname(environment_name(option->get_name()));
  });
  return verb;
}

void on_run(Program& program, CLI::App& verb, std::function<int()> run) {
  verb.callback([&program, run = std::move(run)] { program.run = run; });
}

void argument(CLI::App& verb, const std::string& name, std::string& value,
              const std::string& text) {
  verb.add_option(name, value, text)->required();
}

CLI::Option* text_option(CLI::App& verb, const std::string& name, std::string& value,
                         const Help& help) {
  return described(verb.add_option(name, value, help.text), help)
      ->multi_option_policy(CLI::MultiOptionPolicy::Throw);
}

CLI::Option* texts_option(CLI::App& verb, const std::string& name, std::vector<std::string>& values,
                          const Help& help) {
  // One value per occurrence: "--text A --text B", and never "--text A MODEL".
  const auto take = [&values](const std::vector<std::string>& words) { values = words; };
  return described(verb.add_option_function<std::vector<std::string>>(name, take, help.text), help)
      ->allow_extra_args(false);
}

CLI::Option* choice_option(CLI::App& verb, const std::string& name, std::string& value,
                           std::vector<std::string> words, const Help& help) {
  const auto take = [&value, name, words = std::move(words)](const std::string& word) {
    if (std::find(words.begin(), words.end(), word) == words.end())
      usage_fail("{}: '{}' is not one of {}", name, word, joined(words));
    value = word;
  };
  return described(verb.add_option_function<std::string>(name, take, help.text), help);
}

CLI::Option* flag_option(CLI::App& verb, const std::string& name, bool& value, const Help& help) {
  CLI::Option* option = verb.add_flag(name, value, help.text);
  option->group(help.group);
  return option;
}

CLI::Option* whole_option(CLI::App& verb, const std::string& name, int& value,
                          const WholeRange& range, const Help& help) {
  const auto take = [&value, name, range](const std::string& word) {
    value = static_cast<int>(parse_whole(name, word, range));
  };
  return described(verb.add_option_function<std::string>(name, take, help.text), help);
}

CLI::Option* whole_option(CLI::App& verb, const std::string& name, std::optional<int>& value,
                          const WholeRange& range, const Help& help) {
  const auto take = [&value, name, range](const std::string& word) {
    value = static_cast<int>(parse_whole(name, word, range));
  };
  return described(verb.add_option_function<std::string>(name, take, help.text), help);
}

CLI::Option* seed_option(CLI::App& verb, uint64_t& seed, const Help& help) {
  const auto take = [&seed](const std::string& word) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size())
      usage_fail("--seed: '{}' is not a whole number from 0 to 2^64 - 1", word);
    seed = value;
  };
  return described(verb.add_option_function<std::string>("--seed", take, help.text), help);
}

CLI::Option* number_option(CLI::App& verb, const std::string& name, std::optional<double>& value,
                           const NumberRange& range, const Help& help) {
  const auto take = [&value, name, range](const std::string& word) {
    value = parse_number(name, word, range);
  };
  return described(verb.add_option_function<std::string>(name, take, help.text), help);
}

int64_t parse_whole(const std::string& name, const std::string& word, const WholeRange& range) {
  int64_t value = 0;
  const char* last = word.data() + word.size();
  const auto [end, error] = std::from_chars(word.data(), last, value);
  const bool whole = error == std::errc() && end == last;
  if (!whole || value < range.min || value > range.max)
    usage_fail("{}: '{}' is not a whole number from {} to {}", name, word, range.min, range.max);
  if (value % range.multiple != 0)
    usage_fail("{}: {} is not a multiple of {}", name, value, range.multiple);
  return value;
}

double parse_number(const std::string& name, const std::string& word, const NumberRange& range) {
  double value = 0;
  const char* last = word.data() + word.size();
  const auto [end, error] = std::from_chars(word.data(), last, value);
  const bool number = error == std::errc() && end == last && std::isfinite(value);
  if (!number || value < range.min || value > range.max ||
      (range.min_excluded && value == range.min))
    usage_fail("{}: '{}' is not a number {} {} and at most {}", name, word,
               range.min_excluded ? "above" : "of at least", range.min, range.max);
  return value;
}

void set_style(CLI::App& app) {
  app.formatter(std::make_shared<HelpFormatter>());
  app.set_help_flag("-h,--help", "Show this help")->group("General");
}

std::string parse_error_sentence(const CLI::ParseError& error) {
  std::string sentence = error.what();
  while (!sentence.empty() && (sentence.back() == '\n' || sentence.back() == '.'))
    sentence.pop_back();
  return sentence;
}

}  // namespace atom::app
