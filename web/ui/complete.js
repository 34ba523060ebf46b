// Completion of metric names, functions and label names while typing.

import { functionNames, labelNames, metricNames } from "./client.js";
import { element } from "./dom.js";

const SHOWN_MAX = 12;
const METRICS_MAX = 20_000;
const WORD = /[a-zA-Z_:][\w:]*$/;

// Prefix matches first, then matches anywhere; shorter names first.
export function rank(candidates, word, limit) {
  const wanted = word.toLowerCase();
  const hits = [];
  for (const candidate of candidates) {
    const at = candidate.text.toLowerCase().indexOf(wanted);
    if (at >= 0 && candidate.text !== word) hits.push({ ...candidate, at });
  }
  hits.sort((a, b) => (a.at > 0) - (b.at > 0) || a.text.length - b.text.length || (a.text < b.text ? -1 : 1));
  return hits.slice(0, limit);
}

// The metric whose braces the caret is in, "" for braces without a name, null outside of braces.
export function openSelector(before) {
  const open = before.lastIndexOf("{");
  if (open < 0 || before.lastIndexOf("}") > open) return null;
  return WORD.exec(before.slice(0, open))?.[0] ?? "";
}

export class Completion {
  #input;
  #list;
  #changed;
  #sources;
  #labels = new Map();
  #shown = [];
  #chosen = -1;

  constructor(input, list, changed) {
    this.#input = input;
    this.#list = list;
    this.#changed = changed;
    input.addEventListener("blur", () => this.close());
    list.addEventListener("mousedown", (event) => {
      event.preventDefault();
      const item = event.target.closest("li");
      if (item) this.#accept(Number(item.dataset.index));
    });
  }

  get open() {
    return !this.#list.hidden;
  }

  async #names() {
    this.#sources ??= Promise.all([metricNames(METRICS_MAX), functionNames()]).then(([metrics, functions]) => [
      ...metrics.map((text) => ({ text, kind: "metric" })),
      ...functions.map((text) => ({ text, kind: "function" })),
    ]);
    return this.#sources.catch(() => ((this.#sources = undefined), []));
  }

  async #candidates(before) {
    const metric = openSelector(before);
    if (metric === null) return this.#names();
    if (!this.#labels.has(metric)) {
      const names = labelNames(metric).then((found) => found.map((text) => ({ text, kind: "label" })));
      this.#labels.set(metric, names.catch(() => []));
    }
    return this.#labels.get(metric);
  }

  // Offer what fits the word before the caret.
  async update() {
    const caret = this.#input.selectionStart;
    const before = this.#input.value.slice(0, caret);
    const word = WORD.exec(before)?.[0] ?? "";
    const quotes = (before.match(/"/g) ?? []).length;
    if (!word || quotes % 2 === 1 || /[\w:]/.test(this.#input.value[caret] ?? "")) return this.close();
    const candidates = await this.#candidates(before.slice(0, -word.length));
    if (this.#input.selectionStart !== caret || document.activeElement !== this.#input) return;
    this.#shown = rank(candidates, word, SHOWN_MAX);
    this.#chosen = -1;
    this.#draw(word);
  }

  #draw(word) {
    const items = this.#shown.map(({ text, kind, at }, index) => {
      const name = element("span", {}, text.slice(0, at), element("b", {}, text.slice(at, at + word.length)), text.slice(at + word.length));
      const id = `completion-${index}`;
      return element("li", { role: "option", id, "data-index": index, "aria-selected": "false" }, name, element("span", {}, kind));
    });
    this.#list.replaceChildren(...items);
    this.#list.hidden = items.length === 0;
    this.#input.setAttribute("aria-expanded", String(items.length > 0));
    this.#input.removeAttribute("aria-activedescendant");
  }

  #choose(index) {
    const count = this.#shown.length;
    this.#chosen = (index + count) % count;
    [...this.#list.children].forEach((item, i) => item.setAttribute("aria-selected", String(i === this.#chosen)));
    const item = this.#list.children[this.#chosen];
    this.#input.setAttribute("aria-activedescendant", item.id);
    item.scrollIntoView({ block: "nearest" });
  }

  #accept(index) {
    const { text, kind } = this.#shown[index];
    const caret = this.#input.selectionStart;
    const start = caret - (WORD.exec(this.#input.value.slice(0, caret))?.[0].length ?? 0);
    const added = kind === "function" ? `${text}(` : text;
    this.#input.setRangeText(added, start, caret, "end");
    this.close();
    this.#changed();
  }

  // Whether the key was for the list.
  key(event) {
    if (!this.open) return false;
    if (event.key === "ArrowDown") this.#choose(this.#chosen + 1);
    else if (event.key === "ArrowUp") this.#choose(this.#chosen < 0 ? -1 : this.#chosen - 1);
    else if (event.key === "Escape") this.close();
    else if (event.key === "Tab" && !event.shiftKey) this.#accept(Math.max(0, this.#chosen));
    else if (event.key === "Enter" && this.#chosen >= 0) this.#accept(this.#chosen);
    else return false;
    event.preventDefault();
    return true;
  }

  close() {
    this.#list.hidden = true;
    this.#input.setAttribute("aria-expanded", "false");
    this.#input.removeAttribute("aria-activedescendant");
  }
}
