// The lists of a tokenizer's model that have an entry for every token, "vocab" and "merges", as the file has them, without a
// JSON value for each entry: they come from parse_json one by one.
//
//   ModelLists lists;
//   const Json json = parse_json(text, {.source = path}, lists.streams({"model"}));
//   const Vocabulary vocabulary = vocabulary_of(json["model"], lists, path);
//
// What is wrong with an entry waits until the model asks for the list, as not every model has both.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/string_list.h"
#include "text/vocabulary.h"

namespace atom::text {

struct ModelLists {
  // An object of ids by token, or an array of tokens with their scores.
  struct Tokens {
    bool by_id = false;
    StringList texts;
    std::vector<int64_t> ids;    // by_id
    std::vector<double> scores;  // not by_id
    std::string begin;           // of the list, for messages
    std::string fault;           // of the first wrong entry: place, rule and value; empty: none
  };
  struct Merges {
    StringList parts;                   // left and right, in turn
    std::vector<size_t> version_lines;  // places of "#version" among the entries, ascending
    std::string begin;
    std::string fault;
  };
  Tokens tokens;
  Merges merges;

  // That fill this object, which must stay where it is until the text is read. `below`: keys of the model's object.
  std::vector<JsonStream> streams(const std::vector<std::string_view>& below);
  void take_token(const JsonEntry& entry);
  void take_merge(const JsonEntry& entry);
};

// The end of a sentence on model[key], whose entries went into a list that begins so: "is missing", or "is" and the value.
std::string shown_list(const Json& model, std::string_view key, const std::string& begin);

// Tokens with their ids. Error: no object, none, ids that are no integers, negative or far too large, used twice.
Vocabulary vocabulary_of(const Json& model, const ModelLists& lists, std::string_view source);

}  // namespace atom::text
