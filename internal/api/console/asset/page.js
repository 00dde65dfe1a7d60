// What every page has: times of the reader's zone, durations that count up, copying.
"use strict";
const tategu = {
  // spanOf writes milliseconds as the server writes durations.
  spanOf(ms) {
    const s = Math.max(0, ms) / 1000, two = (n) => String(Math.floor(n)).padStart(2, "0");
    if (s < 60) return s.toFixed(1) + " s";
    if (s < 3600) return Math.floor(s / 60) + " min " + two(s % 60) + " s";
    return Math.floor(s / 3600) + " h " + two((s % 3600) / 60) + " min";
  },
  // dress finishes what the server wrote.
  dress(root) {
    for (const t of root.querySelectorAll("time")) {
      const at = new Date(t.dateTime);
      t.title = t.dateTime;
      t.textContent = at.toLocaleString([], { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });
    }
    for (const b of root.querySelectorAll("[data-copy]")) b.hidden = false;
    tategu.count(root);
  },
  count(root) {
    for (const e of root.querySelectorAll("[data-since]")) e.textContent = tategu.spanOf(Date.now() - new Date(e.dataset.since));
  },
  async copy(button) {
    const text = button.dataset.copy, code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch { // a page over plain http of another machine may not
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  },
};
tategu.dress(document);
document.addEventListener("click", (e) => {
  const b = e.target.closest?.("[data-copy]");
  if (b) tategu.copy(b);
});
setInterval(() => { if (!document.hidden) tategu.count(document); }, 1000);
