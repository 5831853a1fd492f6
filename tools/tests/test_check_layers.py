"""Tests of tools/check_layers.py: python3 -m unittest discover -s tools/tests"""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import check_layers  # noqa: E402


class CheckLayers(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        self.write("src/base/error.h", "#pragma once\n")
        self.write("src/format/format.h", "enum class Kind { kInt4, kInt8 };\n")
        self.write("src/backend/backend.h", '#include "base/error.h"\n')

    def tearDown(self):
        self.folder.cleanup()

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def findings(self):
        found = check_layers.Checker(self.root.resolve()).run()
        return [f"{f.path}:{f.line}:{f.rule}" for f in found]

    def test_clean_tree(self):
        self.write("src/model/a.cc", '#include "backend/backend.h"\n#include <vector>\n')
        self.write("src/backend/cpu/b.cc", '#include "backend/backend.h"\n#include "format/format.h"\n')
        self.write("apps/main.cc", '#include "model/a.h"\n#include <CLI/CLI.hpp>\n')
        self.write("src/model/a.h", "\n")
        self.assertEqual(self.findings(), [])

    def test_upward_include(self):
        self.write("src/base/up.cc", '\n#include "format/format.h"\n')
        self.assertEqual(self.findings(), ["src/base/up.cc:2:layer"])

    def test_sideways_include(self):
        self.write("src/text/t.h", '#include "format/format.h"\n')
        self.write("src/checkpoint/c.h", '#include "backend/backend.h"\n')
        self.assertEqual(self.findings(), ["src/checkpoint/c.h:1:layer", "src/text/t.h:1:layer"])

    def test_interface_may_not_include_an_implementation(self):
        self.write("src/backend/cpu/cpu.h", "\n")
        self.write("src/backend/open.cc", '#include "backend/cpu/cpu.h"\n')
        self.assertEqual(self.findings(), ["src/backend/open.cc:1:layer"])

    def test_implementations_may_not_include_each_other(self):
        self.write("src/backend/cpu/cpu.h", "\n")
        self.write("src/backend/reference/r.cc", '#include "backend/cpu/cpu.h"\n')
        self.assertEqual(self.findings(), ["src/backend/reference/r.cc:1:layer"])

    def test_unknown_folder(self):
        self.write("src/utility/u.h", "\n")
        self.write("src/backend/metal/m.h", "\n")
        self.assertEqual(self.findings(), ["src/backend/metal/m.h:1:layer", "src/utility/u.h:1:layer"])

    def test_unresolved_include(self):
        self.write("src/model/a.cc", '#include "model/missing.h"\n')
        self.assertEqual(self.findings(), ["src/model/a.cc:1:include"])

    def test_library_outside_its_wrapper(self):
        self.write("src/model/a.cc", "#include <nlohmann/json.hpp>\n#include <fmt/format.h>\n")
        self.assertEqual(self.findings(), ["src/model/a.cc:1:library"])

    def test_silence(self):
        self.write("src/model/a.cc",
                   'void f() { printf("x"); }\nvoid g() { std::cout << 1; }\nvoid h() { std::exit(1); }\n'
                   'void i() { std::getenv("A"); }\nvoid j() { abort(); }\n')
        self.assertEqual(self.findings(), [f"src/model/a.cc:{n}:silence" for n in range(1, 6)])

    def test_silence_ignores_text_and_other_names(self):
        self.write("src/model/a.cc",
                   '// printf("x")\n/* exit(1) */\nauto s = "abort()"; char c = \'"\'; loop.exit();\n'
                   "int n = snprintf(b, 4, f); auto t = R\"(getenv(\"x\"))\"; int e = on_exit_(1);\n")
        self.assertEqual(self.findings(), [])

    def test_silence_allows_apps(self):
        self.write("apps/main.cc", 'void f() { printf("x"); std::getenv("A"); }\n')
        self.assertEqual(self.findings(), [])

    def test_switch_over_a_format(self):
        self.write("src/model/a.cc", "switch (k) { case format::Kind::kInt4: break; }\n")
        self.write("src/format/format.cc", "switch (k) { case Kind::kInt4: break; }\n")
        self.assertEqual(self.findings(), ["src/model/a.cc:1:format"])

    def test_switch_over_an_own_enumeration_of_that_name(self):
        self.write("src/text/a.cc", "enum class Kind { kWord };\nswitch (k) { case Kind::kWord: break; }\n")
        self.assertEqual(self.findings(), [])

    def test_text_rules(self):
        self.write("src/base/a.cc", "// TODO later\n// TODO(#7): later\n// \u00e9\n")
        self.write("tests/base/b_test.cc", "// FIXME\n")
        self.assertEqual(self.findings(),
                         ["src/base/a.cc:1:todo", "src/base/a.cc:3:ascii", "tests/base/b_test.cc:1:todo"])

    def test_size(self):
        self.write("src/base/long.cc", "\n" * 401)
        self.write("src/base/just.cc", "\n" * 400)
        self.assertEqual(self.findings(), ["src/base/long.cc:401:size"])

    def test_exit_status(self):
        self.assertEqual(check_layers.main(["--root", str(self.root)]), 0)
        self.write("src/base/up.cc", '#include "format/format.h"\n')
        self.assertEqual(check_layers.main(["--root", str(self.root)]), 1)
        self.assertEqual(check_layers.main(["--root", str(self.root / "nowhere")]), 2)


if __name__ == "__main__":
    unittest.main()
