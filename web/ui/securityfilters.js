// What the security page shows: its filters, their form in the URL, as selectors and as PromQL.

import { parseDuration } from "./state.js";

export const METRIC = "vedette_security_events_total";
export const PRIORITIES = ["Emergency", "Alert", "Critical", "Error", "Warning", "Notice", "Informational", "Debug"];
const POINTS_WANTED = 60;
const STEP_MIN_S = 60;

export function readUrl(search) {
  const url = new URLSearchParams(search);
  const range = url.get("range") ?? "";
  return {
    text: url.get("text") ?? "",
    rule: url.get("rule") ?? "",
    priority: PRIORITIES.includes(url.get("priority")) ? url.get("priority") : "",
    range: parseDuration(range) > 0 ? range : "1h",
    by: url.get("by") === "rule" ? "rule" : "priority",
    live: url.get("live") !== "0",
  };
}

export function toUrl(filters) {
  const url = new URLSearchParams();
  for (const name of ["text", "rule", "priority"]) if (filters[name]) url.set(name, filters[name]);
  url.set("range", filters.range);
  if (filters.by === "rule") url.set("by", "rule");
  if (!filters.live) url.set("live", "0");
  return `?${url}`;
}

const escapeRegex = (text) => text.replace(/[\\^$.|?*+()[\]{}]/g, "\\$&");

// A rule is a part of its name, whatever the case; a priority stands for the more severe ones, too.
export function matchers({ rule, priority }) {
  const found = [];
  if (rule) found.push(`rule=~${JSON.stringify(`(?i).*${escapeRegex(rule)}.*`)}`);
  if (priority) {
    const wanted = PRIORITIES.slice(0, PRIORITIES.indexOf(priority) + 1);
    found.push(`priority=~${JSON.stringify(wanted.join("|"))}`);
  }
  return found;
}

export function eventParameters(filters, limit) {
  const parameters = new URLSearchParams({ limit, start: (Date.now() - parseDuration(filters.range)) / 1000 });
  const wanted = matchers(filters);
  if (wanted.length > 0) parameters.append("match[]", `{${wanted.join(",")}}`);
  if (filters.text) parameters.set("text", filters.text);
  return parameters;
}

export const stepSeconds = (filters) =>
  Math.max(STEP_MIN_S, Math.floor(parseDuration(filters.range) / 1000 / POINTS_WANTED));

export function countQuery(filters) {
  const selector = `${METRIC}{${matchers(filters).join(",")}}`;
  return `round(sum by (${filters.by}) (increase(${selector}[${stepSeconds(filters)}s])))`;
}

// The series of one event as a graph on the query page.
export function seriesLink(labels, range) {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  return queryLink(`increase(${METRIC}{${pairs.join(", ")}}[5m])`, range);
}

export const queryLink = (expr, range) =>
  `query?${new URLSearchParams({ "g0.expr": expr, "g0.tab": "graph", "g0.range_input": range })}`;
