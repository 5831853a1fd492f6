#include "convert/to_gguf.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>

#include "base/error.h"
#include "checkpoint/model_files.h"
#include "convert/gguf_plan.h"
#include "convert/gguf_vocabulary.h"
#include "model/open_files.h"
#include "model/plain_tensors.h"
#include "model/tensor_reader.h"

namespace atom::convert {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunkValues = size_t{1} << 20;  // of a step: 4 MiB of F32

void refuse_quantized(const checkpoint::ModelFiles& files) {
  const auto field = files.config().find("quantization_config");
  if (field != files.config().end() && !field->is_null())
    fail(
        "{}: the model is quantized (quantization_config), and GGUF has no form for that: convert "
        "the model that it was made from",
        files.folder().string());
}

// The file's own kind of message for values that were read from `name`.
[[noreturn]] void refuse_value(const fs::path& folder, const std::string& name,
                               std::string_view type, float value) {
  fail("{}: tensor {} holds {}, which {} cannot hold", folder.string(),
       checkpoint::gguf_quoted(name), value, type);
}

bool is_same(const checkpoint::GgufType& type, tensor::DType dtype) {
  return !type.packed && type.dtype == dtype;
}

class Writer {
 public:
  Writer(const ToGguf& job, const checkpoint::ModelFiles& files, const GgufPlan& plan,
         const checkpoint::GgufKeys& keys)
      : job_(job), files_(files), plan_(plan), out_(job.output, keys, infos(plan)) {}

  uint64_t run() {
    for (const PlannedTensor& tensor : plan_.tensors) {
      report(tensor.info.name);
      if (tensor.sources.empty())
        out_.write(tensor.info.name, std::as_bytes(std::span(tensor.values)));
      for (const std::string& source : tensor.sources) {
        write(tensor, source);
        files_.release(source);
      }
    }
    report("");
    out_.commit();
    return done_;
  }

 private:
  static std::vector<checkpoint::GgufTensorInfo> infos(const GgufPlan& plan) {
    std::vector<checkpoint::GgufTensorInfo> out;
    for (const PlannedTensor& tensor : plan.tensors) out.push_back(tensor.info);
    return out;
  }

  void report(const std::string& name) const {
    if (job_.progress) job_.progress({.done = done_, .total = out_.planned_size(), .tensor = name});
  }

  void write(const PlannedTensor& tensor, const std::string& source) {
    const tensor::TensorView view = files_.tensor(source);
    model::require_finite(files_.folder().string(), source, view);
    // A vector is one row, but for those whose elements belong to rows that move.
    const bool rows_of_one = view.shape.rank() == 1 && tensor.heads > 0;
    const auto rows =
        static_cast<size_t>(view.shape.rank() == 1 && !rows_of_one ? 1 : view.shape[0]);
    const size_t stride = view.bytes.size() / rows;
    const size_t width = static_cast<size_t>(view.elements()) / rows;
    const size_t step = std::max<size_t>(1, kChunkValues / width);
    for (size_t first = 0; first < rows; first += step) {
      const size_t count = std::min(step, rows - first);
      std::span<const std::byte> bytes = view.bytes.subspan(first * stride, count * stride);
      if (tensor.heads > 0) bytes = interleaved(tensor, view.bytes, {rows, stride, first, count});
      append(tensor, source, {view.dtype, {static_cast<int64_t>(count * width)}, bytes});
      report(tensor.info.name);
    }
  }

  struct Rows {
    size_t all, stride, first, count;
  };
  // Row 2 i + s of a head is its row s * half + i.
  std::span<const std::byte> interleaved(const PlannedTensor& tensor,
                                         std::span<const std::byte> bytes, const Rows& rows) {
    const size_t size = rows.all / static_cast<size_t>(tensor.heads);
    rows_.resize(rows.count * rows.stride);
    for (size_t i = 0; i < rows.count; ++i) {
      const size_t row = rows.first + i, within = row % size;
      const size_t from = row - within + within % 2 * (size / 2) + within / 2;
      std::memcpy(rows_.data() + i * rows.stride, bytes.data() + from * rows.stride, rows.stride);
    }
    return rows_;
  }

  void append(const PlannedTensor& tensor, const std::string& source,
              const tensor::TensorView& view) {
    const checkpoint::GgufType& type = *tensor.info.type;
    done_ += view.elements() / type.block * type.bytes;
    if (is_same(type, view.dtype)) return out_.write(tensor.info.name, view.bytes);
    values_.resize(static_cast<size_t>(view.elements()));
    tensor::widen(view, values_);
    encoded_.resize(values_.size() / type.block * type.bytes);
    if (const auto beyond = checkpoint::encode_gguf(type, values_, encoded_))
      refuse_value(files_.folder(), source, type.name, *beyond);
    out_.write(tensor.info.name, encoded_);
  }

  const ToGguf& job_;
  const checkpoint::ModelFiles& files_;
  const GgufPlan& plan_;
  checkpoint::GgufWriter out_;
  uint64_t done_ = 0;
  std::vector<std::byte> rows_, encoded_;
  std::vector<float> values_;
};

}  // namespace

ConvertReport to_gguf(const ToGguf& job) {
  std::error_code code;
  if (fs::exists(fs::symlink_status(job.output, code)))
    fail("{}: the output exists", job.output.string());
  const checkpoint::ModelFiles files = checkpoint::ModelFiles::open(job.folder);
  if (files.is_gguf()) fail("{}: the model is a GGUF file already", job.folder.string());
  refuse_quantized(files);
  const std::string source = files.source_of("config.json");
  const model::ModelConfig config = model::parse_config(files.config(), source);
  model::require_plain_tensors(model::open_files(job.folder), config);
  const GgufSource gguf{.json = &files.config(),
                        .config = &config,
                        .architecture = &architecture_of(config, source),
                        .source = source};
  checkpoint::GgufKeys keys;
  add_model_keys(gguf, job.type, keys);
  if (job.tokenizer != nullptr)
    add_vocabulary({.files = &files, .tokenizer = job.tokenizer, .rows = config.vocabulary}, keys);
  const GgufPlan plan = plan_gguf(files, gguf, job.type);
  ConvertReport report{.tensors = static_cast<int64_t>(plan.tensors.size()), .as_f16 = plan.as_f16};
  report.bytes = Writer(job, files, plan, keys).run();
  return report;
}

}  // namespace atom::convert
