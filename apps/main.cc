// atom: quantizes language models, measures what that cost, and generates text with them.
#include <cstdio>
#include <new>
#include <string>
#include <system_error>

#include "bus_error.h"
#include "console.h"
#include "session.h"
#include "verbs.h"

namespace atom::app {
namespace {

constexpr const char* kFooter =
    "Exit codes: 0 success, 1 the work failed (bad model, mismatch, I/O), 2 wrong command line,\n"
    "3 internal error, 128 + signal when interrupted (130, 143). Errors are one line on stderr:\n"
    "atom: error: ...\n"
    "Each --some-option is also read from ATOM_SOME_OPTION; the command line wins.\n"
    "\n"
    "Examples:\n"
    "  atom quantize models/ref-dense-11m out/w4a4       # 4-bit weights, inputs and KV-cache\n"
    "  atom eval ppl out/w4a4 --text examples/text/wiki_eval.txt\n"
    "  atom generate out/w4a4 --prompt \"The history of the city\"\n"
    "  atom serve out/w4a4                               # an OpenAI-compatible server\n"
    "  atom chat http://127.0.0.1:8000                   # talk to it, or to a model folder\n"
    "  atom bench step --backend cuda --preset w4a8      # decoding speed of random weights";

int run(int argc, char** argv) {
  console().configure({});
  Program program(
      {.name = "atom",
       .version = ATOM_VERSION,
       .description = "4-bit weights, activations and KV-cache for large language models",
       .footer = kFooter});
  quantize::add(program);
  add_eval(program);
  generate::add(program);
  serve::add(program);
  chat::add(program);
  convert::add(program);
  inspect::add(program);
  verify::add(program);
  doctor::add(program);
  add_bench(program);
  const int code = program.run(argc, argv);
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) fail("cannot write to the standard output");
  return code;
}

// Every exception ends here as one line and an exit code.
int guarded(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const Interrupted& interrupted) {
    console().end_progress();
    console().notice("interrupted");
    return interrupted.exit_code();
  } catch (const UsageError& error) {
    console().error(error.what());
    return kUsage;
  } catch (const Error& error) {
    console().error(error.what());
    return kFailure;
  } catch (const std::system_error& error) {  // of files, and of writes to the standard output
    console().error(std::ferror(stdout)
                        ? "cannot write to the standard output: " + error.code().message()
                        : std::string(error.what()));
    return kFailure;
  } catch (const std::bad_alloc&) {
    console().error("not enough memory");
    return kFailure;
  } catch (const std::exception& error) {
    console().error(fmt::format("internal error: {}", error.what()));
    return kInternal;
  }
}

}  // namespace
}  // namespace atom::app

int main(int argc, char** argv) {
  atom::app::end_at_cut_files();
  return atom::app::guarded(argc, argv);
}
