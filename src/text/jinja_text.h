// Python's text operations on valid UTF-8. Positions count code points unless said otherwise.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atom::text::jinja {

bool is_space(uint32_t code_point);  // str.isspace()
size_t count_code_points(std::string_view text);
// Byte offset of a position; text.size() beyond the end.
size_t byte_offset(std::string_view text, size_t position);

// Characters to remove; without a set: white space.
std::string_view strip_front(std::string_view text, std::optional<std::string_view> set = {});
std::string_view strip_back(std::string_view text, std::optional<std::string_view> set = {});

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string title(std::string_view text);       // str.title()
std::string capitalize(std::string_view text);  // str.capitalize()
// str.replace(); at most `count` times, all where it is negative. The result must not exceed
// `max_bytes`: nullopt.
std::optional<std::string> replace(std::string_view text, std::string_view old, std::string_view by,
                                   int64_t count, size_t max_bytes);

// str.split(separator, most), from the right with `right`; white space without a separator.
std::vector<std::string_view> split(std::string_view text,
                                    std::optional<std::string_view> separator, int64_t most,
                                    bool right);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

void append_quoted(std::string& out, std::string_view text);  // repr()

enum class CharacterClass { kAlpha, kDecimal, kDigit, kSpace, kUpper, kLower, kCased, kNumeric };
bool in_class(uint32_t code_point, CharacterClass wanted);

}  // namespace atom::text::jinja
