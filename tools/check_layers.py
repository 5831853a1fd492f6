#!/usr/bin/env python3
"""Checks the rules of the source tree that a machine can check.

  layer      an include may only reach a lower level, or the same folder (table LEVELS below)
  include    a quoted include resolves inside the project
  library    a third-party header stays behind the folder that wraps it
  silence    nothing under src/ prints, ends the process or reads the environment
  format     no switch over an enumeration of src/format outside src/format
  ascii      sources are ASCII
  todo       TODO, FIXME and XXX carry a number: TODO(#12)
  size       a source file has at most 400 lines

Prints `file:line: rule: what` for each finding; exit status 0 (clean), 1 (findings), 2 (usage).
Usage: tools/check_layers.py [--root DIR]        needs Python 3.9 or newer and nothing else
"""

import argparse
import pathlib
import re
import sys

# Folder below src/ -> level. "backend" stands for the files directly in src/backend.
LEVELS = {
    "base": 0,
    "format": 1,
    "text": 1,
    "tensor": 2,
    "checkpoint": 3,
    "backend": 3,
    "backend/reference": 4,
    "backend/cpu": 4,
    "backend/cuda": 4,
    "kv": 4,
    "model": 5,
    "convert": 6,
    "quantizer": 6,
    "engine": 6,
    "eval": 6,
    "timing": 7,
    "serving": 7,
}
APPS = "apps"
APPS_LEVEL = 8

# Third-party header (prefix) -> folders below src/ (or "apps") that may include it.
LIBRARIES = {
    "nlohmann/": {"base"},
    "tbb/": {"base"},
    "oneapi/tbb": {"base"},
    "openssl/": {"base", "serving"},
    "boost/": {"serving"},
    "toml++/": {APPS},
    "pcre2": {"text"},
    "utf8proc": {"text"},
    "CLI/": {APPS},
    "cblas": {"quantizer", "backend/cpu"},
    "openblas": {"quantizer"},
    "cuda_": {"backend/cuda"},
    "gtest/": set(),
    "benchmark/": set(),
}

MAX_LINES = 400
CPP_SUFFIXES = {".h", ".cc", ".cpp", ".cu", ".cuh", ".inc"}
PAGE_SUFFIXES = {".html", ".css", ".js"}
SOURCE_FOLDERS = ("src", "apps", "tests", "testing", "fuzz", "bench", "tools")
OTHER_SOURCES = {".py", ".sh", ".cmake"}
# Folders of generated or third-party material, never sources.
SKIPPED_PARTS = {"data", "corpus", "__pycache__", "build"}

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
TODO = re.compile(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))")
ENUM = re.compile(r"\benum\s+(?:class\s+|struct\s+)?(\w+)")
SILENCE = [
    (re.compile(r"(?<![\w.>])(?:std::)?(v?f?printf|puts|putchar|fputs)\s*\("), "prints"),
    (re.compile(r"\bstd::(cout|cerr|clog)\b"), "prints"),
    (
        re.compile(r"(?<![\w.>])(?:std::)?(abort|exit|_exit|_Exit|quick_exit|terminate)\s*\("),
        "ends the process",
    ),
    (re.compile(r"(?<![\w.>])(?:std::)?(getenv|secure_getenv|setenv|putenv)\s*\("),
     "touches the environment"),
]


class Finding:
    def __init__(self, path, line, rule, what):
        self.path, self.line, self.rule, self.what = path, line, rule, what

    def __str__(self):
        return f"{self.path}:{self.line}: {self.rule}: {self.what}"


def blank(text):
    """Replaces a stretch of source by blanks that keep its line breaks."""
    return re.sub(r"[^\n]", " ", text)


def strip_comments_and_strings(text):
    """C++ source with comments and literals blanked; line numbers stay."""
    pattern = re.compile(
        r'R"([^\s()\\]{0,16})\(.*?\)\1"'  # raw string
        r"|//[^\n]*"
        r"|/\*.*?\*/"
        r'|"(?:\\.|[^"\\\n])*"'
        r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'",
        re.DOTALL,
    )
    return pattern.sub(lambda m: blank(m.group(0)), text)


def folder_of(path):
    """The LEVELS key of a path below src/ (a PurePosixPath), or None where the table has none."""
    parts = path.parts[:-1]
    for n in range(len(parts), 0, -1):
        key = "/".join(parts[:n])
        if key in LEVELS:
            # A folder below src/backend that is not in the table is not "the files in src/backend".
            return key if key != "backend" or n == len(parts) else None
    return None


class Checker:
    def __init__(self, root):
        self.root = root
        self.findings = []
        self.format_enums = self.enums_of_format()

    def enums_of_format(self):
        names = set()
        for header in sorted((self.root / "src" / "format").glob("**/*.h")):
            names.update(ENUM.findall(strip_comments_and_strings(self.text_of(header))))
        return names - {"class", "struct"}

    def text_of(self, path):
        return path.read_bytes().decode("utf-8", errors="replace")

    def add(self, path, line, rule, what):
        self.findings.append(Finding(path.relative_to(self.root), line, rule, what))

    def run(self):
        for path in self.sources():
            text = self.text_of(path)
            self.check_text(path, text)
            if path.suffix in CPP_SUFFIXES and path.relative_to(self.root).parts[0] in ("src", APPS):
                self.check_cpp(path, text)
        return self.findings

    def sources(self):
        wanted = CPP_SUFFIXES | PAGE_SUFFIXES | OTHER_SOURCES
        for name in SOURCE_FOLDERS:
            for path in sorted((self.root / name).glob("**/*")):
                relative = path.relative_to(self.root)
                if not path.is_file() or SKIPPED_PARTS & set(relative.parts[:-1]):
                    continue
                if path.suffix in wanted or path.name == "CMakeLists.txt":
                    yield path
        for name in ("CMakeLists.txt", "demo", "test", ".ci/run"):
            if (self.root / name).is_file():
                yield self.root / name

    def check_text(self, path, text):
        own = path.relative_to(self.root).as_posix()
        about_rules = own in ("tools/check_layers.py", "tools/tests/test_check_layers.py")
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            if not line.isascii():
                column = next(i for i, c in enumerate(line) if not c.isascii())
                self.add(path, number, "ascii",
                         f"U+{ord(line[column]):04X} in column {column + 1}; write an escape")
            if not about_rules and TODO.search(line):
                self.add(path, number, "todo",
                         f"{TODO.search(line).group(1)} without a number, as in TODO(#12)")
        count = text.count("\n")
        if path.suffix in CPP_SUFFIXES | PAGE_SUFFIXES and count > MAX_LINES:
            self.add(path, MAX_LINES + 1, "size",
                     f"{count} lines, at most {MAX_LINES}; split it by concept")

    def check_cpp(self, path, text):
        relative = path.relative_to(self.root)
        if relative.parts[0] == APPS:
            folder, level = APPS, APPS_LEVEL
        else:
            folder = folder_of(pathlib.PurePosixPath(*relative.parts[1:]))
            if folder is None:
                self.add(path, 1, "layer", "its folder has no level in tools/check_layers.py")
                return
            level = LEVELS[folder]
        self.check_includes(path, text, folder, level)
        code = strip_comments_and_strings(text)
        if relative.parts[0] == "src":
            self.check_silence(path, code)
            if folder != "format":
                self.check_format_switch(path, code)

    def check_includes(self, path, text, folder, level):
        for number, line in enumerate(text.split("\n"), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            if match.group(1) is not None:
                self.check_quoted(path, number, match.group(1), folder, level)
            else:
                self.check_library(path, number, match.group(2), folder)

    def check_quoted(self, path, number, include, folder, level):
        target = self.root / "src" / include
        if not target.is_file() and (path.parent / include).is_file():
            target = (path.parent / include).resolve()
        if not target.is_file():
            if not self.is_library(include):
                self.add(path, number, "include", f'"{include}" is no file below src/')
            else:
                self.check_library(path, number, include, folder)
            return
        try:
            below_src = target.resolve().relative_to((self.root / "src").resolve())
        except ValueError:
            if folder != APPS:
                self.add(path, number, "layer", f'"{include}" lies outside src/')
            return
        other = folder_of(pathlib.PurePosixPath(below_src.as_posix()))
        if other is None:
            self.add(path, number, "layer", f'"{include}" has no level in tools/check_layers.py')
        elif other != folder and LEVELS[other] >= level:
            way = "sideways" if LEVELS[other] == level else "upward"
            self.add(path, number, "layer",
                     f'{folder} (level {level}) includes "{include}" of {other} '
                     f"(level {LEVELS[other]}): {way}")

    def is_library(self, include):
        return any(include.startswith(prefix) for prefix in LIBRARIES)

    def check_library(self, path, number, include, folder):
        for prefix, allowed in LIBRARIES.items():
            if include.startswith(prefix) and folder not in allowed:
                where = " or ".join(sorted(allowed)) or "tests and bench"
                # json.h hands nlohmann's type on; its readers include json.h, not the library.
                self.add(path, number, "library", f"<{include}> belongs to {where} only")

    def check_silence(self, path, code):
        for number, line in enumerate(code.split("\n"), 1):
            for pattern, what in SILENCE:
                match = pattern.search(line)
                if match:
                    self.add(path, number, "silence", f"{match.group(1)} {what}")

    def check_format_switch(self, path, code):
        own = set(ENUM.findall(code))
        header = path.with_suffix(".h")
        if header != path and header.is_file():
            own.update(ENUM.findall(strip_comments_and_strings(self.text_of(header))))
        for number, line in enumerate(code.split("\n"), 1):
            for name in re.findall(r"\bcase\s+(?:\w+::)*(\w+)::\w+\s*:", line):
                if name in self.format_enums and name not in own:
                    self.add(path, number, "format",
                             f"switch over {name} of src/format; use the list of formats there")


def main(arguments):
    parser = argparse.ArgumentParser(description="Checks levels and house rules of the source tree.")
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent)
    options = parser.parse_args(arguments)
    if not (options.root / "src").is_dir():
        print(f"{options.root} has no folder src", file=sys.stderr)
        return 2
    findings = Checker(options.root.resolve()).run()
    for finding in findings:
        print(finding)
    print(f"check_layers: {len(findings)} findings" if findings else "check_layers: clean")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
