// What becomes of the program when a file that it has mapped is cut by another process.
//
//   end_at_cut_files();      // once, before files are opened
//
// Reading what is gone raises SIGBUS, in any thread. The program ends then with one sentence that names the file and exit
// code 1, and leaves what a kill leaves. A SIGBUS of another origin goes where it went before.
#pragma once

namespace atom::app {

void end_at_cut_files();

}  // namespace atom::app
