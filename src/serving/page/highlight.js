// Colours for code of common languages: comments, strings, numbers, keywords. One table for all of
// them; what it does not know stays plain.

import { el } from "./dom.js";

const MAX_LENGTH = 30000;

const KEYWORDS = new Set(("and as assert async await auto bool break case catch char class const " +
  "constexpr continue def default defer delete do double elif else enum except export extends false " +
  "final finally float fn for from func function go if impl import in include int interface is lambda " +
  "let long loop match mod module mut namespace new nil None not null nullptr of or override package " +
  "pass private protected pub public raise return self short signed size_t sizeof static string " +
  "struct super switch template this throw trait true True False try type typedef typename union " +
  "unsigned static_cast reinterpret_cast use using var virtual void while with yield").split(" "));
const SQL = new Set(("SELECT INSERT UPDATE DELETE CREATE TABLE FROM WHERE VALUES JOIN LEFT INNER GROUP " +
  "ORDER BY LIMIT SET INTO AND OR NOT NULL AS ON HAVING UNION DISTINCT").split(" "));

const HASH_COMMENTS = /^(py|python|sh|bash|shell|zsh|ruby|rb|yaml|yml|toml|perl|r|cmake|make|makefile|dockerfile|conf|ini|)$/i;
const PLAIN = /^(text|txt|plain|plaintext|console|output|markdown|md|log)$/i;

const SLASHES = /\/\/[^\n]*|\/\*[\s\S]*?(?:\*\/|$)/;
const HASHES = /(?<=^|\s)#[^\n]*/;
const DASHES = /--[^\n]*/;
const REST = /"""[\s\S]*?(?:"""|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|`(?:\\.|[^`\\])*`?|\b\d[\w.]*|[A-Za-z_]\w*(?=\s*\()?/;

function pattern(language) {
  const comment = /^(sql|lua|haskell)$/i.test(language) ? DASHES
    : HASH_COMMENTS.test(language) ? HASHES : SLASHES;
  return new RegExp(`(${comment.source})|${REST.source}`, "gm");
}

function kindOf(match, text, end, sql) {
  if (match[1]) return "comment";
  const first = match[0][0];
  if (first === '"' || first === "'" || first === "`") return "string";
  if (/\d/.test(first)) return "number";
  if (sql ? SQL.has(match[0].toUpperCase()) : KEYWORDS.has(match[0])) return "keyword";
  return text[end] === "(" ? "call" : null;
}

// Appends `text` to `parent`, coloured by class.
export function highlight(parent, text, language) {
  if (!language || PLAIN.test(language) || text.length > MAX_LENGTH) {
    parent.append(text);
    return;
  }
  const sql = /^sql$/i.test(language);
  let at = 0;
  for (const match of text.matchAll(pattern(language))) {
    const end = match.index + match[0].length;
    const kind = kindOf(match, text, end, sql);
    if (!kind) continue;
    parent.append(text.slice(at, match.index), el("span", { class: `code-${kind}` }, match[0]));
    at = end;
  }
  parent.append(text.slice(at));
}
