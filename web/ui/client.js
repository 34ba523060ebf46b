// Calls of the HTTP API. Every call can be aborted; an aborted query is cancelled on the server, too.

export class ApiError extends Error {
  constructor(type, message) {
    super(message);
    this.type = type;
  }
}

async function call(path, parameters, signal) {
  let response;
  try {
    response = await fetch(`api/v1/${path}`, { method: "POST", body: new URLSearchParams(parameters), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("network", "The server cannot be reached.");
  }
  const text = await response.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    throw new ApiError(`HTTP ${response.status}`, text.trim().slice(0, 300) || response.statusText);
  }
  if (body.status !== "success") throw new ApiError(body.errorType, body.error);
  return { ...body, bytes: text.length };
}

export const instant = (expr, timeMs, signal) =>
  call("query", timeMs === null ? { query: expr } : { query: expr, time: timeMs / 1000 }, signal);

export const range = (expr, startMs, endMs, stepS, signal) =>
  call("query_range", { query: expr, start: startMs / 1000, end: endMs / 1000, step: stepS }, signal);

export async function metricNames(limit) {
  const response = await fetch(`api/v1/label/__name__/values?limit=${limit}`);
  return response.ok ? (await response.json()).data : [];
}

export async function labelNames(metric) {
  const body = new URLSearchParams(metric ? { "match[]": metric, limit: 500 } : { limit: 500 });
  const response = await fetch("api/v1/labels", { method: "POST", body });
  return response.ok ? (await response.json()).data : [];
}

export async function functionNames() {
  const response = await fetch("api/v1/features");
  if (!response.ok) return [];
  const { data } = await response.json();
  const enabled = (group) => Object.keys(data[group] ?? {}).filter((name) => data[group][name]);
  return [...enabled("promql_operators"), ...enabled("promql_functions")];
}

export const securityEvents = (parameters, signal) => call("security/events", parameters, signal);

export async function securityRules() {
  const response = await fetch("api/v1/security/rules");
  return response.ok ? (await response.json()).data.rules : [];
}
