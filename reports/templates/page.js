"use strict";
// Everything a run wrote reaches the document through textContent only.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (name, text = "", className = "") => {
  const node = document.createElement(name);
  node.textContent = text;
  if (className) node.className = className;
  return node;
};

// ---- theme: the system's until the button is used; remembered where the browser allows it
const root = document.documentElement;
const remembered = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
if (remembered()) root.dataset.theme = remembered();
const themeButton = document.getElementById("theme");
const nameTheme = () => { themeButton.textContent = isDark() ? "Light" : "Dark"; };
themeButton.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* file:// may forbid it */ }
  nameTheme();
});
nameTheme();
themeButton.hidden = false;

// ---- tabs: without this script every panel is simply shown
const tabs = all("[role=tab]");
function show(tab, focus = false) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
}
tabs.forEach((tab, place) => {
  tab.addEventListener("click", () => { show(tab); history.replaceState(null, "", "#" + tab.dataset.key); });
  tab.addEventListener("keydown", (event) => {
    const last = tabs.length - 1;
    const next = { ArrowRight: place === last ? 0 : place + 1, ArrowLeft: place === 0 ? last : place - 1, Home: 0, End: last }[event.key];
    if (next !== undefined) { event.preventDefault(); show(tabs[next], true); }
  });
});
const fromHash = () => tabs.find((tab) => tab.dataset.key === location.hash.slice(1)) || tabs[0];
show(fromHash());
addEventListener("hashchange", () => { if (tabs.some((tab) => tab.dataset.key === location.hash.slice(1))) show(fromHash()); });
addEventListener("beforeprint", () => all("#panel-summary details, #panel-figures details, #panel-curves details").forEach((d) => { d.open = true; }));

// ---- tables: a click sorts, a second one turns round; what has no value stays at the end
for (const table of all("table.sortable")) {
  const heads = all("thead th", table);
  heads.forEach((head, column) => {
    const button = make("button", head.textContent.trim());
    button.type = "button";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const numeric = head.dataset.kind === "number";
      const was = head.getAttribute("aria-sort");
      const descending = was ? was === "ascending" : numeric;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const body = table.querySelector("tbody:not(.fixed)");
      const value = (row) => row.children[column].dataset.sort ?? "";
      const rows = all(":scope > tr", body).map((row) => [value(row), row]);
      rows.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = numeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true });
        return descending ? -order : order;
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}

// ---- filter: rows of all tables that hold every word; what a task cannot be without (its floor) stays
const filter = document.getElementById("filter");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of all("table.sortable tbody:not(.fixed) > tr")) {
    const table = row.closest("table");
    const said = `${table.dataset.about || ""} ${row.textContent}`.toLowerCase();
    row.hidden = !words.every((word) => said.includes(word));
    shown += !row.hidden;
  }
  document.getElementById("filter-count").textContent = words.length ? `${shown} rows` : "";
});
document.getElementById("filtering").hidden = false;

// ---- samples, side by side
const texts = JSON.parse(document.getElementById("sample-data").textContent);
const field = (name) => document.getElementById("sample-" + name);
const MOST = 120;
function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => { const option = make("option", text); option.value = value; return option; }));
  if (chosen !== undefined) select.value = chosen;
}
function marked(text, wanted) {
  const node = document.createDocumentFragment();
  const low = text.toLowerCase();
  let at = 0;
  for (let hit = wanted ? low.indexOf(wanted) : -1; hit >= 0; hit = low.indexOf(wanted, at)) {
    node.append(text.slice(at, hit), make("mark", text.slice(hit, hit + wanted.length)));
    at = hit + wanted.length;
  }
  node.append(text.slice(at));
  return node;
}
function chooseTask() {
  const rows = texts[field("task").value] || {};
  const names = Object.keys(rows).map((name) => [name, name]);
  const of = (part) => [...new Set(Object.values(rows).flatMap(part))];
  fill(field("left"), names);
  fill(field("right"), [["", "(nothing)"], ...names], (names[1] || [""])[0]);
  fill(field("seed"), of((seeds) => Object.keys(seeds)).sort((a, b) => a - b).map((seed) => [seed, seed]));
  fill(field("kind"), of((seeds) => Object.values(seeds).flatMap((kinds) => Object.keys(kinds))).map((kind) => [kind, kind]));
  chooseKind();
}
function chooseKind() {
  const rows = Object.values(texts[field("task").value] || {}).map((seeds) => (seeds[field("seed").value] || {})[field("kind").value] || []).flat();
  const was = field("step").value;
  const steps = [...new Set(rows.map((row) => row[0]))].sort((a, b) => a - b);
  fill(field("step"), [["", "all"], ...steps.map((step) => [String(step), step === 0 ? "0 (untuned)" : String(step)])], steps.includes(Number(was)) ? was : "");
  const scored = rows.some((row) => row[4] !== null);
  for (const option of field("order").options) option.disabled = option.value !== "" && !scored;
  if (!scored) field("order").value = "";
  draw();
}
function draw() {
  const task = texts[field("task").value] || {};
  const wanted = field("search").value.trim().toLowerCase();
  const sides = [field("left").value, field("right").value].filter((name, place, list) => name && list.indexOf(name) === place);
  const places = new Map();
  const order = Number(field("order").value);
  sides.forEach((name, side) => {
    const rows = ((task[name][field("seed").value] || {})[field("kind").value] || [])
      .filter(([step, , labels, text]) => (field("step").value === "" || String(step) === field("step").value)
        && (!wanted || text.toLowerCase().includes(wanted) || labels.toLowerCase().includes(wanted)));
    // By reward the sides stand beside each other rank by rank, else place by place.
    if (order) rows.sort((a, b) => order * (a[4] - b[4]));
    rows.forEach(([step, index, labels, text], rank) => {
      const key = order ? rank : step * 1e6 + index;
      if (!places.has(key)) places.set(key, { title: order ? `rank ${rank + 1}` : `step ${step}, text ${index}`, cells: [] });
      places.get(key).cells[side] = { labels: order ? `step ${step}, text ${index}, ${labels}` : labels, text };
    });
  });
  const found = [...places.entries()].sort(([a], [b]) => a - b).map(([, place]) => place);
  field("list").replaceChildren(...found.slice(0, MOST).map((place) => {
    const pair = make("article", "", "pair");
    pair.append(make("h4", place.title));
    sides.forEach((name, side) => {
      const quote = make("blockquote");
      const cell = place.cells[side];
      quote.append(make("small", cell && cell.labels ? `${name}; ${cell.labels}` : name));
      quote.append(cell ? marked(cell.text, wanted) : "no text kept here");
      pair.append(quote);
    });
    return pair;
  }));
  const more = found.length > MOST ? `, the first ${MOST} are shown` : "";
  field("count").textContent = `${found.length} ${found.length === 1 ? "place" : "places"}${more}`;
}
if (field("task")) {
  fill(field("task"), Object.keys(texts).map((name) => [name, name]));
  field("task").addEventListener("change", chooseTask);
  for (const name of ["seed", "kind"]) field(name).addEventListener("change", chooseKind);
  for (const name of ["left", "right", "step", "order"]) field(name).addEventListener("change", draw);
  field("search").addEventListener("input", draw);
  chooseTask();
}
