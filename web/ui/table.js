// An instant result as a table. Rows beyond ROWS_MAX are counted, not drawn.

import { element, formatTime, metricElement } from "./dom.js";

const ROWS_MAX = 5_000;
const POINTS_SHOWN_MAX = 100;

function histogramText(histogram) {
  const buckets = (histogram.buckets ?? []).map(([kind, lo, hi, count]) => {
    const left = kind === 1 || kind === 3 ? "[" : "(";
    const right = kind === 0 || kind === 3 ? "]" : ")";
    return `${left}${lo}, ${hi}${right}  ${count}`;
  });
  return [`count ${histogram.count}  sum ${histogram.sum}`, ...buckets].join("\n");
}

function vectorValue(row) {
  return row.value ? row.value[1] : histogramText(row.histogram[1]);
}

function matrixCell(row, utc) {
  const points = [...(row.values ?? []), ...(row.histograms ?? []).map(([t, h]) => [t, histogramText(h)])];
  const cell = element("td", { class: "value" });
  for (const [t, value] of points.slice(-POINTS_SHOWN_MAX)) {
    cell.append(element("div", {}, `${value} `, element("time", {}, `@ ${formatTime(t * 1000, utc)}`)));
  }
  return cell;
}

function sorted(rows, order) {
  if (!order) return rows;
  const number = (row) => (row.value ? Number(row.value[1].replace("Inf", "Infinity")) : Number(row.histogram[1].count));
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return order === "ascending" ? x - y : y - x;
  };
  return [...rows].sort(compare);
}

function body(data, order, utc) {
  const rows = data.resultType === "vector" ? sorted(data.result, order) : data.result;
  return element(
    "tbody",
    {},
    ...rows.slice(0, ROWS_MAX).map((row) =>
      element(
        "tr",
        {},
        element("td", {}, metricElement(row.metric)),
        data.resultType === "vector" ? element("td", { class: "value" }, vectorValue(row)) : matrixCell(row, utc),
      ),
    ),
  );
}

function seriesTable(data, utc) {
  const table = element("table");
  let order = "";
  const value = element("th", { scope: "col" });
  const draw = () => {
    value.replaceChildren("Value");
    if (data.resultType === "vector") {
      const next = { "": "descending", descending: "ascending", ascending: "" }[order];
      const arrow = { "": "↕", descending: "↓", ascending: "↑" }[order];
      const turn = () => ((order = next), draw(), value.querySelector("button").focus());
      value.replaceChildren(element("button", { type: "button", onclick: turn }, `Value ${arrow}`));
      value.setAttribute("aria-sort", order || "none");
    }
    table.replaceChildren(
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Series"), value)),
      body(data, order, utc),
    );
  };
  draw();
  return element("div", { class: "scroll", tabindex: "0" }, table);
}

// Fill `panel` with a result; returns how many series it has.
export function showTable(panel, data, utc) {
  if (data.resultType === "scalar" || data.resultType === "string") {
    panel.replaceChildren(element("div", { class: "single" }, data.result[1]));
    return 1;
  }
  const count = data.result.length;
  if (count === 0) {
    panel.replaceChildren(
      element("div", { class: "empty" }, element("h2", {}, "No series"), element("p", {}, "Nothing matches this expression at this time.")),
    );
    return 0;
  }
  panel.replaceChildren(seriesTable(data, utc));
  if (count > ROWS_MAX) {
    panel.append(element("p", { class: "note" }, `The first ${ROWS_MAX.toLocaleString()} of ${count.toLocaleString()} series are shown.`));
  }
  return count;
}
