"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const WORDS = ["ok", "changed", "drift", "unknown", "failed", "unreachable"], SIGNS = ["·", "+", "", "?", "!", "×"];
const $ = id => document.getElementById(id);
const el = (name, text, attributes) => { const e = document.createElement(name); if (text !== undefined) e.textContent = text; for (const k in attributes || {}) e.setAttribute(k, attributes[k]); return e; };
// Run lengths: [state, nights, state, nights, ...].
const at = (runs, night) => { for (let i = 0, n = 0; i < runs.length; i += 2) { n += runs[i + 1]; if (night < n) return runs[i]; } return 9; };
const last = D.nights.length - 1;
let night = last;
const table = $("matrix"), cells = [...table.querySelectorAll("td")];
const rows = [...table.tBodies[0].rows];
const spans = new Map();
D.findings.forEach(f => { const key = f.h + "/" + f.r; if (!spans.has(key)) spans.set(key, []); spans.get(key).push(f); });
const found = (h, r, n) => (spans.get(h + "/" + r) || []).filter(f => f.from <= n && n <= f.to);
const cellOf = (h, r) => D.cells[h * D.roles.length + r];
function paint() {
  cells.forEach((td, i) => {
    const h = Math.floor(i / D.roles.length), r = i % D.roles.length, state = at(cellOf(h, r), night);
    const count = state >= 1 && state <= 4 ? found(h, r, night).length : 0;
    td.className = "s" + state;
    td.textContent = state === 9 ? "" : count && state !== 5 ? SIGNS[state] + count : SIGNS[state] || "·";
    td.setAttribute("aria-label", D.hosts[h] + ", " + (D.roles[r] || "tasks") + ": " + (WORDS[state] || "not there") + (count ? ", " + count : ""));
  });
  document.querySelectorAll(".plot rect").forEach((bar, i) => bar.classList.toggle("now", i === night));
  const n = D.nights[night];
  $("night-said").textContent = n.when + ", " + n.command + ", exit " + n.exit + (n.revision ? ", " + n.revision : "") + ", " + n.seconds.toFixed(1) + " s, run " + n.run;
  filter();
}
function filter() {
  const name = $("f-host").value.trim().toLowerCase(), role = $("f-role").value, state = $("f-state").value, bad = $("f-bad").checked;
  let shown = 0;
  rows.forEach((row, h) => {
    const states = D.roles.map((_, r) => role === "" || role === String(r) ? at(cellOf(h, r), night) : 9);
    const fits = D.hosts[h].toLowerCase().includes(name) && (state === "" || states.includes(Number(state))) && (!bad || states.some(s => s >= 2 && s <= 5));
    row.hidden = !fits;
    shown += fits ? 1 : 0;
  });
  table.querySelectorAll("tr").forEach(row => [...row.cells].slice(1).forEach((c, r) => { c.hidden = role !== "" && role !== String(r); }));
  $("shown").textContent = shown + " of " + D.hosts.length + " hosts";
}
function tell(i, focus) {
  const h = Math.floor(i / D.roles.length), r = i % D.roles.length, state = at(cellOf(h, r), night), box = $("detail");
  box.replaceChildren(el("h2", D.hosts[h] + " · " + (D.roles[r] || "tasks")), el("p", D.nights[night].when + ": " + (WORDS[state] || "not there")));
  const list = el("ul");
  found(h, r, night).forEach(f => {
    const item = el("li");
    item.append(el("code", f.what), " " + WORDS[f.state] + ", " + f.severity + ", since " + D.nights[f.from].when + (f.from === 0 ? " or before" : ""), el("br"), f.summary);
    if (f.diff && f.to === last) item.append(el("pre", f.diff));
    list.append(item);
  });
  if (D.failures[h] && night === last) list.append(el("li", D.failures[h]));
  if (list.children.length) box.append(list); else box.append(el("p", "nothing to say"));
  box.hidden = false;
  if (focus) { box.tabIndex = -1; box.focus(); box.scrollIntoView({ block: "nearest" }); }
}
let current = 0;
function move(to) { cells[current].tabIndex = -1; current = to; cells[current].tabIndex = 0; cells[current].focus(); }
if (cells.length) cells[0].tabIndex = 0;
table.addEventListener("click", e => { const td = e.target.closest("td"); if (td) { const i = cells.indexOf(td); move(i); tell(i, false); } });
table.addEventListener("keydown", e => {
  const w = D.roles.length, step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: w, ArrowUp: -w }[e.key];
  if (step) {
    e.preventDefault();
    let to = current + step;
    while (to >= 0 && to < cells.length && (cells[to].hidden || cells[to].parentElement.hidden)) to += step;
    if (to >= 0 && to < cells.length && (Math.abs(step) > 1 || Math.floor(to / w) === Math.floor(current / w))) move(to);
  } else if (e.key === "Enter" || e.key === " ") { e.preventDefault(); tell(current, true); }
});
$("f-night").addEventListener("input", e => { night = Number(e.target.value); e.target.setAttribute("aria-valuetext", D.nights[night].when); paint(); });
["f-host", "f-role", "f-state", "f-bad"].forEach(id => $(id).addEventListener("input", filter));
$("filters").addEventListener("submit", e => e.preventDefault());
document.querySelectorAll(".plot rect").forEach((bar, i) => bar.addEventListener("click", () => { night = i; $("f-night").value = i; paint(); }));
document.body.classList.add("live");
$("filters").hidden = false;
paint();
