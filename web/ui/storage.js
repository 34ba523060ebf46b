// What the reader chose, kept in the browser where it allows that.

export function stored(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(name);
    localStorage.setItem(name, value);
  } catch {
    // Storage may be forbidden; the choice lasts until the page is left.
  }
  return value ?? null;
}
