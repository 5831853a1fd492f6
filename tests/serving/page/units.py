"""Tests of the page's modules one by one, run inside the browser."""


class Units:
    def test_events_in_pieces_of_any_size(self):
        self.assertEqual(self.page.module("/api.js", r"""
            const text = ": note\n\ndata: {\"a\":\"\u00fc\u{1F600}\"}\n\ndata:two\r\ndata: lines\r\n\r\nevent: x\ndata: [DONE]\n\n";
            const bytes = new TextEncoder().encode(text);
            const wanted = JSON.stringify(['{"a":"\u00fc\u{1F600}"}', "two\nlines", "[DONE]"]);
            let wrong = 0;
            for (let i = 0; i <= bytes.length; ++i) {
              for (let j = i; j <= bytes.length; ++j) {
                const parser = new m.EventParser();
                const events = [[0, i], [i, j], [j, bytes.length]].flatMap(([a, b]) => parser.push(bytes.slice(a, b)));
                wrong += JSON.stringify(events) !== wanted;
              }
            }
            return wrong;"""), 0)

    def markdown(self, text):
        return self.page.module("/markdown.js", f"""
            const box = document.createElement("div");
            m.render(box, {text!r});
            const show = (n) => n.nodeType === 3 ? n.data : n.tagName === "BUTTON" ? "" :
              `<${{n.tagName.toLowerCase()}}>${{[...n.childNodes].map(show).join("")}}</>`;
            return [...box.childNodes].map(show).join("");""")

    def test_markdown(self):
        for text, wanted in (
            ("plain", "<p>plain</>"),
            ("a\nb", "<p>a<br></>b</>"),
            ("# One\ntext", "<h3>One</><p>text</>"),
            ("**bold** *it* ~~no~~ `a*b*`",
             "<p><strong>bold</> <em>it</> <s>no</> <code>a*b*</></>"),
            ("2 * 3 * 4 and snake_case_name", "<p>2 * 3 * 4 and snake_case_name</>"),
            (r"\*not\*", "<p>*not*</>"),
            ("***both***", "<p><strong><em>both</></></>"),
            ("- a\n- b\n  - c\n\n  d", "<ul><li>a</><li>b<ul><li>c</></><p>d</></></>"),
            ("1. a\n2. b\n\ntext", "<ol><li>a</><li>b</></><p>text</>"),
            ("> a\n> > b", "<blockquote><p>a</><blockquote><p>b</></></>"),
            ("```py\nx = 1", "<figure><figcaption><span>py</></><pre><code>x = <span>1</></></></>"),
            ("a|b\n-|-\n1|2", "<div><table><thead><tr><th>a</><th>b</></></><tbody><tr><td>1</><td>2</></></></></>"),
            ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</>"),
            ("[x](https://a.b/c_(d))", "<p><a>x</></>"),
            ("see https://a.b/c.", "<p>see <a>https://a.b/c</>.</>"),
            ("---", "<hr></>"),
            ("<b>x</b>", "<p><b>x</b></>"),
        ):
            self.assertEqual(self.markdown(text), wanted, text)

    def test_markdown_keeps_the_nodes_that_did_not_change(self):
        self.assertEqual(self.page.module("/markdown.js", r"""
            const box = document.createElement("div");
            m.render(box, "first\n\nsec");
            const [first, second] = box.children;
            m.render(box, "first\n\nsecond\n\nthird");
            return [box.children[0] === first, box.children[1] === second, box.children.length];"""), [True, False, 3])

    def test_markdown_cut_anywhere_ends_as_the_whole(self):
        self.assertEqual(self.page.module("/markdown.js", r"""
            const text = "# T\n\n- a\n- b\n  - c\n\n| x | y |\n|--:|---|\n| 1 | `2` |\n\n```js\nlet a = 1;\n```\n> q\n\nend **x** [l](https://a.b)";
            const whole = document.createElement("div");
            m.render(whole, text);
            const grown = document.createElement("div");
            for (let i = 1; i <= text.length; ++i) m.render(grown, text.slice(0, i));
            return whole.isEqualNode(grown);"""), True)

    def test_metrics(self):
        self.assertEqual(self.page.module("/metrics.js", r"""
            const f = m.parse('# TYPE a gauge\na 1\nb{x="p,\\"q",y="2"} 2.5e3\nb{x="r"} +Inf 123\nbroken\n' +
              'h_bucket{le="1"} 10\nh_bucket{le="2"} 30\nh_bucket{le="+Inf"} 40\n');
            const h = m.histogram(f, "h");
            return [m.sum(f, "a"), m.sum(f, "b", "x", 'p,"q'), Number.isNaN(m.sum(f, "c")),
                    m.quantile(h, 0.5), m.quantile(h, 0.25), m.quantile(h, 0.95), m.total(h),
                    Number.isNaN(m.quantile([], 0.5)),
                    m.since(h, h.map((b) => ({ ...b, count: b.count / 2 })))[1].count, m.since(h, [])[1].count];"""),
            [1, 2500, True, 1.5, 1, 2, 40, True, 15, 30])

    def test_shares_of_pages(self):
        self.assertEqual(self.page.module("/pages.js", """
            return [{ held: 1, cached: 0, free: 9999 }, { held: 0, cached: 0, free: 0 }, { held: 5, cached: 5, free: 0 },
                    { held: 4096, cached: 1, free: 0 }].map((p) => Object.values(m.shares(p)));"""),
            [[1, 0, 312, 313, 32], [0, 0, 0, 0, 1], [5, 5, 0, 10, 1], [256, 1, 0, 257, 16]])

    def test_times(self):
        self.assertEqual(self.page.module("/generate.js", """
            const t = new m.Timing(1000);
            t.add(1, 1250); t.add(1, 1300); t.add(3, 1450);
            const live = t.summary();
            t.setUsage({ prompt_tokens: 7, completion_tokens: 6 });
            const end = t.summary("stop");
            return [live.tokens, live.exact, live.rate, end.firstToken, end.tokens, end.rate, end.seconds, end.prompt];"""),
            [5, False, 20, 0.25, 6, 25, 0.45, 7])
