/**
 * Light or dark, by system or by choice. No module: it has to run before anything is painted.
 *
 * A button with `data-theme-button` goes through the choices; so does a `theme-next` event.
 */

(() => {
  const NAME = "tornado-logs.theme";
  const CHOICES = ["system", "light", "dark"];
  const LABELS = { system: "as the system", light: "light", dark: "dark" };
  const root = document.documentElement;

  function chosen() {
    try {
      const value = JSON.parse(localStorage.getItem(NAME));
      return CHOICES.includes(value) ? value : "system";
    } catch {
      return "system";
    }
  }

  function apply(theme) {
    if (theme === "system") {
      delete root.dataset.theme;
    } else {
      root.dataset.theme = theme;
    }
    for (const button of document.querySelectorAll("[data-theme-button]")) {
      button.dataset.themeButton = theme;
      button.setAttribute("aria-label", `Theme: ${LABELS[theme]}`);
      button.title = `Theme: ${LABELS[theme]} (d)`;
    }
  }

  function next() {
    const theme = CHOICES[(CHOICES.indexOf(chosen()) + 1) % CHOICES.length];
    try {
      localStorage.setItem(NAME, JSON.stringify(theme));
    } catch {
      // It holds for this page, then.
    }
    apply(theme);
  }

  apply(chosen());
  addEventListener("DOMContentLoaded", () => apply(chosen()));
  addEventListener("storage", ({ key }) => key === NAME && apply(chosen()));
  addEventListener("theme-next", next);
  addEventListener("click", ({ target }) => target.closest?.("[data-theme-button]") && next());
})();
