// The conversation: what is sent, what comes back, and the list of messages on the screen.

import { announce, byId, el, load, save } from "./dom.js";
import { generate, Timing } from "./generate.js";
import { AnswerView, editInPlace, userNode } from "./message.js";

const EXAMPLES = [
  "Explain what a KV-cache is, in three sentences.",
  "Write a C++ function that packs two 4-bit integers into a byte.",
  "Compare INT8 and INT4 for activations in a table.",
];

function lacksTemplate(failure) {
  return failure?.code === "no_chat_template" ||
         (failure?.status === 400 && failure.message.includes("no chat template"));  // of other servers
}

export class Chat {
  // page: { model(), settings, askKey(then), used(tokens), state(streaming), noTemplate(text) }
  constructor(page) {
    this.page = page;
    this.log = byId("log");
    this.messages = [];
    this.abort = null;
    this.pinned = true;
    this.log.addEventListener("scroll", () => {
      this.pinned = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
    });
    this.restore(load(sessionStorage, "conversation"));
  }

  get streaming() {
    return this.abort !== null;
  }

  send(text) {
    this.push({ role: "user", content: text });
    return this.ask();
  }

  push(message) {
    if (!this.messages.length) this.log.replaceChildren();
    this.messages.push(message);
    const node = message.role === "user"
      ? userNode(message, (own, place) => this.edit(own, place)) : this.answer(message).node;
    message.node = node;
    this.log.append(node);
    this.pinned = true;
    this.follow();
  }

  answer(message) {
    message.view = new AnswerView(message, {
      again: () => this.regenerate(),
      key: () => this.page.askKey(() => this.regenerate()),
      grown: () => this.follow(),
    });
    return message.view;
  }

  follow() {
    if (this.pinned) this.log.scrollTop = this.log.scrollHeight;
  }

  body() {
    const { settings } = this.page;
    const messages = this.messages.filter((message) => message.content || message.role === "user")
      .map(({ role, content }) => ({ role, content }));
    if (settings.values.system.trim()) {
      messages.unshift({ role: "system", content: settings.values.system });
    }
    return { model: this.page.model(), messages, ...settings.fields(true) };
  }

  // Asks for an answer to the conversation as it stands.
  async ask() {
    if (this.streaming) return;
    const body = this.body();
    const message = { role: "assistant", content: "", done: false };
    this.push(message);
    const { view } = message;
    const timing = new Timing();
    this.abort = new AbortController();
    this.page.state(true);
    view.draw(timing.summary(), true);
    let finish = null;
    let failure = null;
    try {
      finish = await generate({
        chat: true, body, timing, signal: this.abort.signal,
        piece: (text, tokens) => {
          message.content += text;
          view.addTokens(tokens);
          const stats = timing.summary();
          view.grow(stats);
          this.page.used(timing, stats);
        },
      });
    } catch (error) {
      if (error.name === "AbortError") finish = "stopped";
      else failure = error;
    }
    this.abort = null;
    this.page.state(false);
    this.finish(message, timing.summary(failure ? "error" : finish), failure);
    if (lacksTemplate(failure)) this.handOver();
  }

  finish(message, stats, failure) {
    message.done = true;
    message.stats = stats;
    message.view.finish(stats, failure);
    if (stats.prompt !== null) this.page.used(null, stats);
    if (failure) message.failed = true;
    announce(failure ? "" : "The answer is complete.");
    this.follow();
    this.store();
    if (failure?.kind === "key") this.page.askKey(() => this.regenerate());
  }

  // The model has no chat template: the text box of the other mode takes the question.
  handOver() {
    const text = this.messages.filter((message) => message.role === "user").pop().content;
    this.reset();
    this.page.noTemplate(text);
  }

  stop() {
    this.abort?.abort();
  }

  // Takes back everything from the last user message on (itself kept) and asks again.
  regenerate() {
    if (this.streaming) return;
    while (this.messages.length && this.messages[this.messages.length - 1].role !== "user") this.pop();
    if (this.messages.length) this.ask();
  }

  pop() {
    this.messages.pop().node.remove();
  }

  edit(message, node) {
    if (this.streaming) return;
    editInPlace(message, node, (text) => {
      while (this.messages.includes(message)) this.pop();
      this.send(text);
    });
  }

  reset() {
    this.stop();
    this.messages = [];
    this.store();
    this.page.used(null, null);
    this.showEmpty();
  }

  showEmpty() {
    const example = (text) => el("button", { type: "button", class: "example",
                                             onclick: () => this.send(text) }, text);
    this.log.replaceChildren(el("div", { class: "empty" },
      el("h2", {}, "Ask something"),
      el("p", { id: "empty-model" }, this.page.describe()),
      el("div", { class: "examples" }, ...EXAMPLES.map(example))));
  }

  store() {
    save(sessionStorage, "conversation", this.messages.length
      ? this.messages.map(({ role, content, stats }) => ({ role, content, stats })) : null);
  }

  restore(messages) {
    const right = Array.isArray(messages) && messages.length && messages.every((m) =>
      typeof m.content === "string" && (m.role === "user" || (m.role === "assistant" && m.stats)));
    if (!right) {
      this.showEmpty();
      return;
    }
    for (const message of messages) {
      this.push(message);
      if (message.role === "assistant") this.finish(message, message.stats, null);
    }
    announce("");
  }

  // The conversation as a file.
  export() {
    const { values } = this.page.settings;
    const { system, plain, ...sampling } = values;
    return {
      model: this.page.model(),
      exported: new Date().toISOString(),
      system,
      sampling,
      messages: this.messages.map(({ role, content, stats }) => ({ role, content, stats })),
    };
  }
}
