#!/usr/bin/env python3
"""Uses the server's page in a headless Chromium, with a mock server or a real one.

Usage: page_test.py [--url URL [--key KEY]] [--pictures FOLDER] [TEST ...]
  --url       a running `atom serve`: only what holds for any model is tested (class AnyServer)
  --pictures  writes screenshots there

Exit status 77: skipped, as Chromium, chromedriver or selenium are missing.
"""

import argparse
import json
import sys
import unittest

import browser as browsers
from browser import Keys
from mock_server import MockServer
from units import Units

OPTIONS = argparse.Namespace(url=None, key="", pictures=None)
FAILED_LOAD = "Failed to load resource"


class PageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.page = PageTest.shared
        cls.server = PageTest.mock

    def setUp(self):
        if self.server:
            self.server.options.__dict__.update(key="", no_template=False, model="example-8b-w4a4", delay=0.001)
            self.server.was_busy = False
            self.server.requests.clear()
        self.page.look()
        self.page.open()
        if OPTIONS.key:
            self.page.run("sessionStorage.setItem('atom.key', JSON.stringify(arguments[0]))", OPTIONS.key)
            self.page.open(fresh=False)
            self.page.console()  # forgets the refusal that the visit without the key met
        self.page.until("the page to be ready", lambda: self.page.count("body[data-ready]"))
        self.failures_expected = False

    def tearDown(self):
        said = self.page.console()
        if self.failures_expected:
            said = [line for line in said if FAILED_LOAD not in line and "net::ERR" not in line]
        self.assertEqual(said, [], "the console is not empty")

    def picture(self, name):
        if OPTIONS.pictures:
            self.page.picture(f"{OPTIONS.pictures}/{name}.png")


class AnyServer(PageTest):
    """Holds for every model; answers are kept short."""

    def setUp(self):
        super().setUp()
        self.page.run("const m = document.getElementById('max_tokens'); m.value = 24;"
                      "m.dispatchEvent(new Event('input'));")

    def stats(self):
        return self.page.text("#document-stats" if self.page.visible("#continuation") else ".answer .stats")

    def test_answer_has_numbers(self):
        self.page.ask("Say hello", limit=60)
        self.picture("any_chat")
        self.page.until("numbers", lambda: "to first token" in self.stats() and "tok/s" in self.stats())
        self.assertRegex(self.page.text("#context-text"), r"^[\d,]+ / [\d,]+$")
        self.assertNotEqual(self.page.text("#context-text")[:2], "0 ")

    def test_regenerates(self):
        if self.page.visible("#continuation"):
            self.skipTest("no chat template")
        self.page.ask("Say hello", limit=60)
        self.page.click(".answer .tools button[title=Regenerate]")
        self.page.idle(60)
        self.assertEqual(self.page.count(".answer"), 1)
        self.assertNotIn("failed", self.page.text(".answer .stats"))

    def test_live_tab_has_numbers(self):
        self.page.ask("Say hello", limit=60)
        self.page.click("#tab-live")
        self.page.until("metrics", lambda: self.page.count("#totals div") > 0)
        self.assertFalse(self.page.visible("#live-error"), self.page.text("#live-error"))
        self.assertGreater(self.page.count("#pages rect"), 0)
        self.assertRegex(self.page.text("#now-running"), r"^\d+$")
        self.picture("any_live")

    def test_policy_is_in_force(self):
        self.assertRaisesRegex(Exception, "TrustedHTML|assignment",
                               lambda: self.page.run("document.body.innerHTML = '<b>x</b>'"))
        self.page.run("document.body.setAttribute('style', 'opacity: 0.5')")
        self.assertEqual(self.page.run("return getComputedStyle(document.body).opacity"), "1")
        self.page.run("const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i)")
        said = "\n".join(self.page.until("violations", lambda: self.page.console()))
        self.assertIn("Content Security Policy", said)


class Conversation(PageTest):
    def test_streams_markdown_and_keeps_numbers(self):
        self.page.ask("What is a KV-cache?")
        for selector in (".markdown strong", ".markdown table td.right", ".code .code-keyword", ".markdown li code"):
            self.assertGreater(self.page.count(selector), 0, selector)
        self.assertEqual(self.page.text(".code figcaption > span"), "cpp")
        self.assertRegex(self.page.text(".answer .stats"),
                         r"^[\d,.]+ tok/s[\d.]+ m?s to first token\d+ tokens\d+ prompt \(\d+ cached\)[\d.]+ m?s in all$")
        path, body = self.server.requests[0]
        self.assertEqual(path, "/v1/chat/completions")
        self.assertEqual(body, {
            "model": "example-8b-w4a4", "messages": [{"role": "user", "content": "What is a KV-cache?"}],
            "max_tokens": 512, "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True}})

    def test_shows_numbers_while_it_streams(self):
        self.page.send("long sparse text")
        self.page.until_text(".answer .markdown", "the model has read")
        self.assertRegex(self.page.text(".answer .stats"), "tok/s.*to first token\u2248\\d+ tokens")
        self.assertRegex(self.page.text("#speed"), r"tok/s . [\d.]+ m?s to first token")
        self.assertFalse(self.page.visible("#send"))
        gone = self.server.gone
        self.page.press(Keys.ESCAPE)
        self.page.idle()
        self.assertIn("stopped", self.page.text(".answer .stats"))
        self.assertIn("KV-cache", self.page.text(".answer .markdown"))
        self.page.until("the server to see it", lambda: self.server.gone > gone)

    def test_button_stops_and_the_next_message_has_both(self):
        self.page.send("long text")
        self.page.until_text(".answer .markdown", "the model has read")
        self.page.click("#stop")
        self.page.idle()
        self.page.ask("hello")
        _, body = self.server.requests[-1]
        self.assertEqual([m["role"] for m in body["messages"]], ["user", "assistant", "user"])
        self.assertTrue(body["messages"][1]["content"].startswith("A **KV-cache**"))

    def test_text_survives_cuts_within_characters(self):
        self.page.ask("unicode")
        self.assertEqual(self.page.text(".answer .markdown"),
                         "Gr\u00fc\u00dfe \u2014 \u65e5\u672c\u8a9e \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 fin")

    def test_shift_enter_is_a_new_line(self):
        self.page.type("hello" + Keys.SHIFT + Keys.ENTER + Keys.NULL + "again")
        self.assertEqual(self.page.count(".message"), 0)
        self.page.type(Keys.ENTER)
        self.page.until_text(".bubble", "hello\nagain")
        self.page.idle()

    def test_edits_and_resends(self):
        self.page.ask("marks")
        self.page.ask("hello")
        self.page.run("document.querySelectorAll('.message.user .tools button[title=Edit]')[1].click()")
        self.page.type(Keys.BACKSPACE * 5 + "marks again", ".editor textarea")
        self.page.type(Keys.ENTER, ".editor textarea")
        self.page.until("the edited message", lambda: self.page.text(".bubble") == "marks|marks again")
        self.page.idle()
        self.assertEqual(self.page.count(".answer"), 2)
        self.assertEqual(len(self.server.requests[-1][1]["messages"]), 3)

    def test_settings_reach_the_request_and_stay(self):
        for name, value in (("temperature", "0"), ("top_p", "0.9"), ("min_p", "0.05"), ("top_k", "40"), ("seed", "7"),
                            ("max_tokens", Keys.BACKSPACE * 3)):
            field = self.page.one(f"#{name}")
            if value[0].isdigit():
                field.clear()
            field.send_keys(value)
        self.page.type("Be brief.", "#system")
        self.page.type("END" + Keys.ENTER + "\\n\\n", "#stop-strings")
        self.page.open(fresh=False)
        self.page.until_text("#model-name", "example")
        self.page.ask("hello")
        body = self.server.requests[0][1]
        self.assertEqual(body["messages"][0], {"role": "system", "content": "Be brief."})
        self.assertEqual({k: body.get(k) for k in ("temperature", "top_p", "min_p", "top_k", "seed", "stop")},
                         {"temperature": 0, "top_p": 0.9, "min_p": 0.05, "top_k": 40, "seed": 7, "stop": ["END", "\n\n"]})
        self.assertNotIn("max_tokens", body)

    def test_values_of_the_panel_are_sent_also_where_they_say_off(self):
        for name, value in (("temperature", "1"), ("top_p", "1"), ("min_p", "0"), ("top_k", "0")):
            self.assertEqual(self.page.one(f"#{name}").get_attribute("value"), "")
            self.page.one(f"#{name}").send_keys(value)
        self.page.one("#temperature").send_keys(Keys.BACKSPACE)
        self.page.ask("hello")
        body = self.server.requests[0][1]
        self.assertEqual({k: body.get(k) for k in ("temperature", "top_p", "min_p", "top_k")},
                         {"temperature": None, "top_p": 1, "min_p": 0, "top_k": 0})

    def test_value_out_of_range_is_marked_and_not_sent(self):
        field = self.page.one("#temperature")
        field.clear()
        field.send_keys("9")
        self.assertEqual(field.get_attribute("aria-invalid"), "true")
        self.page.ask("hello")
        self.assertNotEqual(self.server.requests[0][1].get("temperature"), 9)

    def test_conversation_survives_a_reload_and_ends_with_new(self):
        self.page.ask("hello")
        self.page.open(fresh=False)
        self.page.until_text(".answer .markdown", "Hello there.")
        self.assertIn("tok/s", self.page.text(".answer .stats"))
        exported = self.page.module("/chat.js", """
            const texts = [];
            const old = Blob;
            globalThis.Blob = class extends old { constructor(p, o) { super(p, o); texts.push(p.join("")); } };
            HTMLAnchorElement.prototype.click = function () {};
            document.getElementById("export").click();
            return texts[0];""")
        self.assertEqual([m["content"] for m in json.loads(exported)["messages"]], ["hello", "Hello there."])
        self.page.click("#new")
        self.assertEqual(self.page.count(".message"), 0)
        self.assertTrue(self.page.visible(".empty"))

    def test_shows_how_sure_it_was(self):
        self.page.run("document.getElementById('logprobs').click()")
        self.page.ask("hello")
        self.assertEqual(self.server.requests[0][1]["top_logprobs"], 5)
        self.assertEqual(self.page.text(".tokens"), "Hello there.")
        self.page.hover(".token:nth-child(2)")
        self.page.until("the alternatives", lambda: self.page.visible("#tip"))
        self.assertEqual(self.page.count("#tip > div"), 5)
        self.assertIn("\u00b7there", self.page.text("#tip .own"))
        self.picture("tokens")
        self.page.run("document.querySelector('.tokens').focus()")
        self.page.press(Keys.ARROW_RIGHT)
        self.assertEqual(self.page.count(".token.chosen"), 1)
        self.page.click(".answer button[title='Tokens / text']")
        self.assertEqual(self.page.text(".answer .markdown"), "Hello there.")


class Failures(PageTest):
    def setUp(self):
        super().setUp()
        self.failures_expected = True

    def test_refused_value_is_told_as_text(self):
        self.page.ask("wrong")
        self.assertIn("temperature must be from 0 to 2, not 9 <img", self.page.text(".error"))
        self.assertEqual(self.page.count("img"), 0)

    def test_busy_server_names_the_time(self):
        self.page.ask("busy hello")
        self.page.until_text(".error", "The server is busy")
        self.assertRegex(self.page.text(".error button"), r"Try again \(in \d+ s\)")
        self.page.click(".error button")
        self.page.until_text(".answer .markdown", "Hello there.")
        self.assertEqual(self.page.count(".error"), self.page.count("#live-error"))

    def test_cut_stream_keeps_the_text(self):
        self.page.ask("cut")
        self.page.until_text(".answer .error", "The answer broke off")
        self.assertIn("A ", self.page.text(".answer .markdown"))

    def test_failure_in_the_stream_is_told(self):
        self.page.ask("fails")
        self.page.until_text(".answer .error", "not numbers")

    def test_lost_server_is_told(self):
        self.page.run("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
        self.page.ask("hello")
        self.page.until_text(".answer .error", "No connection")

    def test_asks_for_the_key(self):
        self.server.options.key = "right"
        self.page.open(fresh=False)
        self.page.until("the dialog", lambda: self.page.visible("#key-dialog"))
        self.picture("key")
        self.page.type("wrong" + Keys.ENTER, "#key-value")
        self.page.until("the dialog again", lambda: self.page.visible("#key-dialog"))
        self.assertIn("not accepted", self.page.text("#key-refused"))
        self.page.one("#key-value").clear()
        self.page.type("right" + Keys.ENTER, "#key-value")
        self.page.until_text("#model-name", "example")
        self.assertFalse(self.page.visible("#key-dialog"))
        self.page.ask("hello")
        self.assertEqual(self.page.run("return localStorage.getItem('atom.key')"), None)
        self.server.options.key = "changed"
        self.page.ask("hello")
        self.page.until_text(".answer .error", "The key was not accepted")
        self.page.one("#key-value").clear()
        self.page.type("changed" + Keys.ENTER, "#key-value")
        self.page.until("the answer after all", lambda: self.page.count(".answer .error") == 0
                        and self.page.text(".answer .markdown") == "Hello there.|Hello there.")

    def test_model_without_template_continues_text(self):
        self.server.options.no_template = True
        self.page.ask("Once upon a time")
        self.page.until("the text box", lambda: self.page.visible("#document"))
        self.page.idle()
        self.assertEqual(self.page.one("#document").get_property("value"),
                         "Once upon a time, there was a page of 64 tokens.")
        self.assertEqual(self.server.requests[-1][0], "/v1/completions")
        self.assertEqual(self.server.requests[-1][1]["prompt"], "Once upon a time")
        self.assertIn("tok/s", self.page.text("#document-stats"))
        self.assertIn("no chat template", self.page.text("#mode-note"))
        self.picture("continuation")
        self.page.open(fresh=False)  # the mode and the text stay
        self.page.until_text("#model-name", "example")
        self.assertTrue(self.page.visible("#document"))
        self.page.run("document.getElementById('logprobs').click()")
        self.page.click("#send")
        self.page.until_text("#document-result .tokens", "page of 64")
        self.page.idle()
        self.page.click("#undo")
        self.assertEqual(self.page.one("#document").get_property("value"),
                         "Once upon a time, there was a page of 64 tokens.")
        self.page.click("label:has(#plain)")
        self.assertTrue(self.page.visible("#log"))
        self.page.open()
        self.page.until("the text box at once", lambda: self.page.visible("#mode-note"))
        self.server.options.no_template = False
        self.page.open(fresh=False)
        self.page.until("the conversation again", lambda: self.page.visible("#log"))


class Hostile(PageTest):
    def test_answer_stays_text(self):
        self.page.ask("hostile")
        self.assertEqual(self.page.count("#log :is(script, img, iframe, svg:not(.icon), u, i, b:not(.figure b))"), 0)
        self.assertEqual(self.page.run(
            "return [...document.querySelectorAll('#log a')].map((a) => a.href)"), ["http://evil.example/x.png"])
        self.assertIn("<script>alert(1)</script>", self.page.text(".answer .markdown"))
        self.assertIn("</code></pre><script>alert(5)</script>", self.page.text(".code pre"))

    def test_own_message_stays_text(self):
        self.page.ask("hello <img src=x onerror=alert(1)> **x**")
        self.assertEqual(self.page.count("#log img, .bubble strong"), 0)

    def test_model_name_stays_text(self):
        self.server.options.model = "<img src=x onerror=alert(1)>\"'>" + "x" * 300
        self.page.look(360, 700)
        self.page.open()
        self.page.until_text("#model-name", "<img src=x")
        self.page.click("#tab-live")
        self.page.until_text("#model-facts", "<img src=x")
        self.assertEqual(self.page.count("img"), 0)
        self.assertLessEqual(self.page.run("return document.documentElement.scrollWidth"), 360)

    def test_long_answer_of_marks_ends(self):
        """Within the limit of a script; one that backtracks takes hours."""
        self.assertTrue(self.page.module("/markdown.js", """
            for (const unit of ["*", "[", "`", "_a", "**a", "> ", "- ", "|-", "![](", "https://", "~~a", "1. "]) {
              m.render(document.createElement("div"), unit.repeat(20000 / unit.length));
            }
            return true;"""))


class Looks(PageTest):
    def colours(self):
        return self.page.run("return getComputedStyle(document.body).backgroundColor")

    def test_themes(self):
        light = self.colours()
        self.page.look(dark=True)
        dark = self.colours()
        self.assertNotEqual(light, dark)
        self.page.click("#theme")  # light, whatever the system says
        self.assertEqual(self.colours(), light)
        self.page.click("#theme")
        self.page.look()
        self.assertEqual(self.colours(), dark)
        self.page.open(fresh=False)
        self.assertEqual(self.colours(), dark)

    def test_narrow_screen_has_no_overflow(self):
        self.page.look(360, 720)
        self.page.open()
        self.page.ask("What is a KV-cache?")
        for tab in ("chat", "live"):
            self.page.click(f"#tab-{tab}")
            self.assertLessEqual(self.page.run("return document.documentElement.scrollWidth"), 360, tab)
            self.picture(f"narrow_{tab}")
        self.page.click("#tab-chat")
        self.assertFalse(self.page.visible("#panel"))
        self.page.click("#panel-toggle")
        self.picture("narrow_panel")
        self.page.press(Keys.ESCAPE)
        self.assertFalse(self.page.visible("#panel"))

    def test_everything_has_a_name_and_tabs_have_arrows(self):
        self.page.ask("hello")
        self.assertEqual(self.page.run("""
            return [...document.querySelectorAll("button, input, textarea, [role=tab], [role=img], [role=meter]")]
              .filter((n) => !n.getAttribute("aria-label") && !n.textContent.trim() && !n.labels?.length
                             && !(n.id === "pages"))
              .map((n) => n.id || n.outerHTML)"""), [])
        self.assertEqual(self.page.run("""
            const ids = [...document.querySelectorAll("[id]")].map((n) => n.id);
            return ids.filter((id, i) => ids.indexOf(id) !== i)"""), [])
        self.page.run("document.getElementById('tab-chat').focus()")
        self.page.press(Keys.ARROW_RIGHT)
        self.assertTrue(self.page.visible("#live"))
        self.assertEqual(self.page.run("return document.activeElement.id"), "tab-live")

    def test_reduced_motion(self):
        self.page.look(still=True)
        self.page.run("document.body.classList.add('busy')")
        self.assertEqual(self.page.run("return getComputedStyle(document.querySelector('.dot')).animationName"), "none")

    def test_live_tab(self):
        self.page.ask("hello")
        self.page.click("#tab-live")
        self.page.until("two looks", lambda: self.page.count("#chart-throughput path.line.first"))
        held = sum(int(self.page.text(f"#pages-{name}").replace(",", "")) for name in ("held", "cached", "free"))
        self.assertEqual(held, 2048)
        self.assertEqual(self.page.text("#pages-scale"), "1 square = 4 pages")
        self.assertEqual(self.page.count("#pages rect"), 512)
        self.assertIn("max model len8,192", self.page.text("#model-facts"))
        self.assertIn("1.52 %, layer 1", self.page.text("#totals"))
        self.assertRegex(self.page.text("#latency tr:nth-child(1) td:nth-child(2)"), r"^[\d.]+ m?s$")
        self.page.hover("#chart-throughput")
        self.assertIn("generated", self.page.text(".chart-tip"))


class Modules(PageTest, Units):
    """The modules alone (units.py): the page is loaded once."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.page.open()

    def setUp(self):
        self.failures_expected = False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--key", default="")
    parser.add_argument("--pictures")
    parser.add_argument("tests", nargs="*")
    parser.parse_args(namespace=OPTIONS)
    PageTest.mock = None if OPTIONS.url else MockServer().start()
    url = OPTIONS.url.rstrip("/") if OPTIONS.url else PageTest.mock.url
    PageTest.shared = browsers.Browser(url)
    try:
        names = OPTIONS.tests or (["AnyServer"] if OPTIONS.url else None)
        return 0 if unittest.main(argv=[sys.argv[0]], defaultTest=names, exit=False).result.wasSuccessful() else 1
    finally:
        PageTest.shared.close()


if __name__ == "__main__":
    sys.exit(main())
