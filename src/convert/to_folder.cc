#include "convert/to_folder.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/gguf_writer.h"
#include "checkpoint/model_files.h"
#include "checkpoint/output_folder.h"
#include "model/config.h"
#include "model/plain_tensors.h"
#include "model/tensor_reader.h"

namespace atom::convert {
namespace {

using checkpoint::TensorInfo;
using tensor::DType;

constexpr uint64_t kSmallFiles = uint64_t{64} << 20;  // room for the tokenizer

struct Planned {
  TensorInfo info;
  std::vector<std::string> sources;  // whose rows follow each other
};

class FolderWriter {
 public:
  FolderWriter(const ToFolder& job, const checkpoint::ModelFiles& files, bool fused)
      : job_(job), files_(files) {
    for (const std::string& name : files.tensor_names()) plan(name, fused);
    // Wide elements first: then every tensor of a file is aligned.
    std::stable_sort(plan_.begin(), plan_.end(), [](const Planned& a, const Planned& b) {
      return tensor::dtype_size(a.info.dtype) > tensor::dtype_size(b.info.dtype);
    });
  }

  ConvertReport run() {
    checkpoint::OutputFolder folder(job_.output, {});
    std::vector<TensorInfo> infos;
    for (const Planned& tensor : plan_) infos.push_back(tensor.info);
    checkpoint::ShardWriter writer(folder.path(), infos, job_.shard_bytes);
    folder.require_space(writer.bytes() + kSmallFiles);
    ConvertReport report{.tensors = static_cast<int64_t>(plan_.size()), .bytes = writer.bytes()};
    uint64_t done = 0;
    for (const Planned& tensor : plan_) {
      if (job_.progress)
        job_.progress({.done = done, .total = writer.bytes(), .tensor = tensor.info.name});
      const std::vector<std::byte> bytes = bytes_of(tensor);
      writer.write(tensor.info.name, bytes);
      done += bytes.size();
    }
    std::vector<checkpoint::ManifestEntry> entries = writer.finish();
    write_small_files(folder.path(), entries);
    checkpoint::write_manifest(folder.path(), entries);
    folder.commit();
    return report;
  }

 private:
  DType type_of(const checkpoint::TensorHeader& header) const {
    if (header.shape.rank() == 1) return header.dtype;
    if (!job_.type.empty()) return tensor::dtype_from_name(job_.type).value();
    const bool packed = header.stored != tensor::dtype_name(header.dtype);
    return packed ? DType::F16 : header.dtype;
  }

  void plan(const std::string& name, bool fused) {
    const checkpoint::TensorHeader header = files_.header(name);
    for (const auto& [whole, parts] :
         {std::pair(
              "self_attn.qkv_proj",
              std::vector<std::string>{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}),
          std::pair("mlp.gate_up_proj", std::vector<std::string>{"mlp.gate_proj", "mlp.up_proj"})})
      for (const std::string& part : parts) {
        const std::string tail = "." + part + ".weight";
        if (!fused || !name.ends_with(tail)) continue;
        if (part == parts[0])
          plan_fused(name.substr(0, name.size() - tail.size() + 1), whole, parts);
        return;
      }
    plan_.push_back({{name, type_of(header), header.shape}, {name}});
  }

  void plan_fused(const std::string& layer, const std::string& whole,
                  const std::vector<std::string>& parts) {
    Planned out;
    int64_t rows = 0, width = 0;
    for (const std::string& part : parts) {
      out.sources.push_back(layer + part + ".weight");
      const checkpoint::TensorHeader header = files_.header(out.sources.back());
      out.info.dtype = type_of(header);
      rows += header.shape[0];
      width = header.shape[1];
    }
    out.info.name = layer + whole + ".weight";
    out.info.shape = {rows, width};
    plan_.push_back(std::move(out));
  }

  std::vector<std::byte> bytes_of(const Planned& tensor) const {
    std::vector<std::byte> out;
    for (const std::string& source : tensor.sources) {
      const tensor::TensorView view = files_.tensor(source);
      model::require_finite(files_.folder().string(), source, view);
      if (view.dtype == tensor.info.dtype)
        out.insert(out.end(), view.bytes.begin(), view.bytes.end());
      else
        append_as(tensor.info.dtype, source, view, out);
      files_.release(source);
    }
    return out;
  }

  void append_as(DType dtype, const std::string& name, const tensor::TensorView& view,
                 std::vector<std::byte>& out) const {
    const std::vector<float> values = tensor::widen(view);
    const checkpoint::GgufType& type = checkpoint::gguf_type(tensor::dtype_name(dtype));
    const size_t size = out.size();
    out.resize(size + values.size() * tensor::dtype_size(dtype));
    if (const auto beyond = checkpoint::encode_gguf(type, values, std::span(out).subspan(size)))
      fail("{}: tensor {} holds {}, which {} cannot hold", files_.folder().string(),
           checkpoint::gguf_quoted(name), *beyond, type.name);
  }

  void write_small_files(const std::filesystem::path& folder,
                         std::vector<checkpoint::ManifestEntry>& entries) const {
    const auto write = [&](const std::string& name, const std::string& text) {
      write_file_atomically(folder / name, text);
      entries.push_back(checkpoint::make_manifest_entry(folder, name));
    };
    Json config = files_.config();
    for (const Planned& tensor : plan_)
      if (tensor.info.shape.rank() == 2)
        config["torch_dtype"] = tensor.info.dtype == DType::F32   ? "float32"
                                : tensor.info.dtype == DType::F16 ? "float16"
                                                                  : "bfloat16";
    write("config.json", config.dump(2) + "\n");
    for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer_config.json"})
      if (const auto text = files_.small_file(name, UINT64_MAX)) write(name, *text);
  }

  const ToFolder& job_;
  const checkpoint::ModelFiles& files_;
  std::vector<Planned> plan_;
};

}  // namespace

ConvertReport to_folder(const ToFolder& job) {
  const checkpoint::ModelFiles files = checkpoint::ModelFiles::open(job.file);
  if (!files.is_gguf()) fail("{}: the model is no GGUF file", job.file.string());
  const model::ModelConfig config =
      model::parse_config(files.config(), files.source_of("config.json"));
  model::require_plain_tensors(files, config);
  return FolderWriter(job, files, config.family->fused).run();
}

}  // namespace atom::convert
