#include "command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "config_file.h"
#include "console.h"

namespace atom::app {
namespace {

constexpr size_t kNameColumns = 26;
constexpr const char* kGeneral = "General";
constexpr const char* kConfig = "--config";

class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter() {
    column_width(kNameColumns);
    label("Positionals", "Arguments");
  }

  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override {
    if (mode == CLI::AppFormatMode::Sub) return make_expanded(app);
    std::string text = make_description(app) + "\n" + make_usage(app, std::move(name));
    text += make_positionals(app) + make_subcommands(app, mode);
    for (const std::string& group : app->get_groups())
      if (group != kGeneral) text += group_help(app, group);
    text += group_help(app, kGeneral);
    const std::string footer = make_footer(app);
    return footer.empty() ? text : text + "\n" + footer;
  }

  std::string make_usage(const CLI::App* app, std::string name) const override {
    std::string text = "Usage: " + name;
    if (!app->get_subcommands([](const CLI::App*) { return true; }).empty()) text += " COMMAND";
    for (const CLI::Option* option :
         app->get_options([](const CLI::Option* o) { return o->get_positional(); }))
      text += " " + make_option_usage(option);
    for (const CLI::Option* option : app->get_options(
             [](const CLI::Option* o) { return o->nonpositional() && o->get_required(); }))
      text += " " + option->get_name() + " " + option->get_option_text();
    return text + " [options]\n";
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

CLI::Option* described(CLI::Option* option, const Help& help) {
  option->option_text(help.value);
  option->group(help.group);
  return option->required(help.required);
}

// "-n,--max-tokens" -> "--max-tokens"
std::string long_name(const std::string& names) {
  return names.substr(std::min(names.find("--"), names.size() - 1));
}

// An option whose value `take` reads; refusals name it by its long name.
CLI::Option* parsed_option(
    CLI::App& verb, const std::string& names, const Help& help,
    std::function<void(const std::string& name, const std::string& word)> take) {
  const auto call = [name = long_name(names), take = std::move(take)](const std::string& word) {
    take(name, word);
  };
  return described(verb.add_option_function<std::string>(names, call, help.text), help);
}

// As opposed to: by a variable, which the parser counts too.
bool on_command_line(const CLI::App& verb, const CLI::Option* option) {
  const std::vector<CLI::Option*>& order = verb.parse_order();
  return std::find(order.begin(), order.end(), option) != order.end();
}

void set_style(CLI::App& app) {
  app.formatter(std::make_shared<HelpFormatter>());
  app.set_help_flag("-h,--help", "Show this help")->group(kGeneral);
}

// "--context: ..." -> "ATOM_CONTEXT: ..." when the value came from there.
std::string with_source(std::string sentence, int argc, char** argv) {
  const size_t colon = sentence.find(':');
  if (sentence.rfind("--", 0) != 0 || colon == std::string::npos) return sentence;
  const std::string name = sentence.substr(0, colon);
  const std::string variable = environment_name(name);
  if (std::getenv(variable.c_str()) == nullptr) return sentence;
  for (int i = 1; i < argc; ++i)
    if (std::string_view(argv[i]).substr(0, name.size()) == name) return sentence;
  return variable + sentence.substr(colon);
}

// What the parser says, in our words where its own are hard to read.
std::string parser_sentence(const CLI::ParseError& error, const CLI::App& app) {
  std::string sentence = error.what();
  sentence.resize(sentence.find_last_not_of("\n. ") + 1);
  if (error.get_name() == "ArgumentMismatch") {
    const bool many = sentence.find("At Most") != std::string::npos;
    return sentence.substr(0, sentence.find(':')) + (many ? " is given twice" : " needs a value");
  }
  if (sentence.find("subcommand") != std::string::npos) {
    const std::vector<std::string> words = app.remaining(true);
    return words.empty() ? "a command is required" : fmt::format("unknown command '{}'", words[0]);
  }
  if (sentence.rfind("The ", 0) == 0) sentence[0] = 't';
  return sentence;
}

}  // namespace

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

Program::Program(const Texts& texts) : app_(std::make_unique<CLI::App>(texts.description)) {
  app_->name(texts.name);
  set_style(*app_);
  app_->set_version_flag("--version", texts.name + " " + texts.version, "Show the version")
      ->group(kGeneral);
  app_->footer(texts.footer);
  app_->require_subcommand(1);
}

Program::~Program() = default;

int Program::run(int argc, char** argv) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app_->exit(error);  // help and version
    std::string verb = app_->get_name();
    for (const CLI::App* app = app_.get(); !app->get_subcommands().empty();) {
      app = app->get_subcommands().front();
      verb += " " + app->get_name();
    }
    console().error(fmt::format("{} (see: {} --help)", parser_sentence(error, *app_), verb));
    return kUsage;
  } catch (const UsageError& error) {
    console().error(with_source(error.what(), argc, argv));
    return kUsage;
  }
  return run_();
}

std::string environment_name(std::string_view option) {
  std::string name = "ATOM_";
  for (const char c : option.substr(std::min(option.find_first_not_of('-'), option.size())))
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

CLI::App& add_verb(CLI::App& parent, const Verb& verb) {
  CLI::App* app = parent.add_subcommand(verb.name, verb.text);
  set_style(*app);
  app->group("Commands");
  app->footer(verb.footer);
  // Variables bind when the verb is met, so that those of other verbs cannot make this one fail.
  app->preparse_callback([app](size_t) {
    for (CLI::Option* option : app->get_options())
      if (option->nonpositional() && option != app->get_help_ptr())
        option->envname(environment_name(option->get_name()));
  });
  return *app;
}

CLI::App& add_verb_group(CLI::App& parent, const Verb& verb) {
  CLI::App& app = add_verb(parent, verb);
  app.require_subcommand(1);
  return app;
}

void on_run(Program& program, CLI::App& verb, std::function<int()> run) {
  verb.callback([&program, run = std::move(run)] { program.set_run(run); });
}

namespace {

// One entry of a file, unless the command line or a variable has given the option.
void apply_entry(CLI::App& verb, const std::string& path, const ConfigEntry& entry) {
  const std::string name = "--" + entry.key;
  const auto refuse = [&](std::string_view what) {
    usage_fail("{}:{}: {}: {}", path, entry.line, entry.key, what);
  };
  CLI::Option* option = verb.get_option_no_throw(name);
  if (option == nullptr || option == verb.get_help_ptr() || name == kConfig)
    refuse(fmt::format("'{}' has no such option", verb.get_name()));
  if (option->count() > 0) return;
  const bool is_flag = option->get_expected_max() == 0;
  if (is_flag != entry.is_bool)
    refuse(is_flag ? "the value is not true or false" : "the value is true or false");
  if (entry.words.size() != 1 && option->get_items_expected_max() <= 1)
    refuse("the option takes one value");
  for (const std::string& word : entry.words) option->add_result(word);
  if (entry.words.empty()) return;
  try {
    option->run_callback();
  } catch (const UsageError& error) {
    const std::string_view sentence = error.what();
    refuse(sentence.substr(sentence.starts_with(name + ": ") ? name.size() + 2 : 0));
  } catch (const CLI::ParseError& error) {
    refuse(error.what());
  }
}

}  // namespace

void config_option(CLI::App& verb) {
  const auto path = std::make_shared<std::string>();
  text_option(verb, kConfig, *path,
              {"FILE", "TOML: key = value, the keys being names of options without the dashes"});
  verb.parse_complete_callback([&verb, path] {
    if (path->empty()) return;
    for (const ConfigEntry& entry : read_config_file(*path)) apply_entry(verb, *path, entry);
  });
}

void note_source(CLI::App& verb, CLI::Option* option, bool& given) {
  option->check([&verb, option, &given](const std::string&) {
    given = on_command_line(verb, option);
    return std::string();
  });
}

void require_one_of(CLI::App& verb, const Alternative& a, const Alternative& b) {
  verb.parse_complete_callback([&verb, a, b] {
    if (a.option->count() == 0 && b.option->count() == 0)
      usage_fail("{} or {} is required", a.option->get_name(), b.option->get_name());
    if (a.option->count() == 0 || b.option->count() == 0) return;
    const bool a_given = on_command_line(verb, a.option);
    if (a_given == on_command_line(verb, b.option))
      usage_fail("{} and {} exclude each other", a.option->get_name(), b.option->get_name());
    (a_given ? b : a).value->clear();
  });
}

void argument(CLI::App& verb, const std::string& name, std::string& value,
              const std::string& text) {
  verb.add_option(name, value, text)->required();
}

CLI::Option* optional_argument(CLI::App& verb, const std::string& name, std::string& value,
                               const std::string& text) {
  return verb.add_option(name, value, text);
}

CLI::Option* text_option(CLI::App& verb, const std::string& name, std::string& value,
                         const Help& help) {
  return described(verb.add_option(name, value, help.text), help);
}

CLI::Option* texts_option(CLI::App& verb, const std::string& name, std::vector<std::string>& values,
                          const Help& help) {
  // One value per occurrence: "--text A --text B", and never "--text A MODEL".
  return described(verb.add_option(name, values, help.text), help)->allow_extra_args(false);
}

CLI::Option* choice_option(CLI::App& verb, const std::string& name, std::string& value,
                           std::vector<std::string> words, const Help& help) {
  return parsed_option(verb, name, help,
                       [&value, words = std::move(words)](const auto& option, const auto& word) {
                         if (std::find(words.begin(), words.end(), word) == words.end())
                           usage_fail("{}: '{}' is not one of {}", option, word, joined(words));
                         value = word;
                       });
}

CLI::Option* flag_option(CLI::App& verb, const std::string& name, bool& value, const Help& help) {
  CLI::Option* option = verb.add_flag(name, value, help.text);
  option->group(help.group);
  return option;
}

CLI::Option* whole_option(CLI::App& verb, const std::string& name, int& value,
                          const WholeRange& range, const Help& help) {
  return parsed_option(verb, name, help, [&value, range](const auto& option, const auto& word) {
    value = static_cast<int>(parse_whole(option, word, range));
  });
}

CLI::Option* whole_option(CLI::App& verb, const std::string& name, std::optional<int>& value,
                          const WholeRange& range, const Help& help) {
  return parsed_option(verb, name, help, [&value, range](const auto& option, const auto& word) {
    value = static_cast<int>(parse_whole(option, word, range));
  });
}

CLI::Option* seed_option(CLI::App& verb, uint64_t& seed, const Help& help) {
  return parsed_option(verb, "--seed", help, [&seed](const auto& option, const auto& word) {
    const char* last = word.data() + word.size();
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), last, value);
    if (error != std::errc() || end != last)
      usage_fail("{}: '{}' is not a whole number from 0 to 2^64 - 1", option, word);
    seed = value;
  });
}

CLI::Option* number_option(CLI::App& verb, const std::string& name, std::optional<double>& value,
                           const NumberRange& range, const Help& help) {
  return parsed_option(verb, name, help, [&value, range](const auto& option, const auto& word) {
    value = parse_number(option, word, range);
  });
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

}  // namespace atom::app
