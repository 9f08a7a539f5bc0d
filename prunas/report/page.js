"use strict";

// Tables

const UNITS = { k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18 };

/** The number a cell starts with (an SI unit, hours and minutes understood), or null. */
function number(text) {
  const clean = text.replace(/,(?=\d{3})/g, "").replace(/^\[/, "");
  const time = clean.match(/^(?:(\d+) h )?(?:(\d+) min)?(?: ?([\d.]+) s)?$/);
  if (clean && time) return 3600 * (time[1] || 0) + 60 * (time[2] || 0) + Number(time[3] || 0);
  const match = clean.match(/^([+-]?\d+(?:\.\d+)?)([kMGTPE]?)(?![a-z\d])/);
  return match ? Number(match[1]) * (UNITS[match[2]] || 1) : null;
}

function compare(a, b) {
  const x = number(a), y = number(b);
  if (x !== null && y !== null) return x - y;
  if (x !== null || y !== null) return x === null ? 1 : -1;
  return a.localeCompare(b);
}

for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!head) return;
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const text = (row) => row.cells[head.cellIndex].textContent.trim();
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => sign * compare(text(a), text(b))));
  });
}

// Shapes behind points

function element(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

function bars(layers, run) {
  const grid = element("div", { className: "bars" });
  layers.forEach(([name, stage, dense], i) => {
    if (i && stage !== layers[i - 1][1]) grid.append(element("span", { className: "stage" }));
    const filled = element("i");
    filled.style.width = `${(100 * run.widths[i]) / dense}%`;
    grid.append(
      element("span", {}, name),
      element("span", { className: "n" }, `${run.widths[i]} / ${dense}`),
      element("span", { className: "bar" }, filled),
    );
  });
  return grid;
}

function shape(data, id) {
  const run = data.runs[id];
  const parts = [element("h4", {}, run.score === null ? run.status : run.score)];
  const list = element("dl");
  const facts = [
    ...run.as.map((text) => ["point of", text]),
    ["parameters", run.params.toLocaleString("en")],
    ["MACs", run.macs.toLocaleString("en")],
    ["training seed", run.seed],
    ["run", run.folder],
  ];
  if (run.stored) facts.push(["shape", run.stored]);
  for (const [name, value] of facts) list.append(element("dt", {}, name), element("dd", {}, String(value)));
  parts.push(list);
  if (run.widths.length) parts.push(bars(data.layers, run));
  return parts;
}

const tip = document.getElementById("tip");

for (const section of document.querySelectorAll(".setting")) {
  const data = JSON.parse(section.querySelector("script.runs").textContent);
  const aside = section.querySelector(".shape");

  const keep = (id, mark) => {
    for (const old of section.querySelectorAll(".run.picked")) old.classList.remove("picked");
    for (const one of section.querySelectorAll(".run")) if (one.dataset.run === id) one.classList.add("picked");
    const close = element("button", { type: "button", className: "open" }, "close");
    close.addEventListener("click", () => {
      aside.hidden = true;
      for (const old of section.querySelectorAll(".run.picked")) old.classList.remove("picked");
    });
    aside.replaceChildren(...shape(data, id), close);
    aside.hidden = false;
    mark.after(aside);
    aside.scrollIntoView({ block: "nearest" });
  };

  for (const figure of section.querySelectorAll("[data-pick]")) {
    const svg = figure.querySelector("svg");
    let centres = null;
    const measure = () => {
      const origin = svg.getBoundingClientRect();
      centres = [...svg.querySelectorAll(".run")].map((run) => {
        const box = run.getBoundingClientRect();
        return [(box.left + box.right) / 2 - origin.left, (box.top + box.bottom) / 2 - origin.top, run.dataset.run];
      });
    };
    const nearest = (event) => {
      if (!centres) measure();
      const origin = svg.getBoundingClientRect();
      let best = null, least = 18 ** 2;
      for (const [x, y, id] of centres) {
        const far = (event.clientX - origin.left - x) ** 2 + (event.clientY - origin.top - y) ** 2;
        if (far < least) [best, least] = [id, far];
      }
      return best;
    };
    addEventListener("resize", () => { centres = null; });
    svg.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch") return;
      const id = nearest(event);
      tip.hidden = !id;
      if (!id) return;
      if (tip.dataset.run !== id) tip.replaceChildren(...shape(data, id));
      tip.dataset.run = id;
      const left = event.clientX + 16, top = event.clientY + 16;
      tip.style.left = `${Math.max(4, left + tip.offsetWidth > innerWidth ? event.clientX - tip.offsetWidth - 16 : left)}px`;
      tip.style.top = `${Math.max(4, Math.min(top, innerHeight - tip.offsetHeight - 4))}px`;
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
    svg.addEventListener("click", (event) => {
      const id = nearest(event);
      if (id) keep(id, figure.closest(".pair"));
    });
  }

  for (const button of section.querySelectorAll("button.open[data-run]")) {
    button.addEventListener("click", () => keep(button.dataset.run, button.closest("details")));
  }
}
