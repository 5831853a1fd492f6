// atom verify: the files of a model against its manifest.
#include "checkpoint/manifest.h"
#include "console.h"
#include "session.h"
#include "verbs.h"

namespace atom::app::verify {
namespace {

struct Options {
  CommonOptions common;
  std::string model;
};

void print_report(const checkpoint::ManifestReport& report) {
  Table table = {.header = {"file", "state", "detail"}, .left = {0, 1, 2}};
  for (const checkpoint::FileResult& file : report.files)
    table.rows.push_back(
        {printable(file.name), std::string(file_state_text(file.state)), printable(file.detail)});
  for (const std::string& name : report.unlisted_weights)
    table.rows.push_back({printable(name), "unlisted", "weights that the manifest does not name"});
  print_table(table);
}

Json report_json(const std::string& model, const checkpoint::ManifestReport& report) {
  Json files = Json::array();
  for (const checkpoint::FileResult& file : report.files)
    files.push_back(
        {{"name", file.name}, {"state", file_state_text(file.state)}, {"detail", file.detail}});
  return {{"model", model},
          {"ok", report.ok()},
          {"files", std::move(files)},
          {"unlisted_weights", report.unlisted_weights}};
}

int run(const Options& options) {
  start(options.common);
  const checkpoint::ManifestReport report = checkpoint::verify_manifest(options.model);
  if (options.common.json)
    print_json(report_json(options.model, report));
  else
    print_report(report);
  if (report.ok()) return kSuccess;
  size_t bad = report.unlisted_weights.size();
  for (const checkpoint::FileResult& file : report.files)
    bad += file.state != checkpoint::FileState::kOk;
  std::fflush(stdout);
  fail("{}: {} of {} files do not match the manifest", options.model, bad,
       report.files.size() + report.unlisted_weights.size());
}

}  // namespace

void add(Program& program) {
  CLI::App& verb = add_verb(
      program.app(),
      {.name = "verify",
       .text = "Check the files of a model against its manifest",
       .footer =
           "Reads every file that atom_manifest.json lists and compares size and SHA-256. Exit "
           "code 1\n"
           "on any difference, on missing files and on weights that the manifest does not list.\n"
           "\n"
           "JSON keys: model, ok, files [{name, state, detail}], unlisted_weights"});
  const auto options = std::make_shared<Options>();
  argument(verb, "MODEL", options->model, "Model folder that atom wrote");
  add_output_options(verb, options->common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::verify
