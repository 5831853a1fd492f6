// atom chat: a conversation in the terminal, with a server or with a model in this process.

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <set>

#include "base/file.h"
#include "chat_input.h"
#include "chat_talk.h"
#include "console.h"
#include "session.h"
#include "text/unicode.h"
#include "verbs.h"

namespace atom::app::chat {
namespace {

struct Options {
  ServeOptions serve;  // of a folder; its `model` is the folder or the URL
  std::string model, api_key, authorities;
  std::string prompt, system, seed;
  bool prompt_given = false;
  ChatSettings settings;
};

constexpr const char* kCommands =
    "/help              these lines\n"
    "/clear             forget the conversation; the system prompt stays\n"
    "/system TEXT       a new system prompt; without TEXT: none\n"
    "/regenerate        another answer to the last question\n"
    "/save FILE         the conversation as JSON\n"
    "/exit              end; also Ctrl-D\n"
    "A line that ends in \\ goes on in the next; \"\"\" begins and ends a text of many lines;\n"
    "// begins a text with /.\n"
    "Ctrl-C stops an answer.\n";

bool stopped() { return chat_signal() != 0; }

void flush() {
  if (std::fflush(stdout) != 0) fail("cannot write to the standard output");
}

void dim(const std::string& text) {
  fmt::print("{}", console().paint_out(Style::kDim, text));
  flush();
}

class Chat {
 public:
  Chat(const Options& options, ChatServer& server)
      : options_(options),
        server_(server),
        talk_(server, options.settings),
        interactive_(::isatty(STDIN_FILENO) != 0) {
    talk_.set_system(options.system);
  }

  void once() {
    talk_.say(options_.prompt);
    answer();
    if (stopped()) throw Interrupted(chat_signal());
  }

  // Until the end of the input. Error, where nobody is there to see it and go on: of the first answer that fails.
  void converse() {
    const bool prompts = interactive_ && console().out_is_terminal();
    if (prompts && !console().quiet())
      dim(fmt::format("{} at {}. /help lists the commands, Ctrl-D ends.\n",
                      printable(server_.model()), printable(server_.place())));
    ChatInput input(STDIN_FILENO, [prompts](bool more) {
      if (!prompts) return;
      fmt::print("{}", console().paint_out(Style::kBold, more ? ". " : "> "));
      flush();
    });
    try {
      while (turn(input)) {
      }
    } catch (const Interrupted&) {
      end_line(prompts);
      throw;
    }
    end_line(prompts);
  }

 private:
  static void end_line(bool prompts) {
    if (prompts) fmt::print("\n");
  }

  // False: the end.
  bool turn(ChatInput& input) {
    bool more = true;
    try {
      const std::optional<ChatLine> line = input.next();
      if (!line) return false;
      if (!line->command.empty()) {
        more = command(line->command, line->text);
      } else if (!line->text.empty()) {
        talk_.say(line->text);
        answer();
      }
    } catch (const Error& error) {
      if (!interactive_) throw;
      console().error(error.what());
    }
    if (!stopped()) return more;
    if (!interactive_ || chat_signal() != SIGINT) throw Interrupted(chat_signal());
    forget_chat_signal();
    return more;
  }

  bool command(const std::string& word, const std::string& text) {
    if (word == "/exit" || word == "/quit") return false;
    if (word == "/help") {
      dim(kCommands);
    } else if (word == "/clear") {
      talk_.clear();
    } else if (word == "/system") {
      talk_.set_system(text);
    } else if (word == "/regenerate") {
      if (!talk_.again()) fail("/regenerate: nothing was asked yet");
      answer();
    } else if (word == "/save") {
      save(text);
    } else {
      fail("{} is no command; /help lists them, and // begins a text with /", word);
    }
    return true;
  }

  void save(const std::string& file) {
    if (file.empty()) fail("/save: the name of a file is missing");
    if (!saved_.contains(file) && std::filesystem::exists(std::filesystem::symlink_status(file)))
      fail("/save: {} exists already", file);
    write_file_atomically(file, talk_.text() + "\n");
    saved_.insert(file);
    console().notice(fmt::format("saved as {}", printable(file)));
  }

  void answer() {
    bool begun = false;
    const auto show = [&](std::string_view piece) {
      begun = true;
      fmt::print("{}", printable_lines(piece));
      flush();
    };
    Spoken spoken;
    try {
      spoken = talk_.answer(show, stopped);
    } catch (const Error&) {
      if (begun) fmt::print("\n");
      flush();
      throw;
    }
    fmt::print("\n");
    flush();
    if (console().out_is_terminal() && !console().quiet()) tell(spoken);
  }

  static void tell(const Spoken& spoken) {
    std::string line = fmt::format("{:.2f} s to the first token, {} token{}", spoken.first,
                                   spoken.tokens, spoken.tokens == 1 ? "" : "s");
    if (spoken.tokens > 1 && spoken.rest > 0)
      line += fmt::format(" at {:.1f} tok/s", static_cast<double>(spoken.tokens - 1) / spoken.rest);
    if (spoken.stopped)
      line += ", stopped";
    else if (spoken.finish != "stop" && !spoken.finish.empty())
      line += ", ended by " + printable(clipped(spoken.finish, 20));
    dim("(" + line + ")\n");
  }

  const Options& options_;
  ChatServer& server_;
  Talk talk_;
  const bool interactive_;
  std::set<std::string> saved_;  // files that this conversation may replace
};

std::unique_ptr<ChatServer> open_server(Options& options) {
  if (!is_url(options.serve.model)) {
    options.serve.max_num_seqs = 1;
    auto server = load_chat(options.serve, stopped);
    check_interrupted();
    catch_chat_signals();
    return server;
  }
  catch_chat_signals();
  try {
    return connect_chat({.url = options.serve.model,
                         .api_key = options.api_key,
                         .authorities = options.authorities,
                         .model = options.model},
                        stopped);
  } catch (const Error&) {
    if (stopped()) throw Interrupted(chat_signal());
    throw;
  }
}

int run(Options& options) {
  start(options.serve.common);
  catch_signals();
  if (options.prompt_given && options.prompt.empty()) usage_fail("--prompt: the prompt is empty");
  if (!text::is_valid_utf8(options.prompt)) usage_fail("--prompt: the prompt is not UTF-8");
  if (!text::is_valid_utf8(options.system)) usage_fail("--system: the text is not UTF-8");
  if (!text::is_valid_utf8(options.model)) usage_fail("--model: the name is not UTF-8");
  if (!options.seed.empty())
    options.settings.seed = parse_whole("--seed", options.seed, {.min = 0, .max = INT64_MAX});
  const std::unique_ptr<ChatServer> server = open_server(options);
  Chat chat(options, *server);
  options.prompt.empty() ? chat.converse() : chat.once();
  return kSuccess;
}

void add_sampling_options(CLI::App& verb, Options& options) {
  constexpr const char* kGroup = "Sampling (defaults: those of the server or the model)";
  ChatSettings& settings = options.settings;
  whole_option(verb, "-n,--max-tokens", settings.max_tokens, {.min = 1},
               {"N", "Tokens of an answer at most", kGroup});
  number_option(verb, "--temperature", settings.temperature, {.min = 0, .max = 2},
                {"T", "0 takes the most likely token", kGroup});
  whole_option(verb, "--top-k", settings.top_k, {.min = 0},
               {"K", "Only the K most likely tokens; 0: all", kGroup});
  number_option(verb, "--top-p", settings.top_p, {.min = 0, .max = 1, .min_excluded = true},
                {"P", "Only the most likely tokens of mass P", kGroup});
  number_option(verb, "--min-p", settings.min_p, {.min = 0, .max = 1},
                {"P", "Only tokens at least P times as likely as the likeliest", kGroup});
  text_option(verb, "--seed", options.seed,
              {"N", "Seed of the draws; that of /regenerate is one higher", kGroup});
}

}  // namespace

void add(Program& program) {
  CLI::App& verb = add_verb(
      program.app(),
      {.name = "chat",
       .text = "Talk to a server, or to a model in this process",
       .footer =
           std::string("Commands:\n") + kCommands +
           "Where stdin is no terminal, each line is a turn, and the first error ends the "
           "program.\n"
           "Control characters of an answer are shown as \\xNN, but for line breaks and tabs.\n"
           "\n"
           "Examples:\n"
           "  atom chat http://127.0.0.1:8000 --system \"Answer in one sentence.\"\n"
           "  atom chat out/llama-w4a4 --prompt \"What is a KV-cache?\""});
  const auto options = std::make_shared<Options>();
  argument(verb, "URL|MODEL", options->serve.model,
           "http(s)://HOST:PORT of a server with the OpenAI API, a model folder or\na GGUF file");
  CLI::Option* prompt = text_option(verb, "-p,--prompt", options->prompt,
                                    {"TEXT", "Say this, show the answer, and end"});
  note_source(verb, prompt, options->prompt_given);
  text_option(verb, "--system", options->system, {"TEXT", "System prompt"});
  constexpr const char* kGroup = "Server (of a URL)";
  text_option(verb, "--model", options->model, {"NAME", "Model [the server's first]", kGroup});
  text_option(verb, "--api-key", options->api_key,
              {"KEY", "Shows in the list of processes: better ATOM_API_KEY", kGroup});
  text_option(verb, "--cacert", options->authorities,
              {"FILE", "Certificates to trust, PEM [the system's]", kGroup});
  add_sampling_options(verb, *options);
  add_model_options(verb, options->serve);
  add_compute_options(verb, options->serve.common);
  add_look_options(verb, options->serve.common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::chat
