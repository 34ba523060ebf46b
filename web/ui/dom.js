// Making elements without ever parsing text as HTML.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const span = (kind, text) => element("span", { class: kind }, text);

// A label set as `name{a="b"}`, each part in its colour.
export function metricElement(metric) {
  const { __name__: name, ...labels } = metric;
  const pairs = Object.entries(labels);
  const out = element("span", {}, span("m-name", name ?? ""));
  if (pairs.length === 0 && name) return out;
  out.append(span("m-brace", "{"));
  pairs.forEach(([label, value], index) => {
    if (index > 0) out.append(span("m-brace", ", "));
    out.append(span("m-label", label), span("m-brace", "="), span("m-value", JSON.stringify(value)));
  });
  out.append(span("m-brace", "}"));
  return out;
}

export function metricText(metric) {
  const { __name__: name = "", ...labels } = metric;
  const pairs = Object.entries(labels).map(([label, value]) => `${label}=${JSON.stringify(value)}`);
  return pairs.length === 0 && name ? name : `${name}{${pairs.join(", ")}}`;
}

// Moments in the zone the reader chose.
export function formatTime(ms, utc) {
  const date = new Date(ms);
  if (utc) return `${date.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  const pad = (number) => String(number).padStart(2, "0");
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  return `${day} ${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
}
