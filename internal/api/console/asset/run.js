// The page of a run, live: one stream of events tells what changed (events.go); the
// parts that words are in are fetched again, made by the server.
"use strict";
addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("run"), badge = document.getElementById("link");
  const query = (base, extra) => base + (base.includes("?") ? "&" : "?") + new URLSearchParams(extra);
  const served = new Map(); // html of the parts, as the server wrote them
  let position = root.dataset.revision; // REVISION-OFFSET, as of the last event
  let live = "live" in root.dataset, width = 0;

  // ---- the stream
  let source = null, heard = 0, fails = 0, polling = false, retry = 0;
  function say(text) {
    if (badge.textContent !== text) badge.textContent = text;
    badge.hidden = !text;
  }
  function connect() {
    clearTimeout(retry);
    source?.close();
    source = null;
    if (!live && !log.live()) return say("");
    if (polling) return poll();
    if (!window.EventSource) { polling = true; return poll(); }
    source = new EventSource(query("/tategu/v1/run/events", { resource: root.dataset.resource, after: log.position(position), ...log.query() }));
    const on = (name, f) => source.addEventListener(name, (e) => {
      heard = Date.now();
      fails = 0;
      say("");
      position = e.lastEventId || position;
      f(JSON.parse(e.data));
    });
    on("run", apply);
    on("log", (piece) => log.append(piece));
    on("beat", () => {});
    on("end", () => { live = false; source.close(); source = null; log.end(); refresh(); });
    source.onopen = () => { heard = Date.now(); };
    source.onerror = () => lost();
    heard = Date.now();
  }
  function lost() {
    say("Disconnected. Trying again…");
    fails++;
    if (fails >= 4 && location.protocol !== "file:") probe();
    if (source && source.readyState !== EventSource.CLOSED) return; // the browser tries again
    clearTimeout(retry);
    retry = setTimeout(connect, Math.min(10_000, 500 * 2 ** fails));
  }
  // probe asks once in the other way: when that works, events are what is blocked.
  async function probe() {
    if (polling) return;
    try {
      const r = await fetch(query("/tategu/v1/run/changes", { resource: root.dataset.resource, after: position }));
      if (!r.ok) return;
      polling = true;
      source?.close();
      source = null;
      poll();
    } catch { /* the server is away */ }
  }
  async function poll() {
    clearTimeout(retry);
    try {
      const r = await fetch(query("/tategu/v1/run/changes", { resource: root.dataset.resource, after: position }));
      if (!r.ok) throw new Error(r.status);
      const change = await r.json();
      heard = Date.now();
      say("Live events do not get through. Asking every 2 seconds.");
      position = String(change.revision);
      apply(change);
      if (log.live()) await log.poll();
      if (change.ended) { live = false; say(""); log.end(); return; }
    } catch {
      say("Disconnected. Trying again…");
    }
    retry = setTimeout(poll, 2000);
  }
  setInterval(() => { // a connection that is dead without an error
    if (source && Date.now() - heard > 40_000) { say("Disconnected. Trying again…"); connect(); }
  }, 5000);
  // Browsers have few connections to a server: a page that nobody sees gives its own up.
  let away = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(away);
    if (document.hidden) away = setTimeout(() => { source?.close(); source = null; clearTimeout(retry); }, 20_000);
    else if (!source && live) connect();
  });

  function apply(change) {
    picture.apply(change.steps);
    if (change.gone) { live = false; source?.close(); source = null; return say("This run was deleted."); }
    if (change.ended) live = false;
    refresh();
  }

  // ---- parts of the page
  let due = 0, last = 0, busy = false, again = false;
  function refresh() {
    if (busy) { again = true; return; }
    if (due) return;
    due = setTimeout(async () => {
      due = 0; busy = true;
      await load(location.search, true).catch(() => {}); // the stream tells when the server is away
      busy = false; last = Date.now();
      if (again) { again = false; refresh(); }
    }, Math.max(60, last + 900 - Date.now()));
  }
  let loads = 0;
  async function load(search, part) {
    const turn = ++loads;
    const r = await fetch(query(location.pathname + search, { ...(part && { part: "live" }), ...(width && { width }) }), { headers: { Accept: "text/html" } });
    const doc = new DOMParser().parseFromString(await r.text(), "text/html");
    if (turn !== loads) return; // something newer is on its way
    if (!r.ok) throw new Error(doc.body.textContent.trim());
    document.title = doc.title;
    const followed = log.key(), drawn = doc.getElementById("graph") !== null;
    for (const id of ["head", "failure", "graph", "panel", "tasks"]) {
      const fresh = doc.getElementById(id);
      if (fresh) swap(document.getElementById(id), fresh);
    }
    if (drawn) picture.adopt();
    picture.select(document.getElementById("panel").dataset.step);
    if (log.key() !== followed) { log.adopt(); connect(); }
  }
  function swap(old, fresh) {
    const html = fresh.outerHTML, focused = old.contains(document.activeElement) ? document.activeElement : null;
    if (served.get(old.id) === html) return;
    const chosen = getSelection();
    if (!chosen.isCollapsed && old.contains(chosen.anchorNode)) { again = true; return; } // somebody is about to copy
    if (focused?.matches("input, select")) return;
    served.set(old.id, html);
    for (const d of old.querySelectorAll("details[open]")) fresh.querySelector("#" + d.id)?.setAttribute("open", "");
    const kept = old.querySelector("#log"), text = kept?.querySelector(".text"), scrolled = text?.scrollTop;
    const next = fresh.querySelector("#log");
    const keep = kept && next && kept.dataset.key === next.dataset.key;
    if (keep) next.replaceWith(kept);
    const inner = [".canvas"].map((s) => [s, old.querySelector(s)]).filter(([, e]) => e).map(([s, e]) => [s, e.scrollLeft, e.scrollTop]);
    const top = old.scrollTop, key = focused && keyOf(focused);
    old.replaceWith(fresh);
    tategu.dress(fresh);
    fresh.scrollTop = top;
    for (const [s, x, y] of inner) { const e = fresh.querySelector(s); if (e) { e.scrollLeft = x; e.scrollTop = y; } }
    if (keep) text.scrollTop = scrolled;
    if (key) [...fresh.querySelectorAll("a, button, [tabindex]")].find((e) => keyOf(e) === key)?.focus({ preventScroll: true });
  }
  function keyOf(e) {
    const g = e.closest(".node");
    return g ? g.dataset.step + (e.classList.contains("toggle") ? " toggle" : "") : e.id || e.getAttribute("href") || e.dataset.copy || e.getAttribute("aria-label");
  }

  // ---- links within the page
  const openIn = (search) => String(new URLSearchParams(search).getAll("open").sort());
  let opened = openIn(location.search); // steps that the graph on the page shows what is in
  // merged is where a link of the graph leads: the graph stays while the rest of what
  // is looked at changes, so a link says only what it is about.
  function merged(a, search) {
    const from = new URLSearchParams(search), to = new URLSearchParams(location.search);
    for (const name of a.matches(".toggle") ? ["open"] : ["task", "step", "attempt", "round"]) {
      to.delete(name);
      for (const value of from.getAll(name)) to.append(name, value);
    }
    return "?" + to;
  }
  async function go(search, push) {
    if (push) history.pushState(null, "", location.pathname + search);
    const open = openIn(search);
    try {
      await load(search, open === opened);
      opened = open;
    } catch (e) {
      say(e.message || "No answer from the server.");
    }
  }
  root.addEventListener("click", (e) => {
    const a = e.target.closest("a");
    const href = a?.getAttribute("href");
    if (!href?.startsWith("?") || e.button || e.ctrlKey || e.metaKey || e.shiftKey || e.altKey) return;
    e.preventDefault();
    const [search, hash] = href.split("#");
    go(a.closest("#graph") ? merged(a, search) : search, true).then(() => { if (hash) document.getElementById(hash)?.scrollIntoView(); });
  });
  addEventListener("popstate", () => go(location.search, false));

  // ---- the log
  const log = logOf(() => root.dataset.resource);

  // A graph that is too wide for its place, or could be wider, is arranged anew.
  const canvas = document.querySelector(".canvas"), svg = canvas?.querySelector("svg");
  if (svg) {
    const room = Math.floor((canvas.clientWidth - 4) / 20) * 20, usual = 760, is = Number(svg.dataset.width);
    if (is > canvas.clientWidth && room < usual || room > usual + 200 && is > usual - 240) {
      width = Math.max(320, room);
      load(location.search, false).catch(() => {});
    }
  }
  for (const id of ["head", "failure", "graph", "panel", "tasks"]) served.set(id, "");
  log.adopt();
  if (live) connect();
});
