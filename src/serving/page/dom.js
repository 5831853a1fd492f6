// Building of DOM nodes. Text from the model or the server only ever becomes text nodes: the page
// has no innerHTML, and its policy (page.h) forbids it.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

// An HTML element; an attribute "onclick" adds a listener of "click".
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export function byId(id) {
  return document.getElementById(id);
}

// Outlines on a grid of 16 by 16.
const ICONS = {
  again: "M13 8a5 5 0 1 1-1.6-3.7M13 2.5V5h-2.5",
  check: "M3.5 8.5l3 3 6-7",
  copy: "M6 6h7v7H6zM10 6V3H3v7h3",
  edit: "M3 13l.7-3L10.5 3.2l2.3 2.3L6 12.3z",
  tokens: "M2.5 5h4v6h-4zM8.5 5h5v6h-5z",
  undo: "M6 4L3 7l3 3M3 7h6a3.5 3.5 0 0 1 0 7H7",
};

export function icon(name) {
  return svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" },
             svg("path", { d: ICONS[name] }));
}

// A small button with an icon and a word.
export function iconButton(name, label, action) {
  return el("button", { type: "button", class: "quiet", title: label, onclick: action },
            icon(name), el("span", {}, label));
}

// A button that copies what `text` returns, and says that it did.
export function copyButton(text) {
  const button = iconButton("copy", "Copy", async () => {
    const word = button.querySelector("span");
    try {
      await navigator.clipboard.writeText(text());
      button.replaceChildren(icon("check"), word);
      word.textContent = "Copied";
    } catch {
      word.textContent = "Not allowed here";  // without TLS browsers keep the clipboard closed
    }
    setTimeout(() => {
      button.replaceChildren(icon("copy"), word);
      word.textContent = "Copy";
    }, 1500);
  });
  return button;
}

// Tells screen readers one sentence.
export function announce(text) {
  byId("announcer").textContent = text;
}

export function formatCount(value) {
  return Math.round(value).toLocaleString("en-US");
}

// Seconds as people say them: 85 ms, 1.2 s, 2 min 5 s.
export function formatSeconds(seconds) {
  if (!Number.isFinite(seconds)) return "\u2013";
  if (seconds < 0.0095) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(2)} s`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

export function formatRate(rate) {
  if (!Number.isFinite(rate)) return "\u2013";
  return rate < 100 ? rate.toFixed(1) : formatCount(rate);
}

// Storage may be switched off; the page works without.
export function load(storage, name) {
  try {
    return JSON.parse(storage.getItem(`atom.${name}`));
  } catch {
    return null;
  }
}

export function save(storage, name, value) {
  try {
    if (value === null) storage.removeItem(`atom.${name}`);
    else storage.setItem(`atom.${name}`, JSON.stringify(value));
  } catch {
    // full, or switched off
  }
}
