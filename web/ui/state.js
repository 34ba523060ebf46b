// What the page shows, and its form in the URL: the parameters Prometheus uses for its first panel.

const UNITS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000, y: 31_536_000_000 };
export const RANGES = ["1m", "5m", "15m", "30m", "1h", "2h", "6h", "12h", "1d", "2d", "1w", "2w", "4w", "8w", "1y"];
export const DEFAULT_RANGE = "1h";
const POINTS_WANTED = 250;
export const POINTS_MAX = 11_000;

// Milliseconds of "1h30m" or of a number of seconds; NaN for anything else.
export function parseDuration(text) {
  const trimmed = text.trim();
  if (/^\d+(\.\d+)?$/.test(trimmed)) return Number(trimmed) * 1000;
  if (!/^(\d+(ms|[smhdwy]))+$/.test(trimmed)) return NaN;
  let total = 0;
  for (const [, digits, unit] of trimmed.matchAll(/(\d+)(ms|[smhdwy])/g)) total += Number(digits) * UNITS[unit];
  return total;
}

// The shortest form of a duration, exact to the second: "1h30m".
export function formatDuration(ms) {
  let left = Math.round(ms / 1000) * 1000;
  if (left <= 0) return "0s";
  let text = "";
  for (const unit of ["w", "d", "h", "m", "s"]) {
    const count = Math.floor(left / UNITS[unit]);
    if (count > 0) text += `${count}${unit}`;
    left -= count * UNITS[unit];
  }
  return text;
}

// The step of a range query in seconds: the chosen one, or one that gives about POINTS_WANTED points.
export function stepSeconds(state) {
  const chosen = parseDuration(state.step);
  if (chosen > 0) return chosen / 1000;
  return Math.max(1, Math.floor(parseDuration(state.range) / 1000 / POINTS_WANTED));
}

// "2026-01-31 12:00:00" in UTC, as the URL has it, to milliseconds; null for nothing or nonsense.
export function parseMoment(text) {
  const match = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(:\d\d)?$/.exec(text.trim());
  if (!match) return null;
  const ms = Date.parse(`${match[1]}T${match[2]}${match[3] ?? ":00"}Z`);
  return Number.isNaN(ms) ? null : ms;
}

export function formatMoment(ms) {
  return new Date(ms).toISOString().slice(0, 19).replace("T", " ");
}

export function readUrl(search) {
  const get = (name) => new URLSearchParams(search).get(`g0.${name}`) ?? "";
  const tab = get("tab");
  const range = get("range_input");
  return {
    expr: get("expr"),
    tab: tab === "0" || tab === "graph" ? "graph" : "table",
    range: parseDuration(range) > 0 ? range : DEFAULT_RANGE,
    end: parseMoment(get("end_input") || get("moment_input")),
    step: parseDuration(get("step_input")) > 0 ? get("step_input") : "",
  };
}

export function toUrl(state) {
  const url = new URLSearchParams();
  url.set("g0.expr", state.expr);
  url.set("g0.tab", state.tab);
  url.set("g0.range_input", state.range);
  if (state.end !== null) url.set("g0.end_input", formatMoment(state.end));
  if (state.step) url.set("g0.step_input", state.step);
  return `?${url}`;
}
