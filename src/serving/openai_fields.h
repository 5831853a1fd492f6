// Typed fields of a request's JSON. What is wrong becomes an ApiError of one sentence: the field, the rule, the value.
// A field that is null counts as missing; true and false are no numbers; 1.0 is no integer.
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace atom::serving {

// An answer that is an error: {"error": {"message", "type", "param", "code"}}. Empty param, code: null.
class ApiError : public std::exception {
 public:
  ApiError(int status, std::string message, std::string param = "", std::string code = "")
      : status_(status),
        message_(std::move(message)),
        param_(std::move(param)),
        code_(std::move(code)) {}

  int status() const { return status_; }
  const std::string& param() const { return param_; }
  const std::string& code() const { return code_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  int status_;
  std::string message_, param_, code_;
};

// 400: "FIELD: RULE, but is VALUE".
[[noreturn]] void refuse_field(std::string_view field, std::string_view rule, const Json& value);

class Fields {
 public:
  // `object` outlives it. ApiError: it is none. `prefix`: of the names in messages.
  explicit Fields(const Json& object, std::string prefix = "");

  const Json* find(std::string_view name) const;  // null: missing, or null
  std::optional<int64_t> integer(std::string_view name, int64_t min, int64_t max) const;
  // Above min where `above`, else at least; at most max.
  std::optional<double> number(std::string_view name, double min, double max,
                               bool above = false) const;
  bool flag(std::string_view name, bool otherwise) const;
  std::optional<std::string> text(std::string_view name, size_t most_bytes) const;
  // A list of integers.
  std::vector<int32_t> ids(std::string_view name, int64_t limit, size_t most) const;

 private:
  std::string full(std::string_view name) const { return prefix_ + std::string(name); }

  const Json& object_;
  std::string prefix_;
};

// An id within [0, limit).
int32_t token_id(const Json& value, std::string_view field, int64_t limit);

}  // namespace atom::serving
