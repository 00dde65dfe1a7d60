// The graph: states that change in place, keys, zoom. Where nodes are is the server's.
"use strict";
const picture = {
  nodes: new Map(),
  words: new Set(["failed", "running", "queued", "waiting", "cancelled", "succeeded", "taken", "notrun", "none"]),

  // adopt takes over a graph that was put on the page.
  adopt() {
    const graph = document.getElementById("graph");
    this.nodes = new Map();
    for (const g of graph?.querySelectorAll(".node") ?? []) this.nodes.set(g.dataset.step, g);
    const zoom = graph?.querySelector(".zoom");
    if (zoom) zoom.hidden = false;
    let first = graph?.querySelector(".node.selected .pick") ?? graph?.querySelector(".pick");
    for (const g of this.nodes.values()) {
      for (const a of g.querySelectorAll("a")) a.setAttribute("tabindex", a === first ? "0" : "-1");
    }
  },

  // apply shows new states of steps.
  apply(steps) {
    for (const [path, s] of Object.entries(steps)) {
      const g = this.nodes.get(path);
      if (!g) continue;
      for (const c of [...g.classList]) if (this.words.has(c)) g.classList.remove(c);
      g.classList.add(s.phase);
      g.querySelector("use").setAttribute("href", "#i-" + s.phase);
      g.querySelector(".text").textContent = s.text;
      g.querySelector(".pick").setAttribute("aria-label", g.dataset.name + ": " + s.label + (s.text === s.label ? "" : ", " + s.text));
    }
  },

  // select marks the node of a step, or the nearest that is drawn around it.
  select(path) {
    while (path && !this.nodes.has(path)) path = path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "";
    for (const [at, g] of this.nodes) {
      g.classList.toggle("selected", at === path);
      const pick = g.querySelector(".pick");
      if (at === path) pick.setAttribute("aria-current", "true");
      else pick.removeAttribute("aria-current");
    }
  },

  focus(g) {
    for (const other of this.nodes.values()) other.querySelector(".pick").setAttribute("tabindex", "-1");
    const a = g.querySelector(".pick");
    a.setAttribute("tabindex", "0");
    a.focus({ preventScroll: true });
    g.scrollIntoView({ block: "nearest", inline: "nearest" });
  },

  // next is the node nearest in a direction: dx, dy say which.
  next(from, dx, dy) {
    const middle = (g) => {
      const m = g.transform.baseVal[0].matrix, r = g.querySelector(".card");
      return [m.e + r.width.baseVal.value / 2, m.f + r.height.baseVal.value / 2];
    };
    const [x, y] = middle(from);
    let best = null, least = Infinity;
    for (const g of this.nodes.values()) {
      const [gx, gy] = middle(g), along = (gx - x) * dx + (gy - y) * dy, aside = Math.abs((gx - x) * dy) + Math.abs((gy - y) * dx);
      if (g === from || along < 4 || (dx && aside > 30)) continue;
      const far = along + 2 * aside;
      if (far < least) [best, least] = [g, far];
    }
    return best;
  },

  key(e) {
    const g = e.target.closest?.(".node");
    if (!g || e.ctrlKey || e.metaKey || e.altKey) return;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    if (way) {
      e.preventDefault();
      const to = this.next(g, ...way);
      if (to) this.focus(to);
    } else if (e.key === " ") {
      e.preventDefault();
      const toggle = g.querySelector(".toggle");
      (toggle ?? g.querySelector(".pick")).dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
    } else if (e.key === "Home" || e.key === "End") {
      e.preventDefault();
      const all = [...this.nodes.values()];
      this.focus(all.at(e.key === "Home" ? 0 : -1));
    }
  },

  zoom(how) {
    const svg = document.querySelector(".canvas > svg"), box = svg.viewBox.baseVal, canvas = svg.parentElement;
    const now = svg.width.baseVal.value / box.width;
    let to = { in: now * 1.25, out: now / 1.25, fit: Math.max(0.25, Math.min(1, canvas.clientWidth / box.width, canvas.clientHeight / box.height)) }[how];
    to = Math.min(3, Math.max(0.1, to));
    svg.setAttribute("width", Math.round(box.width * to));
    svg.setAttribute("height", Math.round(box.height * to));
  },
};
document.addEventListener("keydown", (e) => picture.key(e));
document.addEventListener("click", (e) => {
  const b = e.target.closest?.("[data-zoom]");
  if (b) picture.zoom(b.dataset.zoom);
});
picture.adopt();
