// What a layer is after it was solved, as a record of the journal. What precedes the solving (transforms, orders, formats)
// is quick and is done anew.
//
//   journal.add("layer-3", layer_record(tensors, scheme));
//   ...
//   restore_layer(*journal.find("layer-3"), tensors, scheme);      // `tensors` as they were before they were solved
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/config.h"
#include "model/layer_tensors.h"
#include "model/scheme.h"
#include "quantizer/journal.h"
#include "quantizer/order.h"
#include "quantizer/recipe.h"
#include "quantizer/transform.h"

namespace atom::quantizer {

Record layer_record(const model::LayerTensors& tensors, const model::Scheme& scheme);

// Solved linears and the clips that were searched, here and in the scheme. Error naming the linear: the record is that of
// another layer, or of another scheme.
void restore_layer(const Record& record, model::LayerTensors& tensors, model::Scheme& scheme);

// Parts of the record of a calibration; `at` begins their names.
void put_orders(Record& record, const std::string& at, const LayerOrders& orders);
LayerOrders take_orders(const Record& record, const std::string& at);
void put_transform(Record& record, const std::string& at, const LayerTransform& transform);
LayerTransform take_transform(const Record& record, const std::string& at);
// Error: they are not those of a layer of this model.
void require_fits(const LayerOrders& orders, const model::ModelConfig& config);
void require_fits(const LayerTransform& transform, const model::ModelConfig& config);
Json choices_json(std::span<const LayerChoice> choices);
std::vector<LayerChoice> choices_of(const Json& json);

// Reads with `function` what the journal in `folder` says. A value that is missing or of another kind becomes an Error.
template <class Function>
auto of_record(const std::filesystem::path& folder, Function&& function) {
  try {
    return function();
  } catch (const Json::exception& error) {
    fail("{}: a record of the journal lacks a value: {}", folder.string(), error.what());
  }
}

}  // namespace atom::quantizer
