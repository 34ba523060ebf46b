// Colours for an expression, drawn behind the transparent text of the input.

import { element } from "./dom.js";

const KEYWORDS = new Set(
  "by without on ignoring group_left group_right bool offset and or unless atan2 start end inf nan".split(" "),
);
const TOKEN =
  /(#[^\n]*)|("(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|`[^`]*`?)|((?:\d+(?:\.\d+)?(?:ms|[smhdwy]))+|0x[\da-f]+|\d[\d_]*\.?\d*(?:e[+-]?\d+)?)(?![\w:])|([a-z_:][\w:]*)/gi;

function kindOf(text, after, depth, match) {
  if (match[1]) return "comment";
  if (match[2]) return "string";
  if (match[3]) return "number";
  if (depth > 0) return "label";
  if (KEYWORDS.has(text.toLowerCase())) return "keyword";
  return /^\s*(\(|by\b|without\b)/.test(after) ? "function" : "";
}

// Draw `text` into `target`; `problem` is the character offset of an error, or -1.
export function highlight(target, text, problem = -1) {
  const parts = [];
  let last = 0;
  let depth = 0;
  const plain = (until) => {
    const skipped = text.slice(last, until);
    for (const char of skipped) depth += char === "{" ? 1 : char === "}" ? -1 : 0;
    const at = problem - last;
    if (at < 0 || at >= skipped.length) parts.push(skipped);
    else parts.push(skipped.slice(0, at), element("span", { class: "t-problem" }, skipped[at]), skipped.slice(at + 1));
  };
  for (const match of text.matchAll(TOKEN)) {
    plain(match.index);
    last = match.index + match[0].length;
    const kind = kindOf(match[0], text.slice(last), depth, match);
    const wrong = problem >= match.index && problem < last;
    const names = [kind && `t-${kind}`, wrong && "t-problem"].filter(Boolean).join(" ");
    parts.push(names ? element("span", { class: names }, match[0]) : match[0]);
  }
  plain(text.length);
  target.replaceChildren(...parts, "\n");
}
