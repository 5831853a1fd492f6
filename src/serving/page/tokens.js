// An answer as tokens shaded by how sure the model was, with the alternatives of the token under
// the pointer (or of the one chosen with the arrow keys).

import { byId, el } from "./dom.js";

// From "certain" to "guess"; the classes sure-0 to sure-4 of the style sheet.
const STEPS = [0.9, 0.6, 0.3, 0.1];

function percent(logprob) {
  const share = Math.exp(logprob) * 100;
  if (!Number.isFinite(share)) return "\u2013";
  return share >= 99.95 ? "100 %" : share >= 0.1 ? `${share.toFixed(1)} %` : "< 0.1 %";
}

// Blanks and line ends as signs, as tokens often are nothing else.
function visible(text) {
  return text.replaceAll(" ", "\u00b7").replaceAll("\n", "\u21b5").replaceAll("\t", "\u2192") ||
         "(empty)";
}

export class TokenView {
  constructor() {
    this.tokens = [];
    this.decoder = new TextDecoder();
    this.chosen = -1;
    this.node = el("div", {
      class: "tokens", tabindex: "0", role: "group",
      "aria-label": "Tokens of the answer; arrow keys go from one to the next",
      onpointerover: (event) => this.choose(this.indexOf(event.target)),
      onpointerleave: () => this.choose(-1),
      onblur: () => this.choose(-1),
      onkeydown: (event) => this.key(event),
    });
  }

  add(tokens) {
    for (const token of tokens) {
      const p = Math.exp(token.logprob);
      const step = Number.isFinite(p) ? STEPS.filter((limit) => p < limit).length : 0;
      // Bytes of one character may lie in several tokens: it shows in the last of them.
      const text = token.bytes
        ? this.decoder.decode(Uint8Array.from(token.bytes), { stream: true }) : token.text;
      this.node.append(el("span", { class: `token sure-${step}` }, text));
      this.tokens.push(token);
    }
  }

  indexOf(target) {
    return target === this.node ? -1 : Array.prototype.indexOf.call(this.node.children, target);
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(this.tokens.length - 1, this.chosen + step)));
  }

  choose(index) {
    this.node.children[this.chosen]?.classList.remove("chosen");
    this.chosen = index;
    const span = this.node.children[index];
    const tip = byId("tip");
    tip.hidden = !span;
    if (!span) return;
    span.classList.add("chosen");
    tip.replaceChildren(...this.rows(this.tokens[index]));
    const box = span.getBoundingClientRect();
    const below = box.bottom + tip.offsetHeight + 8 < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${below ? box.bottom + 6 : box.top - tip.offsetHeight - 6}px`;
  }

  rows(token) {
    const others = [...token.others];
    if (!others.some((other) => other.text === token.text)) others.unshift(token);
    others.sort((a, b) => b.logprob - a.logprob);
    return others.slice(0, 6).map((other) => {
      const bar = el("span", { class: "share" });
      bar.style.width = `${Math.min(100, Math.exp(other.logprob) * 100) || 0}%`;
      return el("div", { class: other.text === token.text ? "own" : undefined },
                el("code", {}, visible(other.text)), el("span", { class: "track" }, bar),
                el("span", { class: "number" }, percent(other.logprob)));
    });
  }
}
