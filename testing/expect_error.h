// Expects that a call throws atom::Error and that its message holds every given part.
//
//   expect_error([&] { read_file(path); }, {path.string(), "not a regular file"});
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <string_view>

#include "base/error.h"

namespace atom::testing {

template <typename Call>
void expect_error(const Call& call, std::initializer_list<std::string_view> parts) {
  try {
    call();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    for (const std::string_view part : parts)
      EXPECT_NE(message.find(part), std::string::npos)
          << "\"" << part << "\" is not in: " << message;
    return;
  }
  ADD_FAILURE() << "no error; expected one with \"" << *parts.begin() << "\"";
}

}  // namespace atom::testing
