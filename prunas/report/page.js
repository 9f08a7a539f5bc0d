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

/** Hands out a text as a file; nothing leaves the browser. */
function download(name, text, type) {
  const link = element("a", { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** A table as comma-separated values, its rows in the order in which they stand. */
function csv(table) {
  const cell = (text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
  return [...table.rows].map((row) => [...row.cells].map((one) => cell(one.textContent.trim())).join(",")).join("\n") + "\n";
}

for (const table of document.querySelectorAll("table[data-file]")) {
  const button = element("button", { type: "button", ariaLabel: `${table.dataset.file} as CSV` }, "CSV");
  const name = `${table.dataset.file.replace(/[^\w]+/g, "-").toLowerCase()}.csv`;
  button.addEventListener("click", () => download(name, csv(table), "text/csv"));
  table.parentNode.after(element("p", { className: "downloads" }, button));
}

// Figures

const SIZES = [100, 150, 225, 340];
for (const figure of document.querySelectorAll("main figure")) {
  const svg = figure.querySelector("svg"), buttons = [...figure.querySelectorAll("[data-zoom]")];
  let size = 0;
  for (const button of buttons) {
    button.addEventListener("click", () => {
      size = Math.max(0, Math.min(SIZES.length - 1, size + Number(button.dataset.zoom)));
      svg.style.width = size ? `${SIZES[size]}%` : "";
      svg.style.maxWidth = size ? "none" : "";
      buttons[0].disabled = size === 0;
      buttons[1].disabled = size === SIZES.length - 1;
      dispatchEvent(new Event("resize"));
    });
  }
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
    filled.style.width = `${Math.min(100, (100 * run.widths[i]) / dense)}%`;
    grid.append(
      element("span", {}, name),
      element("span", { className: "n" }, `${run.widths[i]} / ${dense}`),
      element("span", { className: "bar" }, filled),
    );
  });
  return grid;
}

/** A drawing that the page holds as text: it was made with the page, and has no scripts. */
function picture(svg) {
  const box = element("div", { className: "drawn" });
  box.append(new DOMParser().parseFromString(svg, "image/svg+xml").documentElement);
  return box;
}

function shape(data, id, brief = false) {
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
  const svg = data.pictures[run.shape];
  if (svg) parts.push(picture(svg));
  if (run.widths.length && !(brief && svg)) parts.push(bars(data.layers, run));
  return parts;
}

/** Buttons that hand out the shape of a run: its drawing, and the file that prunas reads. */
function downloads(data, id) {
  const run = data.runs[id], row = element("p", { className: "downloads" });
  const offer = (text, name, content, type) => {
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", () => download(name, content, type));
    row.append(button);
  };
  const svg = data.pictures[run.shape], arch = data.shapes[run.shape];
  if (!svg && run.widths.length) row.append(`The page has room for some drawings only: prunas show ${id} --svg FILE draws this one. `);
  if (svg) offer("drawing (SVG)", `${id}.svg`, svg, "image/svg+xml");
  if (arch) offer("shape (JSON)", `${id}.json`, JSON.stringify(arch, null, 1), "application/json");
  return row;
}

const tip = document.getElementById("tip"), said = document.getElementById("said");

/** Shows the card of a run beside a place of the window, where it hides neither that place nor its neighbours. */
function place(x, y) {
  const beside = [x + 16, x - tip.offsetWidth - 16].find((left) => left >= 4 && left + tip.offsetWidth <= innerWidth - 4);
  const middle = Math.max(4, Math.min(y + 16, innerHeight - tip.offsetHeight - 4));
  const below = y + 24 + tip.offsetHeight <= innerHeight ? y + 24 : Math.max(4, y - tip.offsetHeight - 24);
  tip.style.left = `${beside ?? Math.max(4, Math.min(x - tip.offsetWidth / 2, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${beside === undefined ? below : middle}px`;
}

function hide() {
  tip.hidden = true;
  for (const one of document.querySelectorAll(".run.here")) one.classList.remove("here");
}

for (const kind of ["wheel", "touchmove"]) addEventListener(kind, hide, { passive: true });
addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

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
    aside.replaceChildren(close, ...shape(data, id), downloads(data, id));
    aside.hidden = false;
    mark.after(aside);
    aside.scrollIntoView({ block: "nearest" });
  };

  const off = new Set();
  for (const button of section.querySelectorAll(".series-choice button")) {
    button.addEventListener("click", () => {
      const name = button.dataset.name, hidden = !off.delete(name);
      if (hidden) off.add(name);
      button.ariaPressed = String(!hidden);
      for (const one of section.querySelectorAll(".series")) {
        if (one.dataset.series === name) one.classList.toggle("off", hidden);
      }
      for (const one of section.querySelectorAll(".run")) {
        one.classList.toggle("off", data.runs[one.dataset.run].proposers.every((who) => off.has(who)));
      }
      dispatchEvent(new Event("resize"));
    });
  }

  for (const figure of section.querySelectorAll("[data-pick]")) {
    const svg = figure.querySelector("svg");
    let centres = null;
    const measure = () => {
      const origin = svg.getBoundingClientRect();
      centres = [...svg.querySelectorAll(".run:not(.off)")].map((run) => {
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
      if (tip.dataset.run !== id) tip.replaceChildren(...shape(data, id, true));
      tip.dataset.run = id;
      place(event.clientX, event.clientY);
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
    svg.addEventListener("click", (event) => {
      const id = nearest(event);
      if (id) keep(id, figure.closest(".pair"));
    });

    // By keys: marks in the order of their cost, one at a time.
    let here = null;
    figure.querySelector(".scroll").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (step === undefined && event.key !== "Enter") return;
      measure();
      const order = [...centres].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
      if (!order.length) return;
      event.preventDefault();
      let at = order.findIndex((mark) => mark[2] === here);
      if (event.key === "Enter") {
        if (at >= 0) keep(here, figure.closest(".pair"));
        return;
      }
      at = at < 0 ? (step > 0 ? 0 : order.length - 1) : (at + step + order.length) % order.length;
      const [x, y, id] = order[at];
      here = id;
      const origin = svg.getBoundingClientRect(), run = data.runs[id];
      hide();
      for (const one of svg.querySelectorAll(".run")) one.classList.toggle("here", one.dataset.run === id);
      tip.replaceChildren(...shape(data, id, true));
      tip.dataset.run = id;
      tip.hidden = false;
      place(origin.left + x, origin.top + y);
      said.textContent = `${run.score === null ? run.status : run.score}, ${run.as[0]}, ${run.params.toLocaleString("en")} parameters`;
    });
    figure.querySelector(".scroll").addEventListener("blur", hide);
  }

  for (const button of section.querySelectorAll("button.open[data-run]")) {
    button.addEventListener("click", () => keep(button.dataset.run, button.closest("details")));
  }
}
