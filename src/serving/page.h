// The page at "/" of the server: chat, and a live view of its metrics. Its files (src/serving/page)
// are part of the library. Nothing in them is secret, so they are served without a key; what the page
// asks for afterwards needs one where the server does.
#pragma once

#include <span>
#include <string_view>

namespace atom::serving {

struct PageFile {
  std::string_view path;          // as requested: "/", "/app.js"
  std::string_view content_type;  // with its charset
  std::string_view bytes;         // ASCII; lives as long as the program
};

// All files of the page; "/" comes first.
std::span<const PageFile> page_files();

// Value of Content-Security-Policy, to be sent with every file of the page: its own scripts and styles
// from files, its own server, and nothing else. Trusted types without a policy forbid innerHTML and
// its like.
inline constexpr std::string_view kPageSecurityPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

}  // namespace atom::serving
