// The output checkpoint: tensors streamed layer by layer into files whose headers are known in
// advance, then the small files of the source, config.json with the scheme, provenance, and the
// manifest last.
//
//   OutputFolder folder(out, files.folder());
//   CheckpointWriter writer({&files, &config, &scheme, orders}, folder);
//   for (int i = 0; i < layers; ++i) writer.write_layer(i, &solved[i]);
//   writer.write_ends(head);
//   writer.finish(provenance);       // the caller writes its report, then folder.commit()
//
// Tensor names and types are those of docs/formats.md. What is neither quantized nor transformed is copied bit for bit.
// One file up to `shard_bytes`, else shards with an index; memory holds one layer, whatever their
// number.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/manifest.h"
#include "checkpoint/model_files.h"
#include "checkpoint/output_folder.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/shard_writer.h"
#include "model/layer_tensors.h"
#include "model/scheme.h"
#include "quantizer/order.h"
#include "quantizer/stored_values.h"

namespace atom::quantizer {

struct WritePlan {
  const checkpoint::ModelFiles* files = nullptr;
  const model::ModelConfig* config = nullptr;
  const model::Scheme* scheme = nullptr;
  std::span<const LayerOrders> orders;  // one per layer, or none at all
  uint64_t shard_bytes = checkpoint::kShardBytes;
  // What transforms changed in the layers outside the quantized linears: nothing; q, k, v and o of a 16-bit model; or
  // the residual stream: norm gains become 1 and the router is written anew.
  enum class Changed { kNothing, kHeads, kStream };
  Changed changed = Changed::kNothing;
  // Rows of the source's tables anew, with a final norm of gain 1; empty: all three stay.
  RowChange embedding, head;
  std::span<const float> stream_basis;  // [hidden, hidden] of a scheme that has one
};

// Before anything is written. Error naming file, tensor or field: a tensor that config.json asks for is missing or of another
// shape, or a file that is carried along has values that would be refused of the output.
void require_source(const checkpoint::ModelFiles& files, const model::ModelConfig& config);

class CheckpointWriter {
 public:
  // Error: a tensor of the source that a linear needs is missing; disk space; the files cannot be
  // made.
  CheckpointWriter(const WritePlan& plan, const checkpoint::OutputFolder& folder);
  ~CheckpointWriter();

  // Layers in ascending order. `layer` may be null when no linear of it is quantized.
  // Error naming the tensor: a copied value that is NaN or infinite; disk full.
  void write_layer(int index, const model::LayerTensors* layer);
  // What belongs to no layer; `head` may be null when it stays as in the source.
  void write_ends(const model::LinearTensors* head);
  // config.json, tokenizer files, atom_provenance.json, manifest. Nothing but the report may
  // follow.
  void finish(const Json& provenance);

  int64_t output_bytes() const { return output_bytes_; }  // of all tensors

 private:
  // Where the bytes of a stored tensor come from.
  enum class Origin {
    kSource,
    kCodes0,
    kScales0,
    kMultipliers,
    kGlobalScale,
    kCodes1,
    kScales1,
    kBias,
    kShape,
    kOrder,
    kFloat,
    kOnes,
    kEmbedding,
    kHead,
    kBasis,
    kKeyOffset
  };
  struct Stored {
    checkpoint::TensorInfo info;
    Origin origin = Origin::kSource;
    std::string from;  // tensor of the source, or module, or site
  };

  std::vector<Stored> plan_layer(int index) const;
  std::vector<Stored> plan_ends() const;
  void plan_tables(bool new_head, std::vector<Stored>& out) const;
  bool is_changed(int index, const std::string& module) const;
  void plan_linear(const std::string& module, std::vector<Stored>& out) const;
  void plan_order(const std::string& site, const Permutation& order,
                  std::vector<Stored>& out) const;
  void write(const Stored& stored, std::span<const model::LinearTensors* const> linears,
             std::span<const model::Site* const> sites);
  void copy(const Stored& stored);
  void append(const Stored& stored, std::span<const std::byte> bytes);
  void write_config();
  void copy_small_files();
  void write_text(const std::string& name, const std::string& text);

  WritePlan plan_;
  const checkpoint::OutputFolder& folder_;
  std::vector<std::vector<Stored>> groups_;  // per layer, then the ends
  std::optional<checkpoint::ShardWriter> file_;
  std::vector<checkpoint::ManifestEntry> entries_;
  int64_t output_bytes_ = 0;
  std::span<const float> key_offset_;  // of the layer that is being written
};

}  // namespace atom::quantizer
