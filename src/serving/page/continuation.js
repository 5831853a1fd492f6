// Plain text that the model continues: for models without a chat template.

import { announce, byId, load, save } from "./dom.js";
import { generate, Timing } from "./generate.js";
import { errorBox, statsLine } from "./message.js";
import { TokenView } from "./tokens.js";

export class Continuation {
  // page: as of Chat
  constructor(page) {
    this.page = page;
    this.box = byId("document");
    this.stats = byId("document-stats");
    this.result = byId("document-result");
    this.abort = null;
    this.before = [];  // texts to go back to
    this.box.value = load(sessionStorage, "document") || "";
    this.box.addEventListener("change", () => this.store());
    byId("undo").addEventListener("click", () => this.undo());
  }

  get streaming() {
    return this.abort !== null;
  }

  body() {
    return { model: this.page.model(), prompt: this.box.value, ...this.page.settings.fields(false) };
  }

  async ask() {
    if (this.streaming || !this.box.value) return;
    const body = this.body();
    const timing = new Timing();
    let tokenView = null;
    this.before.push(this.box.value);
    this.abort = new AbortController();
    this.box.readOnly = true;
    this.page.state(true);
    this.result.replaceChildren();
    let finish = null;
    let failure = null;
    try {
      finish = await generate({
        chat: false, body, timing, signal: this.abort.signal,
        piece: (text, tokens) => {
          const pinned = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 40;
          this.box.value += text;
          if (pinned) this.box.scrollTop = this.box.scrollHeight;
          if (tokens.length && !tokenView) {
            tokenView = new TokenView();
            this.result.append(tokenView.node);
          }
          tokenView?.add(tokens);
          const stats = timing.summary();
          this.stats.replaceChildren(...statsLine(stats, true));
          this.page.used(timing, stats);
        },
      });
    } catch (error) {
      if (error.name === "AbortError") finish = "stopped";
      else failure = error;
    }
    this.abort = null;
    this.box.readOnly = false;
    this.page.state(false);
    this.finish(timing.summary(failure ? "error" : finish), failure);
  }

  finish(stats, failure) {
    this.stats.replaceChildren(...statsLine(stats, false));
    if (stats.prompt !== null) this.page.used(null, stats);
    byId("undo").disabled = false;
    this.store();
    announce(failure ? "" : "The continuation is complete.");
    if (!failure) return;
    const again = () => this.ask();
    this.result.append(errorBox(failure, { again, key: () => this.page.askKey(again) }));
    if (failure.kind === "key") this.page.askKey(again);
  }

  store() {
    save(sessionStorage, "document", this.box.value || null);
  }

  stop() {
    this.abort?.abort();
  }

  undo() {
    if (this.streaming || !this.before.length) return;
    this.box.value = this.before.pop();
    byId("undo").disabled = !this.before.length;
    this.stats.replaceChildren();
    this.result.replaceChildren();
    this.store();
  }

  reset() {
    this.stop();
    this.before = [];
    this.box.value = "";
    this.store();
    byId("undo").disabled = true;
    this.stats.replaceChildren();
    this.result.replaceChildren();
    this.page.used(null, null);
  }

  export() {
    const { system, plain, ...sampling } = this.page.settings.values;
    return {
      model: this.page.model(), exported: new Date().toISOString(), sampling, text: this.box.value,
    };
  }
}
