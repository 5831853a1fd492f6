// Chat templates against python3-jinja2 (fixtures of tools/make_template_fixtures.py), budgets, and
// hostile templates.
#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "text/fixture.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

// 2024-07-26 12:34:56 local time, as in the generator.
std::time_t fixture_time() {
  std::tm local{};
  local.tm_year = 124;
  local.tm_mon = 6;
  local.tm_mday = 26;
  local.tm_hour = 12;
  local.tm_min = 34;
  local.tm_sec = 56;
  local.tm_isdst = -1;
  return std::mktime(&local);
}

// What the fixtures hold: the text, or null where the template raises.
Json rendered(const std::string& source, const Json& context, std::string* error = nullptr) {
  try {
    return ChatTemplate::parse(source).render(context, fixture_time());
  } catch (const Error& raised) {
    EXPECT_TRUE(is_valid_utf8(raised.what()));
    EXPECT_NE(std::string(raised.what()).find("line "), std::string::npos) << raised.what();
    if (error != nullptr) *error = raised.what();
    return nullptr;
  }
}

std::string error_of(const std::string& source, const Json& context = Json::object(),
                     const ChatTemplateLimits& limits = {}) {
  try {
    ChatTemplate::parse(source, limits).render(context);
  } catch (const Error& raised) {
    return raised.what();
  }
  return "no error";
}

const Json& template_fixture() {
  static const Json kFixture = test::fixture("chat_template_cases.json");
  return kFixture;
}

void expect_cases(const Json& cases, const Json& values) {
  for (const Json& entry : cases) {
    std::string error;
    const Json got = rendered(entry[0], values, &error);
    EXPECT_EQ(got, entry[1]) << entry[0] << "\n" << error;
  }
}

TEST(ChatTemplateTest, FamiliesRenderAsInPython) {
  const Json& fixture = template_fixture();
  std::map<std::string, std::string> sources;
  ASSERT_GT(fixture["renders"].size(), 500u);
  for (const Json& entry : fixture["renders"]) {
    const std::string name = entry[0];
    std::string& source = sources[name];
    if (source.empty())
      source = read_file(std::string(ATOM_TEST_DATA) + "/text/chat_templates/" + name);
    Json context = fixture["conversations"][entry[1].get<std::string>()];
    context["add_generation_prompt"] = entry[2];
    context["bos_token"] = "<s>";
    context["eos_token"] = "</s>";
    std::string error;
    const Json got = rendered(source, context, &error);
    EXPECT_EQ(got, entry[3]) << entry[0] << " " << entry[1] << "\n" << error;
  }
}

TEST(ChatTemplateTest, ConstructsRenderAsInPython) {
  ASSERT_GT(template_fixture()["cases"].size(), 900u);
  expect_cases(template_fixture()["cases"], template_fixture()["values"]);
}

TEST(ChatTemplateTest, RandomFragmentsRenderAsInPython) {
  ASSERT_GT(template_fixture()["random"].size(), 1000u);
  expect_cases(template_fixture()["random"], template_fixture()["values"]);
}

std::string times(const std::string& text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST(ChatTemplateTest, ErrorsNameTheLine) {
  expect_contains(error_of("a\n\n{{ missing.x }}"),
                  "chat template, line 3: 'missing' is undefined");
  expect_contains(error_of("a\n{% if true %}"), "chat template, line 2: expected '{% endif %}'");
  expect_contains(error_of("{{ raise_exception('No \xC3\xA9') }}"), "line 1: No \xC3\xA9");
  EXPECT_LT(error_of("{{ raise_exception('\xC3\xA9' * 5000) }}").size(), 600U);
  expect_contains(error_of("{% for m in messages %}\n{{ m.x.y }}{% endfor %}", {{"messages", {1}}}),
                  "line 2: 'x' is undefined");
  expect_contains(error_of("\xFF"), "not valid UTF-8");
}

TEST(ChatTemplateTest, BudgetsHold) {
  ChatTemplateLimits small;
  small.source_bytes = 10;
  expect_contains(error_of("12345678901", Json::object(), small), "at most 10 are read");
  small = {};
  small.output_bytes = 99;
  expect_contains(error_of("{% for x in range(10) %}1234567890{% endfor %}", Json::object(), small),
                  "99 bytes");
  EXPECT_EQ(error_of("{% for x in range(9) %}1234567890{% endfor %}", Json::object(), small),
            "no error");
  small = {};
  small.steps = 1000;
  expect_contains(error_of("{% for x in range(1000) %}{{ x }}{% endfor %}", Json::object(), small),
                  "1000 steps");
  small = {};
  small.memory_bytes = 1 << 20;
  for (const char* source : {
           "{{ 'a' * 10000000 }}",
           "{{ [1] * 10000000 }}",
           "{{ 'ab' * 9223372036854775807 }}",
           "{% set ns = namespace(s='ab') %}{% for x in range(60) %}{% set ns.s = ns.s + ns.s %}"
           "{% endfor %}",
           "{% set ns = namespace(s=[1]) %}{% for x in range(60) %}{% set ns.s = ns.s + ns.s %}"
           "{% endfor %}",
           "{% set ns = namespace(s='ab') %}{% for x in range(60) %}"
           "{% set ns.s = ns.s|replace('a', 'aaaaaaaa') %}{% endfor %}",
           "{{ (range(100000)|list) * 1000 }}",
       }) {
    expect_contains(error_of(source, Json::object(), small), "1048576 bytes");
  }
}

TEST(ChatTemplateTest, RecursionIsBounded) {
  for (const char* open :
       {"(", "[", "{'a':", "-", "not ", "x[", "f(", "1 if ", "1 if 1 else ", "x is in "}) {
    expect_contains(error_of("{{ " + times(open, 8'000)), "line 1: ");
  }
  for (const char* more : {"+1", "|trim", ".a", "[0]", " and 1", " if 1 else 1", "()", " is odd"}) {
    expect_contains(error_of("{{ 1" + times(more, 8'000) + " }}"), "line 1: ");
  }
  expect_contains(error_of(times("{% if 1 %}", 10'000)), "deeper");
  expect_contains(error_of("{% for x in 'a' recursive %}{{ loop('a') }}{% endfor %}"), "deeper");
  expect_contains(error_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), "deeper");
  const std::string nested = times("(", 140) + "m()" + times(")", 140);
  expect_contains(error_of("{% macro m() %}{{ " + nested + " }}{% endmacro %}{{ m() }}"), "deeper");
  expect_contains(error_of("{% macro m() %}" + times("{% if 1 %}", 140) + "{{ m() }}" +
                           times("{% endif %}", 140) + "{% endmacro %}{{ m() }}"),
                  "deeper");
  const std::string wrap =
      "{% set ns = namespace(v=1) %}{% for i in range(10000) %}{% set ns.v = [ns.v] %}{% endfor %}";
  for (const char* use : {"{{ ns.v }}", "{{ ns.v|tojson }}"}) {
    expect_contains(error_of(wrap + use), "deeper");
  }
  expect_contains(error_of("{% set n = namespace() %}{% set n.n = n %}{{ n }}"), "deeper");
}

// Each filter hands the rest of its arguments to the next one, as a copy.
TEST(ChatTemplateTest, FiltersThatCallFiltersAreBounded) {
  const std::string deep = "{{ 'a'|map(" + times("'map', ", 12'000) + "'upper')|list }}";
  expect_contains(error_of(deep), "deeper than 600 levels");
  ChatTemplateLimits small;
  small.memory_bytes = 1 << 20;
  expect_contains(error_of(deep, Json::object(), small), "1048576 bytes");
  EXPECT_EQ(rendered("{{ ['ab']|map('map', 'upper')|map('list')|list }}", Json::object()),
            Json("[['A', 'B']]"));
}

// Templates that would run for hours without the budget of steps.
TEST(ChatTemplateTest, NothingHangs) {
  ChatTemplateLimits limits;
  limits.steps = 200'000;
  for (const char* source : {
           "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
           "{% set s = 'a' * 400000 %}{% for a in range(9999) %}{{ s|length }}{% endfor %}",
           "{{ ('a' * 1000000).find('a' * 500000 ~ 'b') }}",
           "{{ range(100000)|unique|list|length }}",
           "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ "
           "m(40) }}",
       }) {
    expect_contains(error_of(source, Json::object(), limits), "200000 steps");
  }
}

// What templates in the wild tried to reach through Python's objects: nothing of it is there.
TEST(ChatTemplateTest, AttackStringsReachNothing) {
  for (const char* source : {
           "{{ ''.__class__.__mro__[1].__subclasses__() }}",
           "{{ ().__class__.__base__.__subclasses__()[40]('/etc/passwd').read() }}",
           "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
           "{{ lipsum.__globals__['os'].popen('id').read() }}",
           "{{ self.__init__.__globals__.__builtins__.__import__('os').system('id') }}",
           "{{ namespace.__init__.__globals__ }}",
           "{{ raise_exception.__globals__.os }}",
           "{{ messages|attr('__class__')|attr('__mro__') }}",
           "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
           "{{ ''['__class__']['__mro__'] }}",
           "{{ messages|map(attribute='__class__.__mro__')|list }}",
           "{{ messages|map('attr', '__class__')|list }}",
           "{{ '{0.__class__.__mro__}'.format(messages) }}",
           "{{ '%s'|format(messages.__class__.__mro__) }}",
           "{{ config.items() }}",
           "{{ request.application.__globals__ }}",
           "{{ get_flashed_messages.__globals__ }}",
           "{% import 'os' as os %}{{ os.system('id') }}",
           "{% from 'os' import system %}",
           "{% include '/etc/passwd' %}",
           "{% extends '/etc/passwd' %}",
           "{% macro m() %}{% endmacro %}{{ m.__globals__.os }}",
           "{{ open('/etc/passwd').read() }}",
           "{{ eval('1') }}",
           "{{ __import__('os') }}",
           "{{ range(10**9)|list }}",
           "{{ range(1000000000) }}",
           "{{ range(-9223372036854775807, 9223372036854775807)|list }}",
           "{% for i in range(10**9) %}{% endfor %}",
           "{{ 'a'.center(10**9) }}",
           "{{ '%1000000000d' % 1 }}",
           "{{ 10**10**10 }}",
       }) {
    const Json text = rendered(source, {{"messages", {{{"role", "user"}}}}});
    // Undefined is empty, and a list of it; all else is an error.
    EXPECT_TRUE(text.is_null() || text == "" || text == "[Undefined]" || text == "[]")
        << source << ": " << text;
  }
}

// A parser that moved all tokens for each tag took 20 s here.
TEST(ChatTemplateTest, ManyFilterTagsAreParsed) {
  const std::string tag = "{% filter trim|upper %} a{% endfilter %}";
  const size_t count = (1 << 20) / tag.size();
  EXPECT_EQ(rendered(times(tag, count), Json::object()), Json(times("A", count)));
  expect_contains(error_of("{% filter %}a{% endfilter %}"), "line 1: expected a name");
  expect_contains(error_of("{% filter |trim %}a{% endfilter %}"), "line 1: expected a name");
}

// The sums are Python's round(value, precision).
TEST(ChatTemplateTest, LargeIntegersAreRounded) {
  const std::map<std::string, std::string> sums = {
      {"9223372036854775804|round(-1)", "9223372036854775800"},
      {"123456789012345678|round(-1)", "123456789012345680"},
      {"(-9223372036854774807)|round(-3)", "-9223372036854775000"},
      {"25|round(-1)", "20"},
      {"35|round(-1)", "40"},
      {"(-25)|round(-1)", "-20"},
      {"(-26)|round(-1)", "-30"},
      {"5000000000000000000|round(-19)", "0"},
      {"9223372036854775807|round(-20)", "0"},
      {"true|round(-1)", "0"},
  };
  for (const auto& [source, sum] : sums)
    EXPECT_EQ(rendered("{{ " + source + " }}", Json::object()), Json(sum)) << source;
  for (const char* source : {"9223372036854775807|round(-1)", "(-9223372036854775807)|round(-3)",
                             "5000000000000000001|round(-19)"})
    expect_contains(error_of("{{ " + std::string(source) + " }}"), "64 bits");
}

TEST(ChatTemplateTest, ContextIsChecked) {
  expect_contains(error_of("", Json::array()), "must be a JSON object");
  EXPECT_EQ(rendered("{{ a }}", {{"a", "x\xFFy"}}), Json("x\xEF\xBF\xBDy"));
  EXPECT_EQ(rendered("{{ a }}", {{"a", 9223372036854775807u}}), Json("9223372036854775807"));
  expect_contains(error_of("{{ a }}", {{"a", 9223372036854775808u}}), "64 bits");
  expect_contains(error_of("{{ 9223372036854775807 + 1 }}"), "64 bits");
  Json deep = 1;
  for (int i = 0; i < 200; ++i) deep = Json::array({deep});
  expect_contains(error_of("", {{"a", deep}}), "deeper");
}

}  // namespace
}  // namespace atom::text
