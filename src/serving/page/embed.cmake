# Writes OUTPUT, a source file that defines atom::serving::page_files() (serving/page.h) with the files
# of the page in FOLDER. index.html becomes "/", and comes first.
# Usage: cmake -D FOLDER=... -D OUTPUT=... -P embed.cmake
set(type_html "text/html; charset=utf-8")
set(type_css "text/css; charset=utf-8")
set(type_js "text/javascript; charset=utf-8")
set(type_svg "image/svg+xml")

file(GLOB names RELATIVE ${FOLDER} ${FOLDER}/*.css ${FOLDER}/*.js ${FOLDER}/*.svg)
list(SORT names)
set(entries "")
foreach(name IN ITEMS index.html LISTS names)
  file(READ ${FOLDER}/${name} bytes)
  string(FIND "${bytes}" ")atom\"" at)
  if(NOT at EQUAL -1)
    message(FATAL_ERROR "${name} has the characters that end its literal, )atom\"")
  endif()
  string(REGEX REPLACE ".*\\." "type_" type ${name})
  set(path "/${name}")
  if(name STREQUAL "index.html")
    set(path "/")
  endif()
  string(APPEND entries "    {\"${path}\", \"${${type}}\",\n     R\"atom(${bytes})atom\"},\n")
endforeach()
file(WRITE ${OUTPUT} "// Written by embed.cmake.
#include \"serving/page.h\"

namespace atom::serving {

namespace {

constexpr PageFile kPageFiles[] = {
${entries}};

}  // namespace

std::span<const PageFile> page_files() { return kPageFiles; }

}  // namespace atom::serving
")
