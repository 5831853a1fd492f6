#!/usr/bin/env python3
"""Writes tests/data/text/chat_template_cases.json with python3-jinja2 as the oracle.

    /usr/bin/python3 tools/make_template_fixtures.py [--out tests/data/text/chat_template_cases.json]

The environment is the one in which Hugging Face renders chat templates. `renders`: every template of
tests/data/text/chat_templates with every conversation; `cases`: single constructs; `random`: fragments
drawn from a grammar with a fixed seed. An expected text of null stands for an error.
"""
import argparse
import datetime
import itertools
import json
import pathlib
import random

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

import template_cases

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests/data/text/chat_templates"
NOW = datetime.datetime(2024, 7, 26, 12, 34, 56)
RANDOM_CASES = 1500


class Generation(jinja2.ext.Extension):
    """{% generation %} marks what the assistant wrote; here it renders its body."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = to_json
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def render(env, source, context):
    try:
        text = env.from_string(source).render(**context)
        text.encode("utf-8")
        return text
    except (Exception, RecursionError):  # whatever a template can raise
        return None


WORDS = ["a", "b", "Hello", " x ", "user", "role", "\u00e9\u4e16", "it's", "", "1", "a,b,c", "A b-c"]
NAMES = ["s", "t", "n", "z", "f", "xs", "d", "msgs", "missing", "nothing", "yes", "pairs", "empty"]
FILTERS = ["trim", "upper", "lower", "title", "capitalize", "length", "first", "last", "list", "string", "int",
           "float", "abs", "reverse|list", "join", "join(',')", "sort", "unique|list", "tojson", "default('q')",
           "d('w', true)", "items|list", "dictsort", "sum", "map('upper')|list", "map(attribute='role')|list",
           "select|list", "reject('none')|list", "selectattr('role')|list", "selectattr('role', 'equalto', 'user')|list",
           "replace('a', 'b')", "round", "round(1)", "indent", "escape", "batch(2)|list", "min", "max", "count",
           "tojson(indent=2)", "wordcount", "sort(reverse=true)", "map('int')|join('-')"]
TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "iterable",
         "sequence", "true", "false", "odd", "even", "callable", "equalto 1", "eq('a')", "in [1, 'a']", "divisibleby 2",
         "gt 0", "lower", "upper", "sameas none"]
METHODS = [".strip()", ".upper()", ".lower()", ".split()", ".split('a')", ".split(',', 1)", ".startswith('a')",
           ".endswith('b')", ".title()", ".items()|list", ".keys()|list", ".values()|list", ".get('role')",
           ".get('q', 2)", ".role", "['role']", "[0]", "[-1]", "[1:]", "[::-1]", "[:2]", ".find('a')", ".count('a')",
           ".replace('a', 'zz')", ".lstrip('a')", ".rstrip()", "[1:-1:2]", ".splitlines()", ".index(1)", ".rfind('b')",
           ".capitalize()", ".isdigit()", ".items", ".append(1)", ".q"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]


class Grammar:
    """Draws fragments; most are valid, many raise."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def literal(self):
        pick = self.rng.choice
        return pick([lambda: repr(pick(WORDS)), lambda: str(pick([0, 1, 2, 3, 7, 10])),
                     lambda: pick(["1.5", "0.5", "2.0", "1e3"]), lambda: pick(["true", "false", "none"]),
                     lambda: "[" + ", ".join(self.expression(0) for _ in range(self.rng.randrange(4))) + "]",
                     lambda: "(" + self.expression(0) + ", " + self.expression(0) + ")",
                     lambda: "{" + repr(pick(WORDS)) + ": " + self.expression(0) + "}"])()

    def expression(self, depth):
        kind = self.rng.randrange(10) if depth > 0 else self.rng.randrange(3)
        sub = lambda: self.expression(depth - 1)  # noqa: E731
        if kind == 0:
            return self.literal()
        if kind < 3:
            return self.rng.choice(NAMES)
        if kind == 3:
            return f"({sub()} {self.rng.choice(OPERATORS)} {sub()})"
        if kind == 4:
            return f"{sub()} {self.rng.choice(OPERATORS)} {sub()}"
        if kind == 5:
            return f"{sub()}|{self.rng.choice(FILTERS)}"
        if kind == 6:
            return f"({sub()}){self.rng.choice(METHODS)}"
        if kind == 7:
            return f"{sub()} is {self.rng.choice(['', 'not '])}{self.rng.choice(TESTS)}"
        if kind == 8:
            return f"({sub()} if {sub()} else {sub()})"
        return f"{self.rng.choice(['not ', '-', '+', ''])}{sub()}"

    def space(self):
        return self.rng.choice(["", "", " ", "\n", "\n  ", "  \n\n", "x", "\t", "y\n"])

    def tag(self, inside):
        return "{%" + self.rng.choice(["", "", "-", "+"]) + " " + inside + " " + \
            self.rng.choice(["", "", "-", "+"]) + "%}" + self.space()

    def fragment(self, depth):
        kind = self.rng.randrange(9) if depth > 0 else self.rng.randrange(3)
        inner = lambda: "".join(self.fragment(depth - 1) for _ in range(self.rng.randrange(1, 3)))  # noqa: E731
        if kind < 2:
            return self.space() + "{{" + self.rng.choice(["", "-"]) + " " + self.expression(self.rng.randrange(3)) + \
                " " + self.rng.choice(["", "-"]) + "}}" + self.space()
        if kind == 2:
            return self.space() + self.rng.choice(["{# c #}", "{#- c -#}", "text", "{% raw %}{{ r }}{% endraw %}",
                                                   "  {# c #}\n"]) + self.space()
        if kind == 3:
            return self.tag(f"if {self.expression(1)}") + inner() + self.tag("else") + inner() + self.tag("endif")
        if kind == 4:
            return self.tag(f"for n in {self.rng.choice(['xs', 'msgs', 'd', 's', self.expression(1)])}") + inner() + \
                "{{ loop.index }}" + self.tag(self.rng.choice(["if loop.last", "if n == 2"])) + \
                self.rng.choice(["!", "{% break %}", "{% continue %}"]) + self.tag("endif") + inner() + self.tag("endfor")
        if kind == 5:
            return self.tag(f"set {self.rng.choice(['s', 'q', 'n'])} = {self.expression(2)}")
        if kind == 6:
            return self.tag("set q") + inner() + self.tag("endset") + "{{ q|length }}"
        if kind == 7:
            return self.tag(f"for k, v in {self.rng.choice(['d.items()', 'pairs', 'd|items', 'xs'])}") + \
                "{{ k }}={{ v }}" + inner() + self.tag("endfor")
        return self.tag("macro m(a, b=2)") + inner() + "{{ a }}{{ b }}" + self.tag("endmacro") + \
            "{{ m(" + self.expression(1) + ") }}"


def comparable(text):
    """Whether the text shows no address and no integer beyond 64 bits."""
    return text is None or not (" object " in text or " at 0x" in text or "<bound" in text or "<built" in text or
                                "<Undefined" in text or "dict_" in text or
                                any(len(digits) > 17 for digits in "".join(c if c.isdigit() else " " for c in text).split()))


def random_cases(env, count):
    grammar = Grammar(20240726)
    cases, errors = [], 0
    while len(cases) < count:
        source = "".join(grammar.fragment(2) for _ in range(grammar.rng.randrange(1, 3)))
        if "**" in source:
            continue
        expected = render(env, source, template_cases.VALUES)
        if not comparable(expected) or (expected is None and errors * 4 > len(cases)):
            continue
        errors += expected is None
        cases.append([source, expected])
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "tests/data/text/chat_template_cases.json")
    options = parser.parse_args()
    env = environment()
    renders = []
    for path in sorted(FOLDER.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for name, prompt in itertools.product(template_cases.CONVERSATIONS, (True, False)):
            context = dict(template_cases.CONVERSATIONS[name], add_generation_prompt=prompt, bos_token="<s>",
                           eos_token="</s>")
            renders.append([path.name, name, prompt, render(env, source, context)])
    cases = template_cases.cases(lambda source: render(env, source, template_cases.VALUES), env.filters)
    cases = [case for case in cases if comparable(case[1])]
    result = {
        "oracle": f"jinja2 {jinja2.__version__}",
        "conversations": template_cases.CONVERSATIONS,
        "values": template_cases.VALUES,
        "renders": renders,
        "cases": cases,
        "random": random_cases(env, RANDOM_CASES),
    }
    with open(options.out, "w", encoding="ascii") as out:
        out.write("{\n")
        for i, (key, value) in enumerate(result.items()):
            out.write(f' {json.dumps(key)}: ')
            if isinstance(value, list):
                out.write("[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]")
            else:
                out.write(json.dumps(value))
            out.write(",\n" if i + 1 < len(result) else "\n}\n")
    for key in ("renders", "cases", "random"):
        rows = result[key]
        print(f"{key}: {len(rows)}, of which {sum(row[-1] is None for row in rows)} are errors")


if __name__ == "__main__":
    main()
