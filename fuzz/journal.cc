// The journal of a quantization. The first byte says what the rest is, modulo 3: the index, the file of a record, or that file's
// header, with as many times 16 bytes of data as the second byte says. The index of a record has its SHA-256, as that of a
// journal that was changed on purpose would.
#include "quantizer/journal.h"

#include <filesystem>

#include "base/file.h"
#include "base/sha256.h"
#include "fuzz/fuzz.h"
#include "fuzz/small_layer.h"
#include "quantizer/journal_records.h"
#include "testing/temp_folder.h"

namespace atom::fuzz {
namespace {
using namespace quantizer;

// What a run that is continued reads of a record, of a calibration as of a layer.
void read_record(const Record& record, const std::filesystem::path& folder) {
  accepts([&] {
    of_record(folder, [&] {
      model::LayerTensors layer = small_layer();
      model::Scheme scheme = small_scheme();
      restore_layer(record, layer, scheme);
      for (const model::LinearTensors* linear : {&layer.q, &layer.out, &layer.experts[0].down})
        check(model::to_f32(*linear).size() == size_t{32} * 32, "a restored linear");
    });
  });
  accepts([&] {
    of_record(folder, [&] { require_fits(take_orders(record, "orders.0."), small_config()); });
  });
  accepts([&] {
    of_record(folder,
              [&] { require_fits(take_transform(record, "transform.0."), small_config()); });
  });
  accepts([&] { of_record(folder, [&] { choices_of(record.json.at("chosen")); }); });
}
}  // namespace

void run_journal(std::string_view bytes) {
  static const testing::TempFolder parent(testing::TempFolder::memory());
  const size_t kind = take_choice(bytes, 3);
  const size_t data_bytes = kind == 2 ? 16 * take_choice(bytes, 256) : 0;
  const std::string file = kind == 2 ? safetensors_of(bytes, data_bytes) : std::string(bytes);
  const std::filesystem::path folder = Journal::path_of(parent / "out");
  const Json run = {{"seed", 1}};
  const Json index = {{"run", run},
                      {"records", {{"layer-0", sha256_hex(std::as_bytes(std::span(file)))}}}};
  std::filesystem::create_directory(folder);
  write_file_atomically(folder / "journal.json", kind == 0 ? file : index.dump());
  if (kind != 0) write_file_atomically(folder / "layer-0.safetensors", file);
  accepts([&] {
    const Journal journal({.output = parent / "out", .run = run, .note = {}, .resume = true});
    if (const auto record = journal.find("layer-0")) read_record(*record, folder);
  });
  std::filesystem::remove_all(folder);
}

}  // namespace atom::fuzz
