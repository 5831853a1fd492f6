// Values of the template language, as Python has them, and the heap that owns them during one
// rendering.
//
// A Value is a small handle; lists, dicts, functions and texts live in the Heap until the rendering
// has ended. Nothing can be freed earlier, so values may refer to each other in cycles. The heap
// also counts steps and bytes: whoever does work in proportion to its input charges it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace atom::text::jinja {

// What the template or a budget raised; the interpreter adds the line and throws atom::Error.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <typename... Args>
[[noreturn]] void raise(fmt::format_string<Args...> format, Args&&... args) {
  throw Failure(fmt::format(format, std::forward<Args>(args)...));
}

struct Budgets {
  size_t source_bytes = 1 << 20;
  size_t steps = 20'000'000;        // nodes evaluated, elements and 16 bytes of text touched
  size_t memory_bytes = 256 << 20;  // of all values of one rendering, output included
  size_t output_bytes = 64 << 20;
  int depth = 600;  // nested evaluations, macro calls included
};
constexpr int kMaxNesting = 150;        // of expressions and blocks in the source, and of values
constexpr int64_t kMaxRange = 100'000;  // elements, as Jinja's sandbox has it

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,  // every sequence: see Flavor
  kDict,
  kNamespace,
  kFunction,
  kLoop,
};

struct List;
struct Dict;
struct Function;
struct Loop;

struct Value {
  Kind kind = Kind::kUndefined;
  union {
    bool boolean;
    int64_t integer = 0;
    double number;
    const char* chars;  // kString, and the name of what is undefined
    List* list;
    Dict* dict;  // kDict and kNamespace
    Function* function;
    Loop* loop;
  };
  size_t size = 0;  // bytes at chars

  bool is(Kind other) const { return kind == other; }
  bool is_number() const { return is(Kind::kBool) || is(Kind::kInt) || is(Kind::kFloat); }
  bool is_integral() const { return is(Kind::kBool) || is(Kind::kInt); }
  std::string_view text() const { return {chars, size}; }
  int64_t as_int() const { return is(Kind::kBool) ? static_cast<int64_t>(boolean) : integer; }
  double as_double() const { return is(Kind::kFloat) ? number : static_cast<double>(as_int()); }
};

inline Value none() {
  Value v;
  v.kind = Kind::kNone;
  return v;
}
inline Value of_bool(bool b) {
  Value v;
  v.kind = Kind::kBool;
  v.boolean = b;
  return v;
}
inline Value of_int(int64_t i) {
  Value v;
  v.kind = Kind::kInt;
  v.integer = i;
  return v;
}
inline Value of_float(double d) {
  Value v;
  v.kind = Kind::kFloat;
  v.number = d;
  return v;
}
// The bytes must outlive the rendering: of the source, of the context or of Heap::keep.
inline Value of_text(std::string_view text) {
  Value v;
  v.kind = Kind::kString;
  v.chars = text.data();
  v.size = text.size();
  return v;
}
inline Value undefined(std::string_view name) {
  Value v = of_text(name);
  v.kind = Kind::kUndefined;
  return v;
}

enum class Flavor : uint8_t { kList, kTuple, kRange, kGenerator, kKeys, kValues, kItems };

struct List {
  Flavor flavor = Flavor::kList;
  std::vector<Value> items;
  bool spent = false;      // a generator gives its elements once
  int64_t bounds[3] = {};  // start, stop, step of a range, for printing
};

// In order of insertion. Lookups are linear: the objects of conversations are small, and each
// lookup is charged by the size.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
};

class Heap {
 public:
  explicit Heap(const Budgets& budgets);
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  ~Heap();

  const Budgets& budgets() const { return budgets_; }
  void step(size_t n = 1) {
    if (n > steps_left()) raise("the template takes more than {} steps", budgets_.steps);
    steps_ += n;
  }
  void charge(size_t bytes) {
    if (bytes > budgets_.memory_bytes - memory_)
      raise("the template needs more than {} bytes of memory", budgets_.memory_bytes);
    memory_ += bytes;
    step(bytes / 16);
  }

  // Work of looking for a text in another: both lengths count, since the search is a plain one.
  void charge_search(size_t bytes, size_t sought) { step(bytes / 16 * (1 + sought / 64)); }

  Value keep(std::string text);
  Value list(std::vector<Value> items, Flavor flavor = Flavor::kList);
  Value tuple(std::vector<Value> items) { return list(std::move(items), Flavor::kTuple); }
  Value dict(std::vector<std::pair<Value, Value>> items = {}, Kind kind = Kind::kDict);
  Value function(const Function& function);

  // Null where the key is missing.
  const Value* find(const Dict& dict, const Value& key);
  const Value* find(const Dict& dict, std::string_view key) { return find(dict, of_text(key)); }
  void set(Dict& dict, const Value& key, const Value& value);

 private:
  size_t steps_left() const { return budgets_.steps - steps_; }

  Budgets budgets_;
  size_t steps_ = 0;
  size_t memory_ = 0;
  std::deque<std::string> texts_;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::vector<std::unique_ptr<Function>> functions_;
};

bool truth(const Value& value);
bool is_undefined(const Value& value);
bool equal(Heap& heap, const Value& a, const Value& b, int depth = 0);
// -1, 0, 1, and 2 where a NaN makes them unordered. Failure: types that Python does not order.
int compare(Heap& heap, const Value& a, const Value& b, int depth = 0);
bool contains(Heap& heap, const Value& container, const Value& item);

// len(). Failure: a value without one.
int64_t length(Heap& heap, const Value& value);
// The elements as `for` sees them: characters of a text, keys of a dict. Failure: not iterable.
std::vector<Value> elements(Heap& heap, const Value& value);
bool is_iterable(const Value& value);

std::string to_str(Heap& heap, const Value& value);   // str(), and "" of what is undefined
std::string to_repr(Heap& heap, const Value& value);  // repr()
std::string float_repr(double number);
std::string_view type_name(const Value& value);  // as Python calls it

}  // namespace atom::text::jinja
