// The security page: filters, counts over time, and events as they come.

import { showChart } from "./chart.js";
import { ApiError, range, securityEvents, securityRules } from "./client.js";
import { element, formatTime } from "./dom.js";
import { countQuery, eventParameters, queryLink, readUrl, seriesLink, stepSeconds, toUrl } from "./securityfilters.js";
import { parseDuration } from "./state.js";
import { stored } from "./storage.js";

const ROWS_MAX = 500;
const HISTORY = 200;
const CHART_HEIGHT = 210;
const CHART_EVERY_MS = 15_000;
const TYPING_MS = 300;

const $ = (id) => document.getElementById(id);
const body = document.querySelector("#feed tbody");
const filters = readUrl(location.search);
let utc = stored("vedette.utc") === "true";
let source = null;
let chart = null;
let chartRequest = null;
let feedRequest = null;
let waiting = [];
let painting = false;
let lost = 0;

// Rows.

function fact(name, value) {
  const missing = value === null || value === undefined;
  const text = missing ? "not available" : typeof value === "string" ? value : JSON.stringify(value);
  return [element("dt", {}, name), element("dd", missing ? { class: "missing" } : {}, text)];
}

function facts(title, object) {
  const names = Object.keys(object).sort();
  return element("div", {}, element("h3", {}, title), element("dl", {}, ...names.flatMap((name) => fact(name, object[name]))));
}

function details(event) {
  const { "evt.time": time, ...fields } = event.output_fields ?? {};
  const about = { time: event.time, priority: event.priority, source: event.source, hostname: event.hostname, tags: (event.tags ?? []).join(", ") };
  const only = (rule) => () => {
    $("rule").value = filters.rule = rule;
    apply();
  };
  return element("td", { colspan: "5" },
    element("p", { class: "whole" }, event.message),
    element("div", { class: "facts" }, facts("Fields", fields), facts("Labels of its series", event.labels), facts("Event", about)),
    element("div", { class: "actions" },
      element("a", { href: seriesLink(event.labels, filters.range), class: "series" }, "Graph of its series"),
      element("button", { type: "button", onclick: only(event.rule) }, "Only this rule"),
    ),
  );
}

function where(labels, hostname) {
  const pod = labels.k8s_pod_name && [labels.k8s_ns_name, labels.k8s_pod_name].filter(Boolean).join("/");
  return [pod || labels.container_name || labels.container_id, hostname].filter(Boolean).join(" · ");
}

function row(event, fresh) {
  const open = element("button", { type: "button", class: "open", "aria-expanded": "false" }, event.rule);
  const made = element("tr", { class: fresh ? "event new" : "event" },
    element("td", { class: "when" }, element("time", { datetime: event.time }, formatTime(Date.parse(event.time), utc))),
    element("td", {}, element("span", { class: `badge p-${event.priority.toLowerCase()}` }, event.priority)),
    element("td", {}, open),
    element("td", { class: "what" }, element("span", {}, event.message)),
    element("td", { class: "where" }, where(event.labels, event.hostname)),
  );
  made.addEventListener("click", () => {
    if (String(getSelection())) return;
    const shown = open.getAttribute("aria-expanded") === "true";
    open.setAttribute("aria-expanded", String(!shown));
    if (shown) made.nextElementSibling.remove();
    else made.after(element("tr", { class: "details" }, details(event)));
  });
  return made;
}

function paint() {
  painting = false;
  const fresh = waiting.length < HISTORY / 2;
  // Newest first; a flood shows its end.
  const rows = waiting.slice(-ROWS_MAX).reverse().map((event) => row(event, fresh));
  waiting = [];
  body.prepend(...rows);
  const events = body.querySelectorAll("tr.event");
  for (const old of [...events].slice(ROWS_MAX)) {
    if (old.nextElementSibling?.matches(".details")) old.nextElementSibling.remove();
    old.remove();
  }
  showState();
}

function add(event) {
  waiting.push(event);
  if (waiting.length > 4 * ROWS_MAX) waiting = waiting.slice(-ROWS_MAX);
  if (!painting) {
    painting = true;
    setTimeout(paint, 100);
  }
}

function showState() {
  const count = body.querySelectorAll("tr.event").length;
  const nothing = $("nothing");
  nothing.hidden = count > 0;
  if (count === 0) {
    const hint = filters.live ? "New ones appear here by themselves." : "Widen the time or the filters.";
    nothing.replaceChildren(element("h2", {}, "No security events"), element("p", {}, hint));
  }
  const more = count >= (filters.live ? ROWS_MAX : HISTORY) ? ", the newest" : "";
  const gone = lost > 0 ? `, ${lost.toLocaleString()} not shown because they came too fast` : "";
  $("status").textContent = count > 0 ? `${count.toLocaleString()} events${more}${gone}` : "";
}

function showError(error) {
  $("message").hidden = error === null;
  if (error !== null) $("message").textContent = error instanceof ApiError ? `${error.type}: ${error.message}` : String(error);
}

// The feed.

function clear() {
  body.replaceChildren();
  waiting = [];
  lost = 0;
}

async function load() {
  source?.close();
  source = null;
  feedRequest?.abort();
  feedRequest = new AbortController();
  if (!filters.live) {
    try {
      const { data } = await securityEvents(eventParameters(filters, HISTORY), feedRequest.signal);
      clear();
      body.append(...data.map((event) => row(event, false)));
      showError(null);
      showState();
    } catch (error) {
      if (error.name !== "AbortError") showError(error);
    }
    return;
  }
  const parameters = eventParameters(filters, HISTORY);
  parameters.set("follow", "true");
  const opened = new EventSource(`api/v1/security/events?${parameters}`);
  source = opened;
  opened.onopen = () => {
    // A new connection begins with the history again.
    clear();
    showError(null);
    setTimeout(() => source === opened && showState(), 300);
  };
  opened.onmessage = (message) => add(JSON.parse(message.data));
  opened.addEventListener("lost", (message) => (lost += JSON.parse(message.data).dropped));
  opened.onerror = () => {
    showError("The live feed is interrupted; trying again.");
    // The browser does not try again after an answer that is no stream.
    if (opened.readyState === EventSource.CLOSED) setTimeout(() => source === opened && load(), 5000);
  };
}

// Counts over time.

async function loadChart() {
  chartRequest?.abort();
  const request = (chartRequest = new AbortController());
  const expr = countQuery(filters);
  const stepS = stepSeconds(filters);
  const endS = Math.floor(Date.now() / 1000 / stepS) * stepS + stepS;
  const startS = endS - Math.floor(parseDuration(filters.range) / 1000 / stepS) * stepS;
  $("as-query").href = queryLink(expr, filters.range);
  try {
    const { data } = await range(expr, startS * 1000, endS * 1000, stepS, request.signal);
    chart?.destroy();
    chart = showChart($("chart"), data, { startS, endS, stepS, utc, height: CHART_HEIGHT, zoom() {} });
  } catch (error) {
    if (error.name !== "AbortError") showError(error);
  }
}

// Controls.

function show() {
  for (const name of ["text", "rule", "priority", "range"]) if ($(name).value !== filters[name]) $(name).value = filters[name];
  for (const by of ["priority", "rule"]) $(`by-${by}`).setAttribute("aria-selected", String(filters.by === by));
  $("live").setAttribute("aria-pressed", String(filters.live));
  $("live-text").textContent = filters.live ? "Live" : "Paused";
  $("zone").textContent = utc ? "UTC" : "Local time";
}

function apply() {
  history.replaceState(null, "", toUrl(filters));
  show();
  load();
  loadChart();
}

let typing = 0;
for (const name of ["text", "rule"]) {
  $(name).addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => ((filters[name] = event.target.value.trim()), apply()), TYPING_MS);
  });
}
for (const name of ["priority", "range"]) {
  $(name).addEventListener("change", (event) => ((filters[name] = event.target.value), apply()));
}
for (const by of ["priority", "rule"]) {
  $(`by-${by}`).addEventListener("click", () => ((filters.by = by), history.replaceState(null, "", toUrl(filters)), show(), loadChart()));
}
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("live").addEventListener("click", () => ((filters.live = !filters.live), apply()));
$("zone").addEventListener("click", () => {
  utc = !utc;
  stored("vedette.utc", String(utc));
  apply();
});
$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = stored("vedette.theme", dark ? "light" : "dark");
  loadChart();
});
setInterval(() => filters.live && !document.hidden && loadChart(), CHART_EVERY_MS);

securityRules().then((rules) => $("rules").append(...rules.map((rule) => element("option", { value: rule.name }))));
if (!$("range").querySelector(`option[value="${CSS.escape(filters.range)}"]`)) {
  $("range").append(element("option", { value: filters.range }, `last ${filters.range}`));
}
apply();
