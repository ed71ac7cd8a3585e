"use strict";
// Charts of numbers that stand in the page; all words become text, never markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const SVG = "http://www.w3.org/2000/svg";
  const COLOURS = 8;
  const DASHES = ["", "7 3", "2 3", "9 3 2 3"]; // for groups beyond the colours
  const hidden = new Set(); // keys: groups, or runs where there is one group
  let axis = data.axis;
  let cursor = null; // {chart, place}

  const make = (name, values, parent) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
    if (parent) parent.append(node);
    return node;
  };
  const style = (key) => {
    const at = data.keys.indexOf(key);
    if (at < 0) return { stroke: "var(--text)" }; // the mean of the only group
    return { stroke: `var(--c${at % COLOURS})`, "stroke-dasharray": DASHES[Math.floor(at / COLOURS) % DASHES.length] };
  };
  const short = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
    if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
    return String(+value.toPrecision(size >= 100 ? 4 : 3));
  };
  const ticks = (low, high, most) => {
    const span = high - low;
    if (!(span > 0)) return [low];
    const power = 10 ** Math.floor(Math.log10(span / most));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => span / s <= most);
    const result = [];
    for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) result.push(+at.toPrecision(12));
    return result;
  };

  // of a logarithmic axis: 1, 2 and 5 of each power of ten, or 1 alone where they are many
  const decades = (low, high) => {
    const all = [1, 2, 5].flatMap((f) => Array.from({ length: 40 }, (_, at) => f * 10 ** (at - 20)));
    const within = (list) => list.filter((value) => value >= low && value <= high);
    return within(all).length <= 5 ? within(all) : within(all.filter((_, at) => at < 40));
  };

  const shown = (chart) => chart.curves.filter((curve) => !hidden.has(curve.key));

  const draw = (chart) => {
    const figure = document.getElementById(chart.id);
    figure.querySelector("svg")?.remove();
    const large = figure.parentElement.classList.contains("large");
    const width = Math.max(260, Math.round(figure.clientWidth - 16) || 340);
    const height = large ? 320 : 180;
    const edge = { left: 52, right: 10, top: 8, bottom: 22 };
    const curves = shown(chart);
    const xs = curves.flatMap((curve) => curve[axis]).filter((x) => x !== null);
    const levels = (chart.levels || []).filter((level) => level.value !== null);
    const ys = [...curves.flatMap((curve) => curve.y), ...levels.map((level) => level.value)].filter((y) => y !== null);
    const ends = curves.flatMap((curve) => (curve.low && (curve.mean || curves.length === 1) ? [...curve.low, ...curve.high] : [])).filter((y) => y !== null);
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
    figure.append(svg);
    figure.style.minHeight = 0;
    if (!xs.length || !ys.length) {
      make("text", { x: 12, y: 30 }, svg).textContent = "nothing to draw";
      chart.scale = null;
      return;
    }
    const min = (values) => values.reduce((a, b) => Math.min(a, b));
    const max = (values) => values.reduce((a, b) => Math.max(a, b));
    const x0 = min(xs), x1 = max(xs);
    let low = min(ys), high = max(ys);
    if (ends.length) { // a wide interval is cut at the edge: the curves must stay legible
      const more = 0.6 * (high - low || Math.abs(high) || 1);
      [low, high] = [Math.max(Math.min(low, min(ends)), low - more), Math.min(Math.max(high, max(ends)), high + more)];
    }
    const log = !large && low > 0 && high / low > 50;
    if (!log && low > 0 && low < 0.5 * high) low = 0;
    const f = log ? Math.log10 : (value) => value;
    const a = f(low), b = f(high) > f(low) ? f(high) : f(low) + 1;
    const right = width - edge.right, bottom = height - edge.bottom;
    const px = (x) => edge.left + (x1 > x0 ? (x - x0) / (x1 - x0) : 0.5) * (right - edge.left);
    const py = (y) => bottom - (Math.min(Math.max(f(Math.max(y, log ? low : -Infinity)), a), b) - a) / (b - a) * (bottom - edge.top);
    const marks = log ? decades(low, high) : ticks(a, b, large ? 6 : 4);
    for (const mark of marks) {
      make("line", { class: "tick", x1: edge.left, x2: right, y1: py(mark), y2: py(mark) }, svg);
      make("text", { x: edge.left - 5, y: py(mark) + 4, "text-anchor": "end" }, svg).textContent = short(mark);
    }
    for (const mark of ticks(x0, x1, Math.max(3, Math.floor(width / 90)))) {
      const side = px(mark) > right - 14 ? "end" : "middle";
      make("text", { x: px(mark), y: height - 6, "text-anchor": side }, svg).textContent = short(mark);
    }
    figure.querySelector("figcaption").textContent = chart.title + (log ? ", logarithmic" : "");
    let above = Infinity; // labels of baselines that are near one another do not overlap
    for (const level of levels) make("line", { class: level.protocol ? "level published" : "level", x1: edge.left, x2: right, y1: py(level.value), y2: py(level.value) }, svg);
    for (const level of [...levels].sort((one, two) => one.value - two.value)) {
      above = Math.min(py(level.value) - 3, above - 11);
      const label = make("text", { x: right - 2, y: above, "text-anchor": "end" }, svg);
      label.textContent = `${level.name}: ${short(level.value)}`;
      if (level.protocol) make("title", {}, label).textContent = level.protocol;
    }
    const several = curves.length > 1;
    for (const curve of curves) {
      const { stroke, ...dash } = style(curve.key);
      const points = curve[axis].map((x, at) => [x, curve.y[at], at]).filter(([x, y]) => x !== null && y !== null);
      if (curve.low && (curve.mean || !several)) {
        const up = points.map(([x, , at]) => `${px(x).toFixed(1)},${py(curve.high[at]).toFixed(1)}`);
        const down = points.map(([x, , at]) => `${px(x).toFixed(1)},${py(curve.low[at]).toFixed(1)}`).reverse();
        make("polygon", { points: [...up, ...down].join(" "), style: `fill: ${stroke}`, opacity: 0.18 }, svg);
      }
      const line = points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(" ");
      const thin = several && !curve.mean && chart.curves.some((one) => one.mean && one.group === curve.group);
      make("polyline", { points: line, fill: "none", style: `stroke: ${stroke}`, "stroke-width": thin ? 1 : 2, opacity: thin ? 0.55 : 1, ...dash }, svg);
      if (points.length === 1) make("circle", { cx: px(points[0][0]), cy: py(points[0][1]), r: 3, style: `fill: ${stroke}` }, svg);
    }
    const line = make("line", { class: "cursor", y1: edge.top, y2: bottom, visibility: "hidden" }, svg);
    chart.scale = { px, py, x0, x1, width, edge, right, line, svg };
  };

  // What the curves are worth at one place: those nearest to the pointer first.
  const show = (chart, x, y) => {
    const { scale } = chart;
    if (!scale) return;
    const rows = [];
    for (const curve of shown(chart)) {
      const along = curve[axis];
      let best = 0;
      for (let at = 1; at < along.length; at++) if (Math.abs(along[at] - x) < Math.abs(along[best] - x)) best = at;
      if (curve.y[best] === null || x > along[along.length - 1] + (scale.x1 - scale.x0) * 0.02) continue;
      rows.push({ curve, best, off: Math.abs(scale.py(curve.y[best]) - y) });
    }
    // by keys the means come first, then the highest
    const rank = ({ curve, best }) => [curve.mean ? 1 : 0, curve.y[best]];
    rows.sort((one, two) => {
      if (y !== null) return one.off - two.off;
      const [[a, b], [c, d]] = [rank(one), rank(two)];
      return c - a || d - b;
    });
    tip.replaceChildren();
    const head = document.createElement("strong");
    head.textContent = `${axis} ${short(x)}`;
    tip.append(head);
    for (const { curve, best } of rows.slice(0, 8)) {
      const row = document.createElement("div");
      const name = document.createElement("span");
      name.textContent = curve.name;
      name.style.color = style(curve.key).stroke;
      const value = document.createElement("span");
      value.textContent = short(curve.y[best]) + (curve.low ? ` (${short(curve.low[best])} to ${short(curve.high[best])})` : "");
      row.append(name, value);
      tip.append(row);
    }
    if (rows.length > 8) tip.append(`and ${rows.length - 8} more`);
    scale.line.setAttribute("x1", scale.px(x));
    scale.line.setAttribute("x2", scale.px(x));
    scale.line.setAttribute("visibility", "visible");
    tip.hidden = false;
    const box = scale.svg.getBoundingClientRect();
    const left = box.left + scale.px(x) * box.width / scale.width;
    const wide = tip.offsetWidth;
    tip.style.left = `${window.scrollX + Math.max(4, left + 14 + wide > document.documentElement.clientWidth ? left - wide - 14 : left + 14)}px`;
    tip.style.top = `${window.scrollY + box.top + 20}px`;
  };
  const hide = (chart) => {
    tip.hidden = true;
    chart.scale?.line.setAttribute("visibility", "hidden");
  };

  const drawn = new Set();
  const ensure = (chart) => { if (!drawn.has(chart)) { drawn.add(chart); draw(chart); } };
  const redraw = () => { for (const chart of drawn) draw(chart); };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) ensure(data.charts.find((chart) => chart.id === entry.target.id));
  }, { rootMargin: "300px" });

  for (const chart of data.charts) {
    const figure = document.getElementById(chart.id);
    seen.observe(figure);
    figure.addEventListener("pointermove", (event) => {
      if (!chart.scale) return;
      const { svg, width, edge, right, x0, x1 } = chart.scale;
      const box = svg.getBoundingClientRect();
      const at = (event.clientX - box.left) * width / box.width;
      const share = Math.min(1, Math.max(0, (at - edge.left) / (right - edge.left)));
      chart.place = share;
      show(chart, x0 + share * (x1 - x0), (event.clientY - box.top) * width / box.width);
    });
    figure.addEventListener("pointerleave", () => hide(chart));
    figure.addEventListener("blur", () => hide(chart));
    figure.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
      if (event.key === "Escape") hide(chart);
      if (move === undefined) return;
      event.preventDefault();
      ensure(chart);
      if (!chart.scale) return;
      const from = Math.abs(move) === 1 ? (move < 0 ? 1 : 0) : (chart.place ?? (move > 0 ? -0.02 : 1.02));
      chart.place = Math.min(1, Math.max(0, from + move));
      show(chart, chart.scale.x0 + chart.place * (chart.scale.x1 - chart.scale.x0), null);
    });
  }

  const legend = document.querySelector(".legend");
  for (const key of data.keys.length > 1 ? data.keys : []) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    const sample = make("svg", { viewBox: "0 0 34 10", "aria-hidden": "true" });
    const { stroke, ...dash } = style(key);
    make("line", { x1: 0, x2: 34, y1: 5, y2: 5, style: `stroke: ${stroke}`, "stroke-width": 3, ...dash }, sample);
    button.append(sample, key);
    button.addEventListener("click", () => {
      if (!hidden.delete(key)) hidden.add(key);
      button.setAttribute("aria-pressed", String(!hidden.has(key)));
      redraw();
    });
    item.append(button);
    legend.append(item);
  }
  for (const input of document.querySelectorAll("input[name=axis]")) {
    input.addEventListener("change", () => { axis = input.value; redraw(); });
  }
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(redraw, 150); });
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not(.settings)")) details.open = true;
    data.charts.forEach(ensure);
  });

  // Films are read where they are seen: forty of them would be the time that the page takes to open.
  for (const details of document.querySelectorAll("details.run")) {
    const load = () => {
      for (const film of details.open ? details.querySelectorAll("video[data-film]") : []) {
        film.src = film.dataset.film;
        film.removeAttribute("data-film");
      }
    };
    details.addEventListener("toggle", load);
    load();
  }

  // Tables: a click on a head sorts, numbers by size, whatever has none at the end.
  const number = (cell) => {
    if (cell.dataset.none) return null;
    const found = cell.textContent.replaceAll(",", "").match(/^\s*(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)([kM])?/);
    return found ? Number(found[1]) * ({ k: 1e3, M: 1e6 }[found[2]] ?? 1) : null;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => ({ row, text: row.cells[column].textContent, value: number(row.cells[column]), none: Boolean(row.cells[column].dataset.none) }));
      const numeric = rows.every((one) => one.none || one.value !== null);
      rows.sort((one, two) => {
        if (one.none !== two.none) return one.none ? 1 : -1;
        const order = numeric ? one.value - two.value : one.text.localeCompare(two.text, undefined, { numeric: true });
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows.map((one) => one.row));
    }));
  }
  window.planetReport = { charts: data.charts.length };
})();
