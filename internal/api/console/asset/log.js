// The log of the task that is selected: a window at its end that grows, and what is
// before it on request. A log may be of any size; the page keeps the newest of it.
"use strict";
function logOf(resource) {
  const most = 600_000; // characters on the page
  const box = () => document.getElementById("log");
  const pre = () => box().querySelector("pre");
  const text = () => box().querySelector(".text");
  const low = () => text().scrollHeight - text().scrollTop - text().clientHeight < 24;

  function piece(p) {
    const span = document.createElement("span");
    span.dataset.offset = p.offset;
    span.textContent = p.text;
    return span;
  }
  function window_(before) {
    const d = box().dataset;
    const q = new URLSearchParams({ resource: resource() + "/tasks/" + d.task, workload: d.workload });
    if (before !== undefined) q.set("before", before);
    return fetch("/tategu/v1/logs/window?" + q).then((r) => (r.ok ? r.json() : Promise.reject(new Error(r.status))));
  }
  function mark() {
    const button = box().querySelector("[data-earlier]");
    button.hidden = Number(box().dataset.offset) === 0;
  }

  const log = {
    key: () => box()?.dataset.key ?? "",
    live: () => box() !== null && "live" in box().dataset,
    end() { if (box()) delete box().dataset.live; },
    query: () => (log.live() ? { task: box().dataset.task, workload: box().dataset.workload } : {}),
    position: (position) => String(position).split("-")[0] + (log.live() ? "-" + box().dataset.end : ""),

    // adopt takes over a log that was put on the page.
    adopt() {
      if (!box()) return;
      const p = pre(), d = box().dataset;
      if (!p.querySelector(".empty")) p.replaceChildren(piece({ offset: d.offset, text: p.textContent }));
      mark();
      box().querySelector("[data-earlier]").onclick = () => log.earlier();
      text().scrollTop = text().scrollHeight;
    },
    append(p) {
      if (!box() || p.end <= Number(box().dataset.end)) return;
      const follow = low();
      if (p.skipped || pre().querySelector(".empty")) pre().replaceChildren();
      if (p.skipped || !pre().firstChild) box().dataset.offset = p.offset;
      pre().append(piece(p));
      box().dataset.end = p.end;
      let size = pre().textContent.length;
      while (size > most && pre().children.length > 1) {
        size -= pre().firstChild.textContent.length;
        pre().firstChild.remove();
        box().dataset.offset = pre().firstChild.dataset.offset;
      }
      mark();
      if (follow) text().scrollTop = text().scrollHeight;
    },
    async earlier() {
      const p = await window_(box().dataset.offset).catch(() => null);
      if (!p) return;
      const high = text().scrollHeight;
      pre().prepend(piece(p));
      box().dataset.offset = p.offset;
      text().scrollTop += text().scrollHeight - high;
      mark();
    },
    // poll is for when no events come.
    async poll() {
      const p = await window_().catch(() => null), end = Number(box().dataset.end);
      if (!p || p.end <= end) return;
      if (p.offset <= end) p.text = new TextDecoder().decode(new TextEncoder().encode(p.text).slice(end - p.offset));
      log.append({ ...p, offset: Math.max(p.offset, end), skipped: p.offset > end });
    },
  };
  return log;
}
