// Runs before the page is painted, so that a chosen theme never flashes.
(() => {
  try {
    const chosen = localStorage.getItem("vedette.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be forbidden; the theme of the system applies.
  }
})();
