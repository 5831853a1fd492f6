// `serve` as in the program, but its engine dies before its 24th step: dying_server serve MODEL ...
#include <stdexcept>

#include "apps/verbs.h"

int main(int argc, char** argv) {
  atom::app::Program program(
      {.name = "dying_server", .version = "0", .description = "", .footer = ""});
  int steps = 0;
  atom::app::serve::add(program, [&steps] {
    if (++steps == 24) throw std::runtime_error("a fault of the test");
  });
  return program.run(argc, argv);
}
