// Finds and loads the shared library of a backend.
#include <dlfcn.h>

#include <filesystem>
#include <vector>

#include "backend/open.h"
#include "backend/plugin.h"
#include "base/error.h"

namespace atom::backend {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLibrary = "libatom_cuda.so";

// Beside the program, as in a build folder, or in lib beside its folder, as installed.
std::vector<fs::path> places() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) return {};
  const fs::path folder = program.parent_path();
  return {folder / kLibrary, folder / "lib" / kLibrary, folder.parent_path() / "lib" / kLibrary};
}

fs::path find_library(const std::string& wanted) {
  std::error_code error;
  if (!wanted.empty()) {
    if (!fs::exists(wanted, error)) fail("backend 'cuda': {} does not exist", wanted);
    return fs::absolute(wanted);  // a bare name would be looked up elsewhere
  }
  std::string looked;
  for (const fs::path& place : places()) {
    if (fs::exists(place, error)) return place;
    looked += (looked.empty() ? "" : ", ") + place.string();
  }
  fail(
      "backend 'cuda' is a plug-in, {}, that was not built or is not in its place (looked for {}; "
      "ATOM_CUDA_PLUGIN names another place)",
      kLibrary, looked);
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const OpenOptions& options) {
  const fs::path path = find_library(options.cuda_plugin);
  // Never closed: backends, and exceptions on their way, live in its code. Opening it again is cheap.
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) fail("backend 'cuda': {}", ::dlerror());
  const auto make = reinterpret_cast<PluginFactory>(::dlsym(library, kPluginFactory));
  if (make == nullptr) fail("backend 'cuda': {} is no plug-in of this program", path.string());
  const PluginOptions plugin_options{.batch_invariant = options.batch_invariant,
                                     .tuned = options.tuned};
  std::unique_ptr<Backend> backend(make(plugin_abi(), &plugin_options));
  if (backend == nullptr)
    fail("backend 'cuda': {} belongs to another build of this program", path.string());
  return backend;
}

}  // namespace atom::backend
