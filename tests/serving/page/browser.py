"""A headless Chromium at one page of Atom's server, and what the tests do there again and again."""

import json
import os
import pathlib
import shutil
import sys
import time

SKIPPED = 77


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


try:
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
except ImportError:
    skip("needs the Python module selenium (Debian: python3-selenium)")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")


class Browser:
    """One window. Every wait has a limit in seconds; what is waited for is in the exception."""

    def __init__(self, url, limit=20):
        if not CHROMIUM or not DRIVER:
            skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
        self.url, self.limit = url, limit
        self.looks = None
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in ("--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars",
                         "--window-size=1200,800", "--disable-background-networking", "--no-first-run"):
            options.add_argument(argument)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")
        options.accept_insecure_certs = True  # a server under test signs its own
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        try:
            self.driver = webdriver.Chrome(service=Service(DRIVER), options=options)
        except WebDriverException as error:
            skip(f"chromium does not start here: {str(error).splitlines()[0]}")
        self.driver.set_script_timeout(limit)

    def close(self):
        self.driver.quit()

    def open(self, path="/", fresh=True):
        """Loads the page, without what earlier visits left where `fresh`."""
        if fresh:
            self.run("if (location.protocol !== 'data:') { localStorage.clear(); sessionStorage.clear(); }")
        self.driver.get(self.url + path)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def module(self, path, body):
        """The value of `body`, a function's text that gets module `path` as `m`."""
        answer = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            f"import({json.dumps(path)}).then((m) => {{ {body} }})"
            ".then((value) => done({value}), (error) => done({error: String(error.stack || error)}));")
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer.get("value")

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def count(self, selector):
        return self.run("return document.querySelectorAll(arguments[0]).length", selector)

    def text(self, selector):
        return self.run("return [...document.querySelectorAll(arguments[0])].map((n) => n.textContent).join('|')",
                        selector)

    def visible(self, selector):
        return self.run("return document.querySelector(arguments[0])?.checkVisibility() ?? false", selector)

    def until(self, what, condition, limit=None):
        end = time.monotonic() + (limit or self.limit)
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"waited in vain: {what}; the page says: {self.text('#log, #live-error')[:400]}")
            time.sleep(0.04)

    def until_text(self, selector, part):
        return self.until(f"{part!r} in {selector}", lambda: part in self.text(selector))

    def click(self, selector):
        self.one(selector).click()

    def type(self, text, selector="#input"):
        self.one(selector).send_keys(text)

    def send(self, text):
        self.type(text + Keys.ENTER)

    def ask(self, text, limit=None):
        """Sends a message, or a text to continue, and waits for the end of its answer."""
        if self.visible("#continuation"):
            self.type(text + Keys.CONTROL + Keys.ENTER, "#document")
            self.until_text("#document-stats", "in all")
            return
        answers = self.count(".answer")
        self.send(text)
        self.until("an answer", lambda: self.count(".answer") > answers or self.visible("#continuation"))
        self.idle(limit)

    def idle(self, limit=None):
        self.until("the end of the answer", lambda: not self.visible("#stop"), limit)

    def hover(self, selector):
        ActionChains(self.driver).move_to_element(self.one(selector)).perform()

    def press(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    def look(self, width=1200, height=800, dark=False, still=False):
        if self.looks == (width, height, dark, still):
            return
        self.looks = (width, height, dark, still)
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}]})

    def console(self):
        """Messages since the last call, but for those of answers that are errors on purpose."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def picture(self, path):
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))
