// What a message of the conversation looks like: the user's, and the model's with its numbers.

import { inWords } from "./api.js";
import { copyButton, el, formatCount, formatRate, formatSeconds, iconButton } from "./dom.js";
import { render } from "./markdown.js";
import { TokenView } from "./tokens.js";

const FINISHES = {
  length: "cut at max tokens", cancelled: "stopped", stopped: "stopped", deadline: "out of time",
  content_filter: "filtered", error: "failed",
};

function figure(value, unit, title) {
  return el("span", { class: "figure", title }, el("b", {}, value), ` ${unit}`);
}

// The line of numbers under an answer; `live`: it still grows.
export function statsLine(stats, live) {
  const about = live && !stats.exact ? "\u2248" : "";
  const parts = [];
  if (stats.rate !== null) {
    parts.push(figure(formatRate(stats.rate), "tok/s", "Tokens a second after the first"));
  }
  if (stats.firstToken !== null) {
    parts.push(figure(formatSeconds(stats.firstToken), "to first token", "From sending to the first token"));
  }
  if (stats.tokens) parts.push(figure(about + formatCount(stats.tokens), "tokens", "Tokens of the answer"));
  if (stats.prompt !== null && !live) {
    const cached = stats.cached ? `prompt (${formatCount(stats.cached)} cached)` : "prompt";
    parts.push(figure(formatCount(stats.prompt), cached, "Tokens of the prompt, and those out of the prefix cache"));
  }
  if (stats.seconds !== null && !live) parts.push(figure(formatSeconds(stats.seconds), "in all", "From sending to the last token"));
  if (FINISHES[stats.finish]) parts.push(el("span", { class: "figure finish" }, FINISHES[stats.finish]));
  return parts;
}

// A sentence about an error with a button; a busy server's has a countdown to the time it named.
export function errorBox(error, actions) {
  const { title, text } = inWords(error);
  const box = el("div", { class: "error", role: "alert" }, el("b", {}, title), el("span", {}, text));
  if (error.kind === "key") {
    box.append(el("button", { type: "button", onclick: actions.key }, "Enter the key"));
    return box;
  }
  const label = error.kind === "broken" ? "Ask again" : "Try again";
  const button = el("button", { type: "button", onclick: actions.again }, label);
  box.append(button);
  if (error.retryAfter) {
    const due = Date.now() + error.retryAfter * 1000;
    const tick = () => {
      const left = Math.ceil((due - Date.now()) / 1000);
      button.textContent = left > 0 ? `Try again (in ${left} s)` : label;
      if (left > 0 && (box.isConnected || left === error.retryAfter)) setTimeout(tick, 500);
    };
    box.append(el("small", {}, `It asked to wait ${formatSeconds(error.retryAfter)}.`));
    tick();
  }
  return box;
}

export function userNode(message, edit) {
  const node = el("article", { class: "message user", "aria-label": "You" },
                  el("div", { class: "bubble" }, message.content));
  node.append(el("div", { class: "tools" }, copyButton(() => message.content),
                 iconButton("edit", "Edit", () => edit(message, node))));
  return node;
}

// Turns the user's message into a box to edit it; `done` gets the new text.
export function editInPlace(message, node, done) {
  const box = el("textarea", { "aria-label": "Edit your message", rows: 3 });
  box.value = message.content;
  const before = [...node.childNodes];
  const close = () => node.replaceChildren(...before);
  const submit = () => (box.value.trim() ? done(box.value) : close());
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      close();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  });
  node.replaceChildren(el("div", { class: "editor" }, box, el("div", { class: "row" },
    el("button", { type: "button", class: "plain", onclick: close }, "Cancel"),
    el("button", { type: "button", class: "primary", onclick: submit }, "Send"))));
  box.focus();
}

// The node of an answer; it follows its message while that grows.
export class AnswerView {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.body = el("div", { class: "markdown" });
    this.text = el("div", { class: "text" }, this.body);
    this.stats = el("div", { class: "stats" });
    this.tools = el("div", { class: "tools" });
    this.tokens = null;
    this.asTokens = false;
    this.node = el("article", { class: "message answer", "aria-label": "Answer" }, this.text,
                   el("div", { class: "below" }, this.stats, this.tools));
    this.waiting = false;
  }

  addTokens(tokens) {
    if (!tokens.length) return;
    if (!this.tokens) {
      this.tokens = new TokenView();
      this.toggleTokens(true);
    }
    this.tokens.add(tokens);
  }

  toggleTokens(on) {
    this.asTokens = on;
    if (!on) render(this.body, this.message.content);
    this.text.replaceChildren(on ? this.tokens.node : this.body);
  }

  // Draws at most once a frame while it streams.
  grow(stats) {
    this.live = stats;
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (this.message.done) return;
      this.draw(this.live, true);
      this.actions.grown();
    });
  }

  draw(stats, live) {
    this.node.classList.toggle("streaming", live);
    if (!this.asTokens) render(this.body, this.message.content);
    this.stats.replaceChildren(...statsLine(stats, live));
  }

  finish(stats, error) {
    this.draw(stats, false);
    const { message, actions } = this;
    const tools = [iconButton("again", "Regenerate", actions.again)];
    if (message.content) tools.unshift(copyButton(() => message.content));
    if (this.tokens) {
      tools.push(iconButton("tokens", "Tokens / text", () => this.toggleTokens(!this.asTokens)));
    }
    this.tools.replaceChildren(...(error ? tools.filter(() => message.content) : tools));
    if (error) this.node.append(errorBox(error, actions));
  }
}
