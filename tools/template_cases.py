"""Conversations and single constructs for tools/make_template_fixtures.py."""

VALUES = {
    "s": "Hello W\u00f6rld",
    "t": " a,b ,, c\n",
    "n": 3,
    "z": 0,
    "f": 2.5,
    "xs": [1, 2, 3],
    "d": {"role": "user", "n": 1, "items": "it", "\u00e9": [1, {"a": None}]},
    "msgs": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}, {"role": "user", "content": ""}],
    "nothing": None,
    "yes": True,
    "pairs": [["a", 1], ["b", 2]],
    "empty": [],
}

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a \"city\" & more <now>",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "Z\u00fcrich, \u6771\u4eac"}, "days": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "any"},
        "more": {"type": "object", "additionalProperties": {"type": "number"}, "description": "m"},
        "either": {"type": ["string", "null"]}}, "required": ["city"]}}}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "", "parameters": {
    "type": "object", "properties": {}, "required": []}, "return": {"type": "string"}}}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, identity="abcdefghi"):
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATIONS = {
    "none": {"messages": []},
    "user": {"messages": [turn("user", "Hi")]},
    "system": {"messages": [turn("system", "Be brief."), turn("user", " Hi there \n")]},
    "system_only": {"messages": [turn("system", "Be brief.")]},
    "turns": {"messages": [turn("user", "1"), turn("assistant", "one"), turn("user", "2"), turn("assistant", " two "),
                           turn("user", "3")]},
    "unicode": {"messages": [turn("system", "\u65e5\u672c\u8a9e\u3067 \U0001f600"), turn("user", "\u00a0Gr\u00fc\u00dfe\u2028\u3000"),
                             turn("assistant", "\"quoted\" \\ 'single' <b>&amp;</b>\t\r\n"), turn("user", "{{ evil }} {% x %}")]},
    "empty_text": {"messages": [turn("user", ""), turn("assistant", ""), turn("user", "   ")]},
    "two_users": {"messages": [turn("user", "a"), turn("user", "b")]},
    "ends_assistant": {"messages": [turn("user", "a"), turn("assistant", "b")]},
    "unknown_role": {"messages": [turn("user", "a"), turn("critic", "b")]},
    "no_content": {"messages": [{"role": "user"}]},
    "null_content": {"messages": [turn("user", None)]},
    "parts": {"messages": [turn("system", [{"type": "text", "text": "S"}]), turn("user", [
        {"type": "text", "text": " look "}, {"type": "image"}, {"type": "text", "text": "here"}])]},
    "thinking": {"messages": [turn("user", "2+2?"), turn("assistant", "<think>\nsum\n</think>\n\n4"), turn("user", "3+3?"),
                              turn("assistant", "<think>\nagain\n</think>\n\n6")]},
    "reasoning": {"messages": [turn("user", "q"), turn("assistant", "a", reasoning_content="\nbecause\n")]},
    "no_thinking": {"messages": [turn("user", "q")], "enable_thinking": False},
    "tools": {"messages": [turn("system", "Use tools."), turn("user", "Weather?")], "tools": [WEATHER, CLOCK]},
    "tools_system": {"messages": [turn("user", "Weather?")], "tools": [WEATHER], "tools_in_user_message": False,
                     "date_string": "1 Jan 2025", "builtin_tools": ["code_interpreter", "search"]},
    "tool_turns": {"messages": [
        turn("user", "Weather?"), turn("assistant", None, tool_calls=[call("get_weather", {"city": "Z\u00fcrich", "days": 2})]),
        turn("tool", "{\"t\": 21.5}", tool_call_id="abcdefghi"), turn("assistant", "It is 21.5."), turn("user", "Thanks")],
        "tools": [WEATHER]},
    "two_calls": {"messages": [
        turn("user", "Both"), turn("assistant", "", tool_calls=[call("get_weather", {"city": "A", "x": [1, 2.0, None, True]}),
                                                               call("clock", {}, "123456789")]),
        turn("tool", "sunny", tool_call_id="abcdefghi"), turn("tool", {"content": "noon"}, tool_call_id="123456789")],
        "tools": [WEATHER, CLOCK]},
    "bad_call_id": {"messages": [turn("user", "x"), turn("assistant", None, tool_calls=[call("clock", "{}", "short")])]},
    "documents": {"messages": [turn("user", "Read")], "documents": [{"title": "T", "text": "body", "n": 1.0}, {"text": "b"}]},
}

EXPRESSIONS = r"""
1 + 2 * 3 - 4|1 + 2 ~ 3|'a' ~ 1 ~ none ~ true ~ 1.0|2 ** 3|2 ** -1|-2 ** 2|7 // 2|-7 // 2|7 % 3|-7 % 3|7 / 2|1 / 0|1 // 0
7.5 // 2|-7.5 % 2|1 % 0|2 ** 0.5|true + true|'a' * 3|3 * 'ab'|[1] * 2|'a' * -1|[1] + [2]|(1,) + (2,)|[1] + (2,)|'a' + 1|1 + 'a'
1e3|1e16|1e15|1.5e-5|0.0001|1e-5|123456789012345680.0|1_000|1.0|-0.0|0.1 + 0.2|10 / 4|1e400|1.|.5
1 < 2 < 3|1 < 3 < 2|1 == 1.0|true == 1|'1' == 1|none == none|[1] == [1]|(1,) == [1]|{'a': 1} == {'a': 1.0}|'a' < 'b'|'a' < 1|[1, 2] < [1, 3]
none < 1|missing == missing|missing == none|missing < 1|'b' in 'abc'|1 in [1]|'a' in {'a': 1}|4 not in xs|1 in 'abc'|'x' in missing|1 in 5
not true|not missing|not not 1|true and 'x'|'' or 'y'|0 or none|1 and 0|missing or 'z'|missing and 1|not 1 == 2|1 if true else 2|1 if false|(1 if false) is defined
'a' if z else 'b' if n else 'c'|none|true|false|True|False|None|missing|missing.x|missing['x']|missing[0]|missing()|nothing.x|nothing['x']|nothing[0]|n.x|n()
[]|[1, 'a', none, true, 1.5]|()|(1,)|(1, 2)|1, 2|{}|{'a': 1, 'b': [1, (2,)]}|{1: 2, none: 3, true: 4}|{'a': 1, 'a': 2}|{[1]: 2}|"it's"|['it\'s', 'say "x"', 'both \' "']
['\n\t\\', '\x00\x7f\xa0', '\u200b', '\U0001f600', 'ä']|'\x41\u00e9\101\q\''|'a' 'b' "c"|'a
b'|'a\
b'|xs[0]|xs[-1]|xs[3]|xs[-4]|xs[1:]|xs[:-1]|xs[::-1]|xs[::2]|xs[5:]|xs[-2:]|xs[2:0:-1]|xs[::0]|xs['a']|xs[1.0]|xs[true]|xs.0|xs[:1, 2]|s[0]|s[-1]|s[7]|s[6:9]|s[::-1]|s[20]|s[:100]|s['x']|n[0]|n[1:]
d.role|d['role']|d.missing|d['missing']|d.items|d['items']|d.items()|list|d.n + 1|d.keys()|list|d.values()|list|d.get('role')|d.get('x')|d.get('x', 5)|d.get()|d|length|d['é'][1].a|d.a.b|d.copy()
s.upper()|s.lower()|s.title()|s.capitalize()|s.strip('Hd')|s.split()|s.split('l')|s.split('l', 1)|s.rsplit('l', 1)|s.split('')|t.split(',')|t.split()|t.split(none, 1)|t.rsplit(none, 1)|t.strip()|t.lstrip()|t.rstrip()|t.splitlines()
s.startswith('He')|s.startswith(('x', 'H'))|s.endswith('ld')|s.startswith('W', 6)|s.startswith(1)|s.replace('l', 'L')|s.replace('l', 'L', 1)|s.replace('', '-')|s.find('W')|s.find('x')|s.rfind('l')|s.find('l', 4)|s.index('x')|s.count('l')|s.count('')
','.join(['a', 'b'])|','.join([1])|'-'.join('abc')|s.format()|'{} {1}'.format(1)|'{}-{}'.format(1, 'a')|'{1}{0}'.format(1, 'a')|'{a}'.format(a=2)|'{{}}'.format()|'%s' % 1|'%s %s' % (1, 'a')|'%d' % 1.9|'%5d|%-5d|%05d' % (1, 2, -3)|'%.2f' % 3.14159|'%x' % 255|'%%' % ()|'%s' % none|'%(a)s' % {'a': 1}|'%s' % [1, 2]|'%s'|format(1)|'%d' % 'a'|'%r' % 'a'
'abc'.isdigit()|'12'.isdigit()|'²'.isdigit()|'a1'.isalnum()|'aB'.isalpha()|'AB'.isupper()|'a1'.islower()|' '.isspace()|''.isspace()|'abc'.removeprefix('a')|'abc'.removesuffix('bc')|'straße ﬁ'.upper()|'ΑΣ ΣΑΣ'.lower()|'ǆ'.title()|'ÉCOLE'.lower()|'a b-c'.title()|"they're"|title|"they're".title()
'a' is defined|missing is defined|missing is undefined|nothing is none|s is string|n is number|n is integer|f is float|true is number|true is integer|true is boolean|1 is boolean|d is mapping|xs is mapping|xs is iterable|s is iterable|n is iterable|missing is iterable|xs is sequence|d is sequence|s is sequence|n is sequence|missing is sequence|d.items() is sequence|d.items() is iterable|range(3) is sequence
true is true|1 is true|false is false|0 is false|n is odd|n is even|n is divisibleby 3|n is divisibleby(2)|'a' is eq 'a'|'a' is equalto 'b'|1 is in [1]|1 is in(xs)|n is not none|n is not defined|range is callable|n is callable|n is gt 2|n is lt(2)|n is ge 3|n is le 2|n is ne 3|none is sameas none|true is sameas true|'a' is lower|'A' is upper|n is nosuch|n is == 3|'upper' is filter|'odd' is test|1 is odd is odd|'a' is odd
t|trim|' x '|trim|'xax'|trim('x')|s|upper|s|lower|s|length|xs|length|d|length|missing|length|n|length|none|length|s|count|xs|first|xs|last|empty|first|empty|last|s|first|s|last|d|first|d|last|n|first|xs|join|xs|join(',')|xs|join(', ')|msgs|join(',', attribute='role')|s|join('-')|missing|join|n|join|xs|join(n)
xs|list|s|list|d|list|missing|list|n|list|xs|map('string')|list|msgs|map(attribute='role')|list|msgs|map(attribute='x')|list|msgs|map(attribute='x', default='q')|list|pairs|map(attribute=0)|list|pairs|map(attribute='1')|list|xs|map('nosuch')|list|xs|map|xs|select('odd')|list|xs|reject('odd')|list|xs|select|list|[0, 1, '']|reject|list|xs|select('gt', 1)|list|xs|select('nosuch')|list
msgs|selectattr('content')|list|msgs|rejectattr('content')|list|msgs|selectattr('role', 'equalto', 'user')|list|length|msgs|selectattr('role', '==', 'user')|map(attribute='content')|join('|')|msgs|rejectattr('role', 'in', ['user'])|list|msgs|selectattr('x', 'defined')|list|length|(msgs|selectattr('role'))|length|xs|select('odd')|first|xs|select('odd')|last|true if xs|select('gt', 9) else false|(xs|map('string'))[0]|xs|map('string')|tojson
missing|default('x')|nothing|default('x')|nothing|default('x', true)|nothing|d('x', boolean=true)|''|default('x', true)|missing|default|missing.x|default('y')|d.x|default('y')|'aaa'|replace('a', 'b')|'aaa'|replace('a', 'b', 2)|123|replace(2, 'x')|s|replace('l')
d|items|list|missing|items|list|n|items|{'b': 1, 'A': 2, 'c': 0}|dictsort|{'b': 1, 'A': 2}|dictsort(true)|{'b': 1, 'A': 2}|dictsort(by='value')|{'b': 1, 'A': 2}|dictsort(reverse=true)|{'b': 1, 2: 2}|dictsort|n|dictsort|1|string|1.0|string|none|string|missing|string|xs|string
'42'|int|' 42 '|int|'4.9'|int|'x'|int|'x'|int(7)|4.9|int|-4.9|int|none|int|true|int|missing|int|xs|int|'1_0'|int|'+5'|int|'-'|int|''|int|'1e3'|int|'inf'|int|'4.5'|float|'x'|float|'x'|float(1.5)|1|float|none|float|'1e3'|float|'nan'|float|'-inf'|float|'0x1'|float|-3|abs|-2.5|abs|true|abs|'a'|abs
2.5|round|3.5|round|2.567|round(2)|2.4|round(method='ceil')|2.6|round(method='floor')|25|round|1234.5|round(-2)|0.125|round(2)|2.5|round(method='x')|1|round(2)|'a'|round|1e20|round|s|safe|'<a href="x">\'&'|escape|'<'|e|'a\nb\n\nc'|indent|'a\nb'|indent(2, true)|'a\n\nb'|indent(2, blank=true)|'a\nb'|indent('> ')|'a\n'|indent
[1, 1.0, 2, 'a', 'A']|unique|list|['b', 'B', 'a']|unique|list|['a', 'A']|unique(true)|list|msgs|unique(attribute='role')|map(attribute='content')|list|[[1], [1]]|unique|list|xs|reverse|list|s|reverse|missing|reverse|list|xs|reverse|first|xs|reverse|length|n|reverse|[3, 1, 2]|sort|['b', 'A', 'c']|sort|['b', 'A']|sort(case_sensitive=true)|[1, 'a']|sort|[3, 1]|sort(reverse=true)|msgs|sort(attribute='role')|map(attribute='content')|list|msgs|sort(attribute='role,content')|map(attribute='content')|list
xs|sum|['a']|sum|[[1], [2]]|sum(start=[])|[{'v': 1}, {'v': 2}]|sum(attribute='v')|empty|sum|xs|min|xs|max|empty|max|['b', 'A']|min|xs|batch(2)|list|xs|batch(2, 0)|list|xs|batch(0)|list|s|wordcount|s|nosuch|s|title|'hello wORLD (x) foo-bar'|title|'ǆ'|title|s|capitalize|'ÄB'|capitalize|s|attr('upper')|d|attr('role')
xs|tojson|d|tojson|s|tojson|'"\\/\n\r\t\x08\x0c\x01\x7f\u2028😀'|tojson|'é😀\x7f'|tojson(ensure_ascii=true)|d|tojson(indent=2)|xs|tojson(indent=0)|[[], {}]|tojson(indent=1)|d|tojson(separators=(',', ':'))|d|tojson(sort_keys=true)|{'b': 1, 'a': {'d': 1, 'c': 2}}|tojson(sort_keys=true, indent=4)|xs|tojson(indent='--')|{1: 2, none: 3, true: 4, 1.5: 5}|tojson|(1, 2)|tojson|missing|tojson|1.0|tojson|1e20|tojson|'nan'|float|tojson|'inf'|float|tojson|none|tojson|range(3)|tojson|range|tojson|d|tojson(2)|d|tojson(x=1)|namespace(a=1)|tojson|{(1, 2): 3}|tojson
range(3)|range(3)|list|range(1, 4)|list|range(5, 0, -2)|list|range(0)|list|range(-1)|list|range(1, 2, 0)|range()|range('a')|range(100000)|length|range(100001)|range(1000000000)|range(3)[1]|range(3)|last|range(3)|join(',')|dict(a=1, b=2)|dict([('a', 1)])|dict({'a': 1}, b=2)|namespace(a=1).a|namespace().a|namespace(a=1)['a']|namespace({'a': 1}).a|raise_exception('no')|strftime_now('%Y-%m-%d %H:%M:%S')|strftime_now('%d %b %Y')|strftime_now()
s.__class__|d.__class__|xs.append(4)|xs.pop|d.update({})|d.pop('role')|xs.index(2)|xs.index(9)|xs.count(1)|(1, 2).index(2)|xs.copy()|d.setdefault('a', 1)|xs.sort()|xs.extend([1])
(1)|((1))|(1|string) + 'a'|-1|abs|-(1|abs)|1|string ~ 2|'a'|upper|lower|n is odd and s is string|n is odd or missing.x|n in xs and 'role' in d|not n in xs|n not in xs|'a' + 'b' ~ 'c' + 'd'|2 * 3 ** 2|1 - 1 - 1|2 ** 3 ** 2|8 / 2 / 2|[x for x in xs]|lambda: 1|1 is|x y|{|}|)|(|[|1 +|'abc|a.|a[|a[]|a[1|f(|s.upper|s|upper()|s|upper(1)|!x|a ? b|a = 1|1 ; 2|`a`|$x|a..b|a.b.|'a'.'b'|0x1F is missing|d.items()|first|d.keys()|d.items() | length|d.values()|sum
caller is defined|loop is defined|varargs is defined|self is defined|(xs | map('string') | list)[0]|xs | length > 2|xs|length > 2 and true|(xs|length) ~ 'a'|xs|length ~ 'a'|-n|+n|-s|+s|- -n|--n|not none|n.real|s.nosuch|s.nosuch()|d.role.upper()|d['role'].upper()[1:]|msgs[0].content|msgs[-1]['role']|msgs[0]['x'] is defined|msgs[9].x|msgs[9] is defined|(s, n)|[s][0][0]|{'a': {'b': 1}}.a.b|{'a': 1}['a']|'abc'[1]|[1, 2][1]|(1, 2)[0]|'a' in 'b' in ['c']
""".strip()

STATEMENTS = [
    "", "\n", "\n\n", "a\n", "a\r\nb\rc\n", "a\n\n", "{{ 'a' }}\n", "{{ 'a' }}\n\nb", "{%- if true %}\n  a\n{% endif %}\nb",
    "  {% if true %}x{% endif %}", "  {%+ if true %}x{% endif %}", "a  {%- if true -%}  x  {%- endif -%}  b", "a  {{- 1 -}}  b",
    "a\n  {{ 1 }}\n  b", "a\n  {# c #}\n  b", "a {# c #} b", "a\n {#- c -#}\n b", "{# a\n b #}c", "{# open", "{#}", "{##}", "{#-#} x", "{#+#} x",
    "{% if true +%}\nx{% endif +%}\ny", "{% if true %}\n\nx{% endif %}", "\t{% if true %}\t\n\tx\t{% endif %}\t\n",
    "x {% if true %}y{% endif %}", "\u00a0{% if true %}x{% endif %}", "\u2003{%- if true %}x{% endif %}", "x\u00a0\u3000{{- 1 }}",
    "{% raw %}{{ x }}{% y %}{# z #}{% endraw %}", "{% raw -%}  a  {%- endraw %}  b", "  {% raw %}\na\n  {% endraw %}\nb", "{%raw%}{%endraw%}",
    "{% raw %}", "{%- raw -%} a {%- endraw -%} b", "{% raw %}{% endraw %", "{% rawx %}", "{{ '{{' }}", "{{ '}}' }}", "{{ {'a': {'b': 1}} }}", "{{{'a':1}}}", "{ {", "{", "}}", "%}", "#}", "{%", "{{", "{% %}",
    "{{ }}", "{{ 1", "{% if", "{% if x", "{% if true %}", "{% endif %}", "{% else %}", "{% if true %}{% endfor %}", "{% nosuch %}", "{% if true %}{% else %}{% else %}{% endif %}",
    "{% if z %}1{% elif n %}2{% else %}3{% endif %}", "{% if z %}1{% elif z %}2{% else %}3{% endif %}", "{% if z %}1{% elif z %}2{% endif %}",
    "{% if n == 3 and not z %}y{% endif %}", "{% if missing %}y{% else %}n{% endif %}", "{% if missing.x %}y{% endif %}",
    "{% for x in xs %}{{ x }}{% endfor %}", "{% for x in xs %}\n{{ x }}\n{% endfor %}\n", "{% for x in xs -%}\n {{ x }}\n{%- endfor %}", "{% for x in [] %}a{% else %}b{% endfor %}",
    "{% for x in xs if x > 1 %}{{ loop.index }}{{ x }}{% if not loop.last %},{% endif %}{% else %}none{% endfor %}", "{% for x in xs if x > 9 %}a{% else %}none{% endfor %}",
    "{% for x in missing %}a{% else %}b{% endfor %}", "{% for x in nothing %}{% endfor %}", "{% for x in n %}{% endfor %}", "{% for c in 'a\u00e9' %}[{{ c }}]{% endfor %}", "{% for k in d %}{{ k }};{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d|items %}{{ k }}={{ v }};{% endfor %}", "{% for a, b in pairs %}{{ a }}{{ b }}{% endfor %}", "{% for (a, b) in pairs %}{{ a }}{{ b }}{% endfor %}", "{% for a, b, c in pairs %}{% endfor %}",
    "{% for a, b in xs %}{% endfor %}", "{% for x in 1, 2 %}{{ x }}{% endfor %}", "{% for x in xs %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for x in xs %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }};{% endfor %}", "{% for x in xs %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}", "{% for x in xs %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}", "{% for x in xs %}{{ loop.nosuch }}{% endfor %}", "{% for x in xs %}{% for y in xs %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in xs %}{% set o = loop %}{% for y in xs %}{{ o.index }}{% endfor %}{% endfor %}", "{{ loop }}", "{{ loop.index }}", "{% for x in xs %}{% endfor %}{{ x }}", "{% for x in xs %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in xs %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% break %}", "{% continue %}", "{% for x in xs %}{% endfor %}{% break %}", "{% for x in xs %}{% break %}{% else %}e{% endfor %}", "{% for x in xs %}{% for y in xs %}{% break %}{% endfor %}{{ x }}{% endfor %}",
    "{% for x in [[1, [2]], [3]] recursive %}[{% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}@{{ loop.depth }}{% endif %}]{% endfor %}", "{% for x in xs %}{{ loop([]) }}{% endfor %}", "{% for x in xs %}", "{% for in xs %}{% endfor %}", "{% for x xs %}{% endfor %}", "{% for 1 in xs %}{% endfor %}", "{% for x in %}{% endfor %}",
    "{% set x = 1 %}{{ x }}", "{% set x = 1 %}{% for y in xs %}{% set x = y %}{{ x }}{% endfor %}{{ x }}", "{% for y in xs %}{{ x }}{% set x = y %}{{ x }}{% endfor %}", "{% if true %}{% set x = 1 %}{% endif %}{{ x }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = xs %}", "{% set (a, b) = pairs[0] %}{{ a }}{{ b }}", "{% set x %}a{{ n }}b{% endset %}[{{ x }}]", "{% set x | upper | trim %} a{{ n }} {% endset %}[{{ x }}]",
    "{% set ns = namespace(i=0) %}{% for x in xs %}{% set ns.i = ns.i + x %}{% endfor %}{{ ns.i }}", "{% set d.x = 1 %}", "{% set missing.x = 1 %}", "{% set ns = namespace() %}{% set ns.a %}x{% endset %}{{ ns.a }}", "{% set ns = namespace(a=1, b='x') %}{{ ns }}", "{% set 1 = 2 %}", "{% set true = 2 %}", "{% set x %}", "{% set x = %}", "{% set x = 1, 2 %}{{ x }}", "{% set x = xs if n else 1 %}{{ x }}",
    "{% macro m(a, b=2) %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=5) }}{{ m() }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(x=2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}", "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}", "{% macro m(n) %}{% if n > 0 %}{{ n }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
    "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(3) }}", "{% macro m() %}{{ s }}{% endmacro %}{% set s = 1 %}{{ m() }}", "{% macro m() %}{% set q = 1 %}{% endmacro %}{{ m() }}{{ q }}", "{% macro m() %} x {% endmacro %}{{ m()|trim|length }}", "{{ m() }}{% macro m() %}{% endmacro %}", "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}body{{ n }}{% endcall %}", "{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) m() %}{{ a }}-{{ b }}{% endcall %}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% call n %}{% endcall %}", "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}", "{% macro %}{% endmacro %}", "{% macro m %}{% endmacro %}",
    "{% filter upper %}a{{ s }}{% endfilter %}", "{% filter upper|trim %} a {% endfilter %}", "{% filter replace('a', 'b') %}aa{% endfilter %}", "{% filter nosuch %}{% endfilter %}", "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}", "{% with a = 1 %}{% set a = 2 %}{{ a }}{% endwith %}{{ a }}", "{% generation %}x{{ n }}{% endgeneration %}y", "  {% generation %}\n  x\n  {% endgeneration %}\ny", "{% generation %}{% set q = 1 %}{% endgeneration %}{{ q }}", "{% for x in xs %}{% generation %}{% break %}{% endgeneration %}{% endfor %}", "{% do 1 %}", "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{% debug %}",
    "{{ raise_exception('no ' ~ n) }}", "{% if false %}{{ raise_exception('no') }}{% endif %}ok", "{% if not false %}{{- raise_exception('x') -}}{% endif %}", "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}", "{% set x = xs %}{% for y in x %}{% set x = [] %}{{ y }}{% endfor %}", "{% set xs = xs + [4] %}{{ xs }}", "{{ xs }}{% set xs = 1 %}{{ xs }}", "{% for n in xs %}{{ n }}{% endfor %}{{ n }}", "{% for m in msgs %}{{ m.role }}{{ m['content'] }}{{ '\\n' }}{% endfor %}",
    "{%if true%}a{%endif%}", "{%-if true-%}a{%-endif-%}", "{{-1}}", "{{ -1 }}", "{{- -1 -}}", "{{1-}}", "{%- for x in xs -%}{{x}}{%- if not loop.last %}, {% endif -%}{%- endfor -%}", "{%\nif true\n%}a{%\nendif\n%}", "{{ 'a\nb' }}", "{{ \"a\r\nb\" }}", "a{% if true %}\n\n\n{% endif %}\n\nb", "{% set a = 1 %}\n{% set b = 2 %}\n{{ a }}\n{{ b }}\n", "\n  {% set a = 1 %}  \n  {{ a }}  \n", "{{ 1 }}{# x #}\n{{ 2 }}", "{{ 1 }}\n{#- x #}\n{{ 2 }}", "line one\n    {%- if n %} two{% endif %}\n  three", "{% set x = '  ' %}{{ x }}|\n  {%- set y = 1 %}\n|", "{% if true %}  {% if true %}  a{% endif %}  {% endif %}",
    "# for x in y\n## c", "<%= x %>", "{{ '%}' }}{% if '%}' %}a{% endif %}", "{% if \"{{\" %}a{% endif %}", "{{ \"a\\\"b\" }}", "{{ 'a' if true }}{{ 'b' if false }}", "{% if (n\n == 3) %}y{% endif %}", "{% set x = [1,\n 2,\n] %}{{ x }}", "{% set x = {'a': 1,} %}{{ x }}", "{{ dict(a=1,) }}", "{{ range(3,) }}", "{{ (1, 2,) }}", "{{ [,] }}", "{{ {'a'} }}", "{{ {'a': } }}", "{{ f(a=1, 2) }}", "{{ f(*xs) }}", "{% set loop = 1 %}{{ loop }}", "{% set _x1 = 1 %}{{ _x1 }}", "{% set \u00e9 = 1 %}{{ \u00e9 }}",
    "{% for x in range(3) %}{{ x }}{% endfor %}", "{% for x in range(200000) %}{% endfor %}", "{% for x in xs|reverse %}{{ x }}{% endfor %}", "{% for x in xs|select('odd') %}{{ x }}{{ loop.length }}{% endfor %}", "{% set g = xs|map('string') %}{{ g|join }}{{ g|join }}", "{% set g = xs|select('odd') %}{% if g %}y{% endif %}{{ g|list|length }}{{ g|list|length }}", "{% for x in d.keys() %}{{ x }}{% endfor %}", "{% for x in d.values() %}{{ x }}{% endfor %}", "{{ d.items()|list|length }}", "{% set k = d.keys() %}{{ k|list }}{{ k|length }}", "{% for m in msgs[1:] %}{{ m.role }}{% endfor %}", "{% for m in msgs[::-1] %}{{ loop.index0 }}{{ m.role }}{% endfor %}", "{% for x in xs[:-1] %}{{ x }}{% endfor %}", "{% set last = msgs|last %}{{ last.role }}", "{{ (msgs|selectattr('role', 'equalto', 'user')|list|last).content }}x",
]


def cases(render, filters):
    """Single expressions and statements. A bar in EXPRESSIONS ends a case or begins a filter: stretches of up to
    four parts are tried, and of several parts those stay that render, or that fail in a filter that exists."""
    out = {}
    for line in EXPRESSIONS.replace("'a\nb'|'a\\\nb'|", "").split("\n"):
        parts = line.split("|")
        for start in range(len(parts)):
            for end in range(start + 1, min(start + 4, len(parts)) + 1):
                source = "{{ " + "|".join(parts[start:end]) + " }}"
                expected = render(source)
                name = parts[end - 1].split("(")[0].strip()
                before = "{{ " + "|".join(parts[start:end - 1]) + " }}"
                if expected is not None or end == start + 1 or (name in filters and render(before) is not None):
                    out[source] = expected
    for source in STATEMENTS:
        out[source] = render(source)
    return [[source, expected] for source, expected in out.items()]
