// A range result as a line graph (uPlot): hover for one series, drag to zoom, click the legend to pick.

import { element, formatTime, metricElement } from "./dom.js";

const SERIES_MAX = 400;
const HEIGHT = 400;
// Distinguishable on white and on near-black, neighbours far apart in hue.
const COLORS = [
  "#4c72f5", "#e8743b", "#19a979", "#c0399f", "#d9a400", "#13a4b4", "#9467f0", "#e0475b",
  "#6b8e23", "#a0664b", "#2f8ef0", "#e58fb1", "#5a9e6f", "#b07aa1", "#d67f2d", "#7f8fa9",
];

const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// 1234567 -> "1.23M"; small and large numbers keep three significant digits.
export function shortNumber(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size === 0) return "0";
  for (const [limit, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= limit && size < 1e15) return `${+(value / limit).toPrecision(4)}${unit}`;
  }
  if (size >= 1e15 || size < 1e-3) return value.toExponential(2);
  return String(+value.toPrecision(4));
}

function align(result, startS, endS, stepS) {
  const count = Math.floor((endS - startS) / stepS + 1e-6) + 1;
  const times = Array.from({ length: count }, (_, i) => startS + i * stepS);
  const columns = result.map((row) => {
    const column = new Array(count).fill(null);
    for (const [t, text] of row.values ?? []) {
      const value = Number(text.replace("Inf", "Infinity"));
      if (Number.isFinite(value)) column[Math.round((t - startS) / stepS)] = value;
    }
    return column;
  });
  return [times, ...columns];
}

// Times on a 24-hour clock: the smallest distance of two ticks in seconds, the text, and the text of the
// first tick of a new year, day or minute.
const TIME_FORMATS = [
  [31_536_000, "{YYYY}", null, null, null, null, null, null, 1],
  [2_419_200, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [86_400, "{MM}-{DD}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
  [1, ":{ss}", "\n{YYYY}-{MM}-{DD} {HH}:{mm}", null, "\n{MM}-{DD} {HH}:{mm}", null, "\n{HH}:{mm}", null, 1],
];

function axis() {
  const line = { stroke: variable("--line"), width: 1 };
  return { stroke: variable("--muted"), font: `12px ${variable("--sans")}`, grid: line, ticks: { ...line, size: 5 } };
}

function tooltip(rows, utc) {
  const box = element("div", { class: "tip", hidden: true });
  const move = (plot) => {
    const series = plot.series.findIndex((s, i) => i > 0 && s._focus && s.show);
    const { idx, left, top } = plot.cursor;
    const value = series > 0 && idx !== null ? plot.data[series][idx] : null;
    box.hidden = value === null || value === undefined || left < 0;
    if (box.hidden) return;
    const swatch = element("span", { class: "swatch" });
    swatch.style.setProperty("--c", COLORS[(series - 1) % COLORS.length]);
    box.replaceChildren(
      element("time", {}, formatTime(plot.data[0][idx] * 1000, utc)),
      element("div", { class: "big" }, swatch, String(value)),
      metricElement(rows[series - 1].metric),
    );
    const over = plot.over;
    const x = over.offsetLeft + left;
    const right = x + box.offsetWidth + 24 > plot.root.clientWidth;
    box.style.left = `${right ? Math.max(0, x - box.offsetWidth - 14) : x + 14}px`;
    box.style.top = `${over.offsetTop + Math.max(0, Math.min(top + 14, over.clientHeight - box.offsetHeight))}px`;
  };
  return { box, move };
}

function legend(rows, plot) {
  const list = element("ul", { class: "legend", "aria-label": "Series; choose one to show it alone" });
  let alone = null;
  const buttons = rows.map((row, index) => {
    const swatch = element("span", { class: "swatch" });
    swatch.style.setProperty("--c", COLORS[index % COLORS.length]);
    const show = (event) => {
      if (event.ctrlKey || event.metaKey) {
        plot.setSeries(index + 1, { show: !plot.series[index + 1].show });
      } else {
        alone = alone === index ? null : index;
        rows.forEach((_, other) => plot.setSeries(other + 1, { show: alone === null || other === alone }));
      }
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(plot.series[i + 1].show)));
    };
    const focus = (on) => () => plot.setSeries(on ? index + 1 : null, { focus: true });
    return element(
      "button",
      { type: "button", "aria-pressed": "true", onclick: show, onmouseenter: focus(true), onmouseleave: focus(false) },
      swatch,
      metricElement(row.metric),
    );
  });
  list.append(...buttons.map((button) => element("li", {}, button)));
  return list;
}

// Fill `panel` with a matrix; `zoom(startMs, endMs)` is called after a drag. Returns {count, destroy}.
export function showChart(panel, data, { startS, endS, stepS, utc, zoom, height = HEIGHT }) {
  const all = data.result;
  const rows = all.filter((row) => row.values).slice(0, SERIES_MAX);
  if (rows.length === 0) {
    const text = all.length > 0 ? "Native histograms are shown in the table." : "Nothing matches this expression in this range.";
    panel.replaceChildren(element("div", { class: "empty" }, element("h2", {}, "No series"), element("p", {}, text)));
    return { count: all.length, destroy() {} };
  }
  if (typeof uPlot === "undefined") {
    const text = "The plotting library was not installed with this server: run “make install” with npm present.";
    panel.replaceChildren(element("div", { class: "empty", id: "no-plot" }, element("h2", {}, "No graphs here"), element("p", {}, text)));
    return { count: all.length, destroy() {} };
  }
  const holder = element("div", { class: "chart" });
  panel.replaceChildren(holder);
  const tip = tooltip(rows, utc);
  const width = () => Math.max(280, holder.clientWidth - 20);
  const few = rows.length <= 3;
  const plot = new uPlot(
    {
      width: width(),
      height,
      legend: { show: false },
      focus: { alpha: rows.length > 1 ? 0.25 : 1 },
      cursor: { focus: { prox: 40 }, drag: { x: true, y: false, setScale: false }, points: { size: 7 } },
      scales: { x: { time: true, min: startS, max: endS } },
      tzDate: (s) => (utc ? uPlot.tzDate(new Date(s * 1000), "Etc/UTC") : new Date(s * 1000)),
      axes: [
        { ...axis(), values: TIME_FORMATS },
        { ...axis(), size: 64, values: (_, ticks) => ticks.map(shortNumber) },
      ],
      series: [
        {},
        ...rows.map((_, index) => {
          const color = COLORS[index % COLORS.length];
          return { stroke: color, width: 1.6, fill: few ? `${color}18` : undefined, points: { size: 4 } };
        }),
      ],
      hooks: {
        setCursor: [tip.move],
        setSeries: [tip.move],
        setSelect: [
          (self) => {
            if (self.select.width < 6) return;
            const from = self.posToVal(self.select.left, "x");
            const to = self.posToVal(self.select.left + self.select.width, "x");
            zoom(from * 1000, to * 1000);
          },
        ],
      },
    },
    align(rows, startS, endS, stepS),
    holder,
  );
  plot.root.setAttribute("role", "img");
  plot.root.setAttribute("aria-label", `Line graph of ${rows.length} series; the table has the same values`);
  plot.root.append(tip.box);
  plot.over.addEventListener("mouseleave", () => (tip.box.hidden = true));
  if (all.length > rows.length) {
    panel.append(element("p", { class: "note" }, `The first ${rows.length} of ${all.length.toLocaleString()} series are drawn.`));
  }
  panel.append(legend(rows, plot));
  const resized = new ResizeObserver(() => plot.setSize({ width: width(), height }));
  resized.observe(holder);
  const destroy = () => (resized.disconnect(), plot.destroy());
  return { count: all.length, destroy };
}
