// The query page: one expression, a table or a graph, and a URL that brings both back.

import { showChart } from "./chart.js";
import * as client from "./client.js";
import { Completion } from "./complete.js";
import { element, formatTime } from "./dom.js";
import { highlight } from "./highlight.js";
import {
  POINTS_MAX,
  RANGES,
  formatDuration,
  formatMoment,
  parseDuration,
  parseMoment,
  readUrl,
  stepSeconds,
  toUrl,
} from "./state.js";
import { showTable } from "./table.js";
import { stored } from "./storage.js";

const $ = (id) => document.getElementById(id);
const input = $("expression");
const panel = $("panel");
const tabs = { table: $("tab-table"), graph: $("tab-graph") };
const TITLE = document.title;
const EXAMPLES = ["up", "sum by (job) (up)", "rate(prometheus_http_requests_total[5m])", "topk(5, scrape_duration_seconds)"];

let state = readUrl(location.search);
let utc = stored("vedette.utc") === "true";
let running = null;
let chart = null;
let problem = -1;

// Times in the end-time input are in the chosen zone.
function toInput(ms) {
  if (ms === null) return "";
  const shifted = utc ? ms : ms - new Date(ms).getTimezoneOffset() * 60_000;
  return formatMoment(shifted);
}

// Milliseconds, null for an empty text, NaN for nonsense.
function fromInput(text) {
  if (text === "" || text === "now") return null;
  const ms = parseMoment(text) ?? NaN;
  return utc ? ms : ms + new Date(ms).getTimezoneOffset() * 60_000;
}

function drawExpression() {
  highlight($("highlight"), input.value, problem);
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}

function drawControls() {
  const graph = state.tab === "graph";
  for (const [name, tab] of Object.entries(tabs)) {
    tab.setAttribute("aria-selected", String(name === state.tab));
    tab.tabIndex = name === state.tab ? 0 : -1;
  }
  panel.setAttribute("aria-labelledby", tabs[state.tab].id);
  $("range-group").hidden = $("step-group").hidden = !graph;
  $("range").value = state.range;
  $("end").value = toInput(state.end);
  $("step").value = state.step;
  $("step").placeholder = `auto (${formatDuration(stepSeconds({ ...state, step: "" }) * 1000)})`;
  $("zone").textContent = utc ? "UTC" : "Local time";
}

function message(kind, title, text) {
  const attributes = { class: `message ${kind}` };
  if (kind === "error") attributes.role = "alert";
  $("messages").append(element("div", attributes, element("strong", {}, title), text));
}

function showNotes(body) {
  $("messages").replaceChildren();
  for (const text of body.warnings ?? []) message("warning", "Warning", text);
  for (const text of body.infos ?? []) message("info", "Info", text);
}

// "invalid parameter "query": 1:5: parse error" -> offset of line 1, column 5 in the text.
function offsetOf(text) {
  const match = /"query": (\d+):(\d+): parse error/.exec(text);
  if (!match) return -1;
  const lines = input.value.split("\n");
  const line = Number(match[1]) - 1;
  const before = lines.slice(0, line).reduce((sum, item) => sum + item.length + 1, 0);
  return Math.min(before + Number(match[2]) - 1, Math.max(0, input.value.length - 1));
}

function showError(error) {
  clearChart();
  $("messages").replaceChildren();
  panel.replaceChildren();
  $("status").textContent = "";
  message("error", error.type ?? "Error", error.message);
  problem = offsetOf(error.message);
  drawExpression();
}

function clearChart() {
  chart?.destroy();
  chart = null;
}

function showStart() {
  clearChart();
  $("messages").replaceChildren();
  $("status").textContent = "";
  const run = (expr) => () => {
    input.value = expr;
    execute();
  };
  panel.replaceChildren(
    element(
      "div",
      { class: "empty" },
      element("h2", {}, "Ask your metrics something"),
      element("p", {}, "Type an expression above, or start with one of these."),
      element("div", { class: "examples" }, ...EXAMPLES.map((expr) => element("button", { type: "button", onclick: run(expr) }, expr))),
    ),
  );
}

function report(count, body, started, extra) {
  const parts = [
    `${count.toLocaleString()} ${count === 1 ? "result" : "results"}`,
    `${Math.round(performance.now() - started)} ms`,
    `${(body.bytes / 1024).toLocaleString(undefined, { maximumFractionDigits: 1 })} KiB`,
    ...extra,
  ];
  $("status").textContent = parts.join("  ·  ");
}

async function runTable(signal, started) {
  const body = await client.instant(state.expr, state.end, signal);
  clearChart();
  showNotes(body);
  const count = showTable(panel, body.data, utc);
  report(count, body, started, [`at ${formatTime(state.end ?? Date.now(), utc)}`]);
}

async function runGraph(signal, started) {
  const stepS = stepSeconds(state);
  const rangeS = parseDuration(state.range) / 1000;
  if (rangeS / stepS > POINTS_MAX) throw new client.ApiError("bad_data", `A step of ${stepS} s over ${state.range} is more than ${POINTS_MAX} points.`);
  const endS = (state.end ?? Date.now()) / 1000;
  const startS = Math.floor((endS - rangeS) * 1000) / 1000;
  const body = await client.range(state.expr, startS * 1000, endS * 1000, stepS, signal);
  clearChart();
  showNotes(body);
  const zoom = (from, to) => {
    state = { ...state, end: Math.round(to / 1000) * 1000, range: formatDuration(Math.max(1000, to - from)), step: "" };
    execute();
  };
  chart = showChart(panel, body.data, { startS, endS, stepS, utc, zoom });
  report(chart.count, body, started, [`step ${formatDuration(stepS * 1000)}`]);
}

function busy(on) {
  $("progress").hidden = !on;
  $("execute").textContent = on ? "Cancel" : "Execute";
  $("execute").classList.toggle("busy", on);
  panel.classList.toggle("stale", on);
  panel.setAttribute("aria-busy", String(on));
}

// Run what the controls say; `push` adds a step to the browser's history.
async function execute(push = true) {
  running?.abort();
  problem = -1;
  state = { ...state, expr: input.value.trim() };
  document.title = state.expr ? `${state.expr.slice(0, 80)} · ${TITLE}` : TITLE;
  drawExpression();
  drawControls();
  if (push && toUrl(state) !== location.search) history.pushState(null, "", toUrl(state));
  if (!state.expr) return showStart();
  const mine = (running = new AbortController());
  const started = performance.now();
  // Quick answers come without a flicker of the progress bar.
  const late = setTimeout(() => busy(true), 120);
  try {
    await (state.tab === "graph" ? runGraph : runTable)(mine.signal, started);
  } catch (error) {
    if (error.name !== "AbortError") showError(error);
    else if (running === mine) $("status").textContent = "Cancelled.";
  } finally {
    clearTimeout(late);
    if (running === mine) {
      running = null;
      busy(false);
    }
  }
}

function setTab(name) {
  state = { ...state, tab: name };
  execute();
}

function setDuration(id, key, allowEmpty) {
  const text = $(id).value.trim();
  const valid = parseDuration(text) > 0 || (allowEmpty && text === "");
  $(id).setAttribute("aria-invalid", String(!valid));
  if (!valid || state[key] === text) return;
  state = { ...state, [key]: text };
  execute();
}

function setEnd() {
  const end = fromInput($("end").value.trim());
  $("end").setAttribute("aria-invalid", String(Number.isNaN(end)));
  if (Number.isNaN(end)) return;
  state = { ...state, end };
  execute();
}

function moveRange(direction) {
  const now = parseDuration(state.range);
  const options = RANGES.filter((text) => (direction > 0 ? parseDuration(text) > now : parseDuration(text) < now));
  const next = direction > 0 ? options[0] : options.at(-1);
  if (!next) return;
  state = { ...state, range: next };
  execute();
}

function moveEnd(direction) {
  const by = (state.tab === "graph" ? parseDuration(state.range) : 600_000) / 2;
  const end = (state.end ?? Date.now()) + direction * by;
  state = { ...state, end: Math.round(end / 1000) * 1000 };
  execute();
}

function toggleTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const current = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  document.documentElement.dataset.theme = stored("vedette.theme", current === "dark" ? "light" : "dark");
  if (chart) execute(false);
}

function wire() {
  const completion = new Completion(input, $("completions"), () => drawExpression());
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    completion.close();
    if ($("execute").classList.contains("busy")) running?.abort();
    else execute();
  });
  input.addEventListener("input", () => {
    problem = -1;
    drawExpression();
    completion.update();
  });
  input.addEventListener("keydown", (event) => {
    if (completion.key(event) || event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      completion.close();
      execute();
    }
  });
  for (const [name, tab] of Object.entries(tabs)) {
    tab.addEventListener("click", () => setTab(name));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = name === "table" ? "graph" : "table";
      setTab(other);
      tabs[other].focus();
    });
  }
  $("range-less").addEventListener("click", () => moveRange(-1));
  $("range-more").addEventListener("click", () => moveRange(1));
  $("end-back").addEventListener("click", () => moveEnd(-1));
  $("end-forward").addEventListener("click", () => moveEnd(1));
  $("end-now").addEventListener("click", () => ((state = { ...state, end: null }), execute()));
  $("range").addEventListener("change", () => setDuration("range", "range", false));
  $("step").addEventListener("change", () => setDuration("step", "step", true));
  $("end").addEventListener("change", setEnd);
  $("theme").addEventListener("click", toggleTheme);
  $("zone").addEventListener("click", () => ((utc = !utc), stored("vedette.utc", String(utc)), execute(false)));
  addEventListener("popstate", load);
  addEventListener("resize", drawExpression);
}

function load() {
  state = readUrl(location.search);
  input.value = state.expr;
  execute(false);
}

wire();
load();
if (!state.expr) input.focus();
