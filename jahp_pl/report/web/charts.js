"use strict";
// Small plots in SVG: axes, lines with marks, zoom, tooltips. Colors come from the style sheet (--c0 ... --c7).

const SVG = "http://www.w3.org/2000/svg";

// Append an element, an SVG element if the parent is one, and return it.
function put(parent, tag, attributes = {}, text = null) {
  const isVector = tag === "svg" || parent.namespaceURI === SVG;
  const node = isVector ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  parent.appendChild(node);
  return node;
}

const MARKS = [
  (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
  (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (r) => `M0,${-1.35 * r}L${1.35 * r},0L0,${1.35 * r}L${-1.35 * r},0z`,
  (r) => `M0,${-1.3 * r}L${1.25 * r},${0.95 * r}H${-1.25 * r}z`,
  (r) => `M0,${1.3 * r}L${1.25 * r},${-0.95 * r}H${-1.25 * r}z`,
];
const DASHES = { model: "", classical: "7 4", published: "2 3" };

// Append a sample of a curve's line and mark.
function swatch(parent, look) {
  const svg = put(parent, "svg", { width: 28, height: 12, viewBox: "-14 -6 28 12", class: "swatch", "aria-hidden": "true" });
  put(svg, "path", { d: "M-13,0H13", stroke: look.color, "stroke-width": 2, "stroke-dasharray": DASHES[look.kind], fill: "none" });
  put(svg, "path", { d: MARKS[look.mark](3.4), fill: look.color });
  return svg;
}

// Return about `count` ticks of a linear axis: [value, label].
function steps(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (Math.abs(step / power - 2.5) < 1e-9 ? 1 : 0));
  return ticks.map((value) => [value, value.toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1").replace("-", "−")]);
}

// Return the ticks of a logarithmic axis: [value, label].
function powers(low, high) {
  const ticks = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    for (const m of high / low > 300 ? [1] : [1, 2, 5]) {
      const value = m * 10 ** e;
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push([value, String(+value.toPrecision(1))]);
    }
  }
  return ticks;
}

// Create a function from values in [low, high] to positions in [start, end], with its inverse and its ticks.
function axis(low, high, isLog, start, end) {
  const f = isLog ? Math.log : (v) => v;
  const a = f(low), b = f(high);
  const map = (v) => start + ((f(v) - a) / (b - a)) * (end - start);
  map.inverse = (p) => {
    const t = a + ((p - start) / (end - start)) * (b - a);
    return isLog ? Math.exp(t) : t;
  };
  map.low = low;
  map.high = high;
  map.ticks = isLog ? powers(low, high) : steps(low, high, Math.abs(end - start) / (start < end ? 80 : 55));
  return map;
}

const tip = document.getElementById("tip");
// Show lines beside the pointer, the first one bold.
function showTip(event, lines) {
  tip.replaceChildren();
  lines.forEach((line, k) => put(tip, k ? "div" : "b", {}, line));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  let x = event.clientX + 14, y = event.clientY + 14;
  if (x + box.width > innerWidth - 6) x = Math.max(6, event.clientX - box.width - 14);
  if (y + box.height > innerHeight - 6) y = event.clientY - box.height - 14;
  tip.style.left = `${x}px`;
  tip.style.top = `${y}px`;
}
function hideTip() { tip.hidden = true; }
addEventListener("scroll", hideTip, { passive: true });

// A drawing as wide as its host, redrawn when that width changes. A subclass has contents(options), which returns an
// array of what to draw, and paint(options, contents).
class Plot {
  constructor(host, options) {
    this.host = host;
    this.options = options;
    this.width = 0;
    new ResizeObserver(() => { if (host.clientWidth !== this.width) this.draw(); }).observe(host);
  }

  draw() {
    const { host } = this;
    this.width = host.clientWidth;
    if (!this.width) return;
    const o = this.options();
    const contents = this.contents(o);
    host.replaceChildren();
    if (contents.length) this.paint(o, contents);
    else put(host, "p", { class: "note" }, o.empty || "Nothing to show; choose curves above.");
  }
}

// A plot of lines. `options()` gives {x, y, series, empty}: axes {label, log, domain, zero, symbols} and series
// {look, label, points: [{x, y, tip: [lines]}], marks}.
class LinePlot extends Plot {
  zoom = null;

  contents(o) {
    return o.series.filter((s) => s.points.length);
  }

  paint(o, series) {
    const { host, width } = this;
    const height = Math.round(Math.min(430, Math.max(270, width * 0.66)));
    const box = { left: 54, right: width - 12, top: 10, bottom: height - 46 };
    const range = this.zoom || this.range(o, series);
    const y = axis(...range.y, o.y.log, box.bottom, box.top);
    box.left = 33 + 7 * Math.max(...y.ticks.map(([, label]) => label.length));
    const svg = put(host, "svg", { class: "plot", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${o.y.label} against ${o.x.label}` });
    const x = axis(...range.x, o.x.log, box.left, box.right);
    this.frame(svg, o, box, x, y, height);
    const id = `clip${LinePlot.count = (LinePlot.count || 0) + 1}`;
    const clip = put(put(svg, "defs"), "clipPath", { id });
    put(clip, "rect", { x: box.left, y: box.top - 4, width: box.right - box.left, height: box.bottom - box.top + 8 });
    const area = put(svg, "g", { "clip-path": `url(#${id})` });
    if (o.y.zero) put(area, "path", { class: "zero", d: `M${box.left},${y(0)}H${box.right}` });
    const spots = [];
    for (const s of [...series].reverse()) {
      const group = put(area, "g", { class: `series ${s.look.kind}` });
      const line = s.points.map((p, k) => `${k && !p.gap ? "L" : "M"}${x(p.x).toFixed(1)},${y(p.y).toFixed(1)}`).join("");
      put(group, "path", { class: "line", d: line, stroke: s.look.color, "stroke-dasharray": s.dash ?? DASHES[s.look.kind], "stroke-opacity": s.opacity ?? 1 });
      for (const p of s.points) {
        const spot = { group, s, p, x: x(p.x), y: y(p.y) };
        spots.push(spot);
        if (s.marks !== false && s.points.length <= 40) put(group, "path", { class: "mark", d: MARKS[s.look.mark](s.look.kind === "model" ? 4.2 : 3.4), fill: s.look.color, transform: `translate(${spot.x.toFixed(1)},${spot.y.toFixed(1)})` });
      }
    }
    this.listen(svg, spots, box, x, y);
    if (this.zoom) {
      const button = put(host, "button", { class: "chip plain", style: `position:absolute;right:14px;top:12px;background:var(--card);border-color:var(--line)` }, "Zoom out");
      button.addEventListener("click", () => { this.zoom = null; this.draw(); });
    }
  }

  // Return the ranges of both axes that show all points, or all points within the domain of x.
  range(o, series) {
    const points = series.flatMap((s) => s.points);
    const span = (key, a, within) => {
      const inside = within ? points.filter((p) => p.x >= within[0] && p.x <= within[1]) : points;
      const values = (inside.length ? inside : points).map((p) => p[key]);
      if (a.zero) values.push(0);
      const low = Math.min(...values), high = Math.max(...values);
      const pad = (high - low || Math.abs(high) || 1) * 0.05;
      return a.log ? [low / 1.15, high * 1.15] : [low - pad, high + pad];
    };
    const xs = o.x.domain || span("x", o.x);
    return { x: xs, y: o.y.domain || span("y", o.y, o.x.domain) };
  }

  // Draw both axes with their ticks and labels.
  frame(svg, o, box, x, y, height) {
    for (const [value, label] of y.ticks) {
      put(svg, "path", { class: "grid", d: `M${box.left},${y(value)}H${box.right}` });
      put(svg, "text", { x: box.left - 7, y: y(value) + 4, "text-anchor": "end" }, label);
    }
    for (const [value, label] of x.ticks) {
      put(svg, "path", { class: "grid", d: `M${x(value)},${box.top}V${box.bottom}` });
      put(svg, "text", { x: x(value), y: box.bottom + 17, "text-anchor": "middle" }, label);
    }
    put(svg, "path", { class: "frame", d: `M${box.left},${box.top}V${box.bottom}H${box.right}` });
    put(svg, "text", { class: "axis", x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, o.x.label);
    put(svg, "text", { class: "axis", transform: `translate(13,${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, o.y.label);
  }

  // Highlight the point nearest to the pointer; zoom into a rectangle that the user drags.
  listen(svg, spots, box, x, y) {
    const at = (event) => { const r = svg.getBoundingClientRect(); return [event.clientX - r.left, event.clientY - r.top]; };
    const clamp = (v, a, b) => Math.min(b, Math.max(a, v));
    let from = null, frame = null;
    const clear = () => { svg.classList.remove("hot"); svg.querySelectorAll(".on").forEach((n) => n.classList.remove("on")); hideTip(); };
    const hover = (event) => {
      const [px, py] = at(event);
      let best = null, least = 34 ** 2;
      for (const spot of spots) {
        if (spot.x < box.left - 1 || spot.x > box.right + 1 || spot.y < box.top - 5 || spot.y > box.bottom + 5) continue;
        const distance = (spot.x - px) ** 2 + (spot.y - py) ** 2;
        if (distance < least) [best, least] = [spot, distance];
      }
      clear();
      if (!best) return;
      svg.classList.add("hot");
      best.group.classList.add("on");
      showTip(event, [best.s.label, ...best.p.tip]);
    };
    svg.addEventListener("pointermove", (event) => {
      if (!from) { hover(event); return; }
      const [px, py] = at(event).map((v, k) => clamp(v, k ? box.top : box.left, k ? box.bottom : box.right));
      frame = frame || put(svg, "rect", { class: "zoom" });
      const sizes = { x: Math.min(px, from[0]), y: Math.min(py, from[1]), width: Math.abs(px - from[0]), height: Math.abs(py - from[1]) };
      for (const [name, value] of Object.entries(sizes)) frame.setAttribute(name, value);
    });
    svg.addEventListener("pointerdown", (event) => {
      hover(event);
      if (event.pointerType === "mouse" && event.button === 0) { from = at(event); svg.setPointerCapture(event.pointerId); }
    });
    svg.addEventListener("pointerup", (event) => {
      if (!from) return;
      const start = from, end = at(event).map((v, k) => clamp(v, k ? box.top : box.left, k ? box.bottom : box.right));
      from = null;
      if (frame) frame.remove();
      frame = null;
      if (Math.abs(end[0] - start[0]) < 12 || Math.abs(end[1] - start[1]) < 12) return;
      clear();
      const sorted = (a, b) => (a < b ? [a, b] : [b, a]);
      this.zoom = { x: sorted(x.inverse(start[0]), x.inverse(end[0])), y: sorted(y.inverse(start[1]), y.inverse(end[1])) };
      this.draw();
    });
    svg.addEventListener("pointercancel", () => { from = null; if (frame) frame.remove(); frame = null; clear(); });
    svg.addEventListener("pointerleave", clear);
    svg.addEventListener("dblclick", () => { this.zoom = null; clear(); this.draw(); });
  }
}

// Labeled rows on one horizontal axis. `options()` gives {label, log, low, high, rows, empty}; a row has a label and
// draw(svg, x, y), which draws its content.
class RowPlot extends Plot {
  contents(o) {
    return o.rows;
  }

  paint(o) {
    const { host, width } = this;
    const isNarrow = width < 520, pitch = isNarrow ? 42 : 24;
    const longest = Math.max(...o.rows.map((row) => row.label.length));
    const box = { left: isNarrow ? 8 : Math.min(260, 14 + longest * 6.6), right: width - 16, top: 6, bottom: 6 + o.rows.length * pitch };
    const height = box.bottom + 44;
    const svg = put(host, "svg", { class: "plot", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": o.label });
    const x = axis(o.low, o.high, o.log, box.left, box.right);
    for (const [value, label] of x.ticks) {
      put(svg, "path", { class: "grid", d: `M${x(value)},${box.top}V${box.bottom}` });
      put(svg, "text", { x: x(value), y: box.bottom + 17, "text-anchor": "middle" }, label);
    }
    put(svg, "path", { class: "frame", d: `M${box.left},${box.bottom}H${box.right}` });
    put(svg, "text", { class: "axis", x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, o.label);
    o.rows.forEach((row, k) => {
      const y = box.top + (k + (isNarrow ? 0.68 : 0.5)) * pitch;
      const text = isNarrow ? { x: box.left, y: y - 14 } : { x: box.left - 8, y: y + 4, "text-anchor": "end" };
      put(svg, "text", { ...text, class: "axis" }, row.label);
      const group = put(svg, "g");
      row.draw(group, x, y);
      group.addEventListener("pointermove", (event) => showTip(event, [row.label, ...row.tip]));
      group.addEventListener("pointerdown", (event) => showTip(event, [row.label, ...row.tip]));
      group.addEventListener("pointerleave", hideTip);
    });
  }
}
