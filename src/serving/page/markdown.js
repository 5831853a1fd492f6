// Markdown to DOM nodes: headings, lists, quotes, tables, code, emphasis, links. Everything that is
// not understood stays text; links lead to http and https only; images become links. Lengths and
// nesting are bounded, so that no text takes long.

import { copyButton, el } from "./dom.js";
import { highlight } from "./highlight.js";

const MAX_DEPTH = 6;
const MAX_INLINE = 20000;  // characters of one paragraph that are searched for spans

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]{0,30})/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,12})([-*+]|\d{1,9}[.)])(\s+)(?=\S)/;
const DELIMITER = /^\s*\|?(?:\s*:?-+:?\s*\|)*\s*:?-+:?\s*\|?\s*$/;

const SPAN = new RegExp([
  /\\([!-/:-@[-`{-~])/,                                            // 1: escaped punctuation
  /(`{1,3})(?!`)([\s\S]{1,2000}?)(?<!`)\2(?!`)/,                   // 2, 3: code
  /\*\*(?=\S)([\s\S]{0,1000}?\S)\*\*(?!\*)/,                      // 4: bold
  /(?<!\w)__(?=\S)([\s\S]{0,1000}?\S)__(?!\w)/,                    // 5: bold
  /\*(?=[^\s*])([\s\S]{0,1000}?[^\s*]|)\*/,                        // 6: italic
  /(?<!\w)_(?=[^\s_])([\s\S]{0,1000}?[^\s_]|)_(?!\w)/,             // 7: italic
  /~~(?=\S)([\s\S]{0,1000}?\S)~~/,                                 // 8: struck out
  /!?\[([^\]\n]{0,500})\]\(\s?<?([^\s()<>]{1,1500}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,200})?)>?(?:\s+"[^"\n]{0,200}")?\)/,  // 9, 10
  /<?(https?:\/\/[^\s<>"'`\]]{1,1500})>?/,                         // 11: bare address
].map((part) => part.source).join("|"), "g");

// The address as the browser understands it, or null where it is not http or https.
export function safeAddress(address) {
  try {
    const url = new URL(address);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

function link(address, label, depth) {
  const href = safeAddress(address);
  if (!href) return null;
  const node = el("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" });
  if (label === null) node.append(address);
  else spans(node, label, depth + 1);
  return node;
}

function spanNode(match, depth) {
  const inner = (tag, text) => {
    const node = el(tag);
    spans(node, text, depth + 1);
    return node;
  };
  if (match[1]) return match[1];
  if (match[3]) return el("code", {}, match[3].replace(/^ (.+) $/, "$1"));
  if (match[4] || match[5]) return inner("strong", match[4] || match[5]);
  if (match[6] || match[7]) return inner("em", match[6] || match[7]);
  if (match[8]) return inner("s", match[8]);
  if (match[10]) return link(match[10], match[9] || match[10], depth) || match[0];
  if (match[11]) {
    const address = match[11].replace(/[.,;:!?*_)]+$/, "");
    const node = link(address, null, depth);
    return node ? [node, match[11].slice(address.length)] : match[0];
  }
  return match[0];
}

function plain(parent, text) {
  text.split("\n").forEach((line, i) => {
    if (i) parent.append(el("br"));
    parent.append(line.trimEnd());
    if (line !== line.trimEnd() && i + 1 === text.split("\n").length) parent.append(" ");
  });
}

function spans(parent, text, depth = 0) {
  if (depth > MAX_DEPTH || text.length > MAX_INLINE) {
    parent.append(text);
    return;
  }
  let at = 0;
  for (const match of text.matchAll(SPAN)) {
    plain(parent, text.slice(at, match.index));
    parent.append(...[spanNode(match, depth)].flat());
    at = match.index + match[0].length;
  }
  plain(parent, text.slice(at));
}

function code(lines, language) {
  const text = lines.join("\n");
  const body = el("code");
  highlight(body, text, language);
  return el("figure", { class: "code" },
            el("figcaption", {}, el("span", {}, language || "text"), copyButton(() => text)),
            el("pre", { tabindex: "0", role: "group", "aria-label": "Code" }, body));
}

// The cells of one line of a table; a bar in code or after a backslash is no border.
function cells(line) {
  const parts = line.trim().replace(/^\|/, "").match(/(?:\\.|`[^`]*`|[^|])+|\|/g) || [];
  const row = [""];
  for (const part of parts) {
    if (part === "|") row.push("");
    else row[row.length - 1] += part;
  }
  if (row.length > 1 && row[row.length - 1].trim() === "") row.pop();
  return row.map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table(lines) {
  const head = cells(lines[0]);
  const sides = cells(lines[1]).map((cell) =>
    (cell.endsWith(":") ? (cell.startsWith(":") ? "middle" : "right") : undefined));
  const row = (tag, texts) => el("tr", {}, ...head.map((_, i) => {
    const cell = el(tag, { class: sides[i] });
    spans(cell, texts[i] || "");
    return cell;
  }));
  return el("div", { class: "table", tabindex: "0", role: "group", "aria-label": "Table" },
            el("table", {}, el("thead", {}, row("th", head)),
               el("tbody", {}, ...lines.slice(2).map((line) => row("td", cells(line))))));
}

// One item's lines, without its mark and indentation.
function item(lines, depth) {
  const node = el("li");
  const task = lines[0].match(/^\[([ xX])\]\s+/);
  if (task) {
    lines[0] = lines[0].slice(task[0].length);
    node.append(el("input", { type: "checkbox", disabled: true, checked: task[1] !== " ",
                              "aria-label": "Task" }));
  }
  const children = blocks(lines, depth + 1).map((block) => block.make());
  if (children.length && children[0].tagName === "P") {  // tight: no paragraph around the text
    node.append(...children.shift().childNodes);
  }
  node.append(...children);
  return node;
}

function list(lines, depth) {
  const first = lines[0].match(ITEM);
  const ordered = /\d/.test(first[2]);
  const start = parseInt(first[2], 10);
  const node = ordered ? el("ol", { start: start === 1 ? undefined : start }) : el("ul");
  const items = [];
  let width = 0;
  for (const line of lines) {
    const mark = line.match(ITEM);
    if (mark && (!items.length || mark[1].length < width)) {
      width = mark[0].length;
      items.push([line.slice(width)]);
    } else {
      const blanks = line.match(/^ */)[0].length;
      items[items.length - 1].push(line.slice(Math.min(blanks, width)));
    }
  }
  node.append(...items.map((own) => item(own, depth)));
  return node;
}

// Where the block that starts at line `i` ends, and what makes its node.
function blockAt(lines, i, depth) {
  const line = lines[i];
  const fence = line.match(FENCE);
  if (fence) {
    let end = i + 1;
    while (end < lines.length && !(lines[end].trim().startsWith(fence[1]) &&
                                   /^(`+|~+)$/.test(lines[end].trim()))) ++end;
    return [Math.min(end + 1, lines.length), () => code(lines.slice(i + 1, end), fence[2])];
  }
  const heading = line.match(HEADING);
  if (heading) {
    return [i + 1, () => {
      const node = el(`h${Math.min(heading[1].length + 2, 6)}`);  // h1 and h2 are the page's own
      spans(node, heading[2]);
      return node;
    }];
  }
  if (RULE.test(line)) return [i + 1, () => el("hr")];
  if (depth < MAX_DEPTH && QUOTE.test(line)) {
    let end = i + 1;
    while (end < lines.length && QUOTE.test(lines[end])) ++end;
    const inner = lines.slice(i, end).map((text) => text.replace(QUOTE, ""));
    return [end, () => el("blockquote", {}, ...blocks(inner, depth + 1).map((b) => b.make()))];
  }
  if (depth < MAX_DEPTH && ITEM.test(line)) return listAt(lines, i, depth);
  if (line.includes("|") && i + 1 < lines.length && lines[i + 1].length < 1000 &&
      lines[i + 1].includes("-") && DELIMITER.test(lines[i + 1]) &&
      cells(line).length === cells(lines[i + 1]).length) {
    let end = i + 2;
    while (end < lines.length && lines[end].includes("|") && lines[end].trim()) ++end;
    return [end, () => table(lines.slice(i, end))];
  }
  let end = i + 1;
  while (end < lines.length && lines[end].trim() && !startsBlock(lines[end], depth)) ++end;
  return [end, () => {
    const node = el("p");
    spans(node, lines.slice(i, end).join("\n"));
    return node;
  }];
}

function listAt(lines, i, depth) {
  const ordered = /\d/.test(lines[i].match(ITEM)[2]);
  let end = i + 1;
  while (end < lines.length) {
    const line = lines[end];
    const mark = line.match(ITEM);
    const blank = !line.trim();
    if (mark && !mark[1] && /\d/.test(mark[2]) !== ordered) break;
    if (RULE.test(line)) break;
    // After a blank line the list goes on with an item or an indented line only.
    if (blank && !/^(\s{2,}\S)/.test(lines[end + 1] || "") && !ITEM.test(lines[end + 1] || "")) break;
    if (!blank && !mark && !/^\s/.test(line) && startsBlock(line, depth)) break;
    ++end;
  }
  return [end, () => list(lines.slice(i, end), depth)];
}

function startsBlock(line, depth) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) ||
         (depth < MAX_DEPTH && (QUOTE.test(line) || ITEM.test(line)));
}

function blocks(lines, depth) {
  const found = [];
  for (let i = 0; i < lines.length;) {
    if (!lines[i].trim()) {
      ++i;
      continue;
    }
    const [end, make] = blockAt(lines, i, depth);
    found.push({ source: lines.slice(i, end).join("\n"), make });
    i = end;
  }
  return found;
}

// Makes `container` show `text`. Blocks that were there already stay the same nodes, so that a
// streamed answer costs its last block only, and a selection survives.
export function render(container, text) {
  const wanted = blocks(text.replace(/\r\n?/g, "\n").replaceAll("\t", "    ").split("\n"), 0);
  const shown = container.markdownSources || [];
  wanted.forEach((block, i) => {
    if (shown[i] === block.source) return;
    const node = block.make();
    if (i < container.children.length) container.children[i].replaceWith(node);
    else container.append(node);
  });
  while (container.children.length > wanted.length) container.lastElementChild.remove();
  container.markdownSources = wanted.map((block) => block.source);
}
