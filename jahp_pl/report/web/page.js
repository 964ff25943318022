"use strict";
// The report: shows the data in #data, and reacts to its controls.

const DATA = JSON.parse(document.getElementById("data").textContent);
const METRICS = { psnr: "PSNR (dB)", ms_ssim: "MS-SSIM (dB)" };
const state = { hidden: new Set(), anchor: DATA.anchor, metric: "psnr", method: "cubic", isFocused: DATA.curves.some((c) => c.kind === "model"), isLog: false, image: DATA.image_names[0], model: 0 };
const $ = (id) => document.getElementById(id);
const plots = [];

DATA.curves.forEach((curve, index) => {
  curve.index = index;
  curve.look = { color: `var(--c${index % 8})`, mark: Math.floor(index / 8) % MARKS.length, kind: curve.kind };
});
const shown = () => DATA.curves.filter((curve) => !state.hidden.has(curve.index));
const redraw = () => plots.forEach((plot) => plot.draw());
const bpp = (v) => `${v < 0.1 ? v.toFixed(4) : v.toFixed(3)} bits per pixel`;
const signed = (v, digits = 1) => `${v < 0 ? "−" : "+"}${Math.abs(v).toFixed(digits)}`;

// Remove a section if it has nothing to show; return whether it stays.
function section(id, isThere) {
  if (!isThere) $(id).remove();
  return isThere;
}

// Append a row of buttons of which one is chosen; names are [key, label].
function segments(parent, names, current, choose) {
  const group = put(parent, "div", { class: "segments", role: "group" });
  for (const [key, label] of names) {
    const button = put(group, "button", { type: "button", "aria-pressed": key === current }, label);
    button.addEventListener("click", () => {
      group.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", b === button));
      choose(key);
    });
  }
  return group;
}

// Append a list with a label; entries are [value, text].
function choice(parent, label, entries, current, choose) {
  const wrap = put(parent, "label", {}, label);
  const select = put(wrap, "select");
  for (const [value, text] of entries) put(select, "option", { value, ...(String(value) === String(current) ? { selected: "" } : {}) }, text);
  select.addEventListener("change", () => choose(select.value));
  return select;
}

// The legend, whose entries show and hide curves.
function legend() {
  const bar = put($("legend"), "div");
  const chips = DATA.curves.map((curve) => {
    const chip = put(bar, "button", { class: "chip", type: "button", "aria-pressed": "true", title: "Click: show or hide. Double-click: only this one." });
    swatch(chip, curve.look);
    put(chip, "span", {}, curve.title);
    chip.addEventListener("click", () => { toggle(curve.index); });
    chip.addEventListener("dblclick", () => only((c) => c === curve));
    return chip;
  });
  const sync = () => { chips.forEach((chip, k) => chip.setAttribute("aria-pressed", !state.hidden.has(k))); redraw(); };
  const toggle = (k) => { if (!state.hidden.delete(k)) state.hidden.add(k); sync(); };
  const only = (keep) => { state.hidden = new Set(DATA.curves.filter((c) => !keep(c)).map((c) => c.index)); sync(); };
  const kinds = new Set(DATA.curves.map((c) => c.kind));
  const plain = (label, keep) => put(bar, "button", { class: "chip plain", type: "button" }, label).addEventListener("click", () => only(keep));
  plain("All", () => true);
  if (kinds.has("model") && kinds.size > 1) plain("Models only", (c) => c.kind === "model");
}

// Rate and distortion ------------------------------------------------------------------------------------------------

// Return the points of a curve that have a measure, in the form for LinePlot.
function pairs(curve, points, metric) {
  return points
    .filter((p) => p[metric] !== null)
    .map((p) => ({ x: p.bpp, y: p[metric], tip: [...(p.quality ? [`${curve.knob} ${p.quality}`.trim()] : []), bpp(p.bpp), `${p[metric].toFixed(2)} dB ${METRICS[metric].split(" ")[0]}`] }));
}

// Return the range of rates to show: of all curves, or of the models alone.
function focus(series) {
  const models = series.filter((s) => s.look.kind === "model").flatMap((s) => s.points.map((p) => p.x));
  const all = series.flatMap((s) => s.points.map((p) => p.x));
  if (!all.length) return undefined;
  const low = Math.min(...all), high = Math.max(...all);
  if (state.isFocused && models.length) {
    const top = Math.min(high, 1.35 * Math.max(...models));
    return state.isLog ? [Math.max(low, Math.min(...models) / 1.6), top] : [0, top];
  }
  return state.isLog ? [low / 1.1, high * 1.1] : [0, high * 1.03];
}

// A plot of a measure against the rate; pointsOf(curve) gives the points.
function ratePlot(host, metric, pointsOf) {
  const plot = new LinePlot($(host), () => {
    const series = shown().map((curve) => ({ look: curve.look, label: curve.title, points: pairs(curve, pointsOf(curve), metric) }));
    return {
      x: { label: "Rate (bits per pixel)", log: state.isLog, domain: focus(series) },
      y: { label: METRICS[metric] },
      series,
      empty: `No curve with ${METRICS[metric]} here.`,
    };
  });
  plots.push(plot);
  return plot;
}

function rateDistortion() {
  const both = Object.keys(METRICS).map((metric) => ratePlot(`rd-${metric}`, metric, (curve) => curve.points));
  const reset = () => { plots.forEach((plot) => { plot.zoom = null; }); redraw(); };
  if (DATA.curves.some((c) => c.kind === "model") && DATA.curves.some((c) => c.kind !== "model")) {
    segments($("rd-controls"), [["models", "Rates of the models"], ["all", "All rates"]], "models", (key) => { state.isFocused = key === "models"; reset(); });
  }
  segments($("rd-controls"), [["linear", "Linear"], ["log", "Log"]], "linear", (key) => { state.isLog = key === "log"; reset(); });
  return both;
}

// Rate saved -----------------------------------------------------------------------------------------------------------

function savings() {
  const controls = $("bd-controls");
  const anchors = Object.keys(DATA.bd).map(Number).sort((a, b) => a - b);
  choice(controls, "against", anchors.map((k) => [k, DATA.curves[k].title]), state.anchor, (value) => { state.anchor = +value; table(); redraw(); });
  segments(controls, [["psnr", "PSNR"], ["ms_ssim", "MS-SSIM"]], state.metric, (key) => { state.metric = key; table(); plot.zoom = null; redraw(); });
  const plot = new LinePlot($("savings"), () => {
    const grid = DATA.savings[state.metric];
    const base = grid.rates[state.anchor];
    const series = shown().filter((curve) => curve.index !== state.anchor && base).map((curve) => {
      const rates = grid.rates[curve.index];
      const points = [];
      let isGap = false;
      if (rates) rates.forEach((rate, k) => {
        if (rate === null || base[k] === null) { isGap = true; return; }
        const saved = 100 * (1 - rate / base[k]), quality = grid.start + k * grid.step;
        points.push({ x: quality, y: saved, gap: isGap, tip: [`at ${quality.toFixed(1)} dB`, `${saved.toFixed(1)} % of the bits ${saved < 0 ? "more" : "saved"}`, `${bpp(rate)} instead of ${base[k].toFixed(3)}`] });
        isGap = false;
      });
      return { look: curve.look, label: curve.title, points, marks: false };
    });
    const lows = series.flatMap((s) => s.points.map((p) => p.y));
    const worst = Math.max(-150, Math.min(0, ...lows)), best = Math.max(0, ...lows), pad = (best - worst) * 0.05 || 1;
    return {
      x: { label: `Quality: ${METRICS[state.metric]}` },
      y: { label: "Bits saved (%)", zero: true, domain: [worst - pad, best + pad] },
      series,
      empty: "No curve shares qualities with the anchor.",
    };
  });
  plots.push(plot);
  table();
}

// The table of BD-rates against the anchor, best first.
function table() {
  const anchor = DATA.curves[state.anchor];
  $("bd-lead").textContent = `BD-rate: how much more (+) or less (−) rate a curve needs than ${anchor.title} at equal ${METRICS[state.metric].split(" ")[0]}, on average over the whole range of qualities that both reach, by three interpolations of log rate over dB.`;
  const host = $("bd-table");
  host.replaceChildren();
  const head = put(put(host, "thead"), "tr");
  ["Curve", "", ...Object.values(DATA.methods).map((m) => `${m} %`), "over, dB"].forEach((text, k) => put(head, "th", k === 1 ? { class: "bar" } : {}, text));
  const body = put(host, "tbody");
  const rows = DATA.bd[state.anchor][state.metric].map((entry, index) => ({ entry, curve: DATA.curves[index] })).filter((row) => row.curve.index !== state.anchor);
  const value = (row) => row.entry.cubic ?? row.entry.pchip ?? Infinity;
  rows.sort((a, b) => value(a) - value(b));
  const widest = Math.max(1, ...rows.map(value).filter(Number.isFinite).map((v) => Math.min(100, Math.abs(v))));
  for (const { entry, curve } of rows) {
    const line = put(body, "tr");
    const name = put(line, "td", { class: "name" });
    swatch(name, curve.look);
    name.append(curve.title);
    const bar = put(put(line, "td", { class: "bar" }), "span", { class: "bar" });
    const first = value({ entry });
    if (Number.isFinite(first)) {
      const size = (Math.min(100, Math.abs(first)) / widest) * 50;
      put(bar, "i", { style: `width:${size}%;${first < 0 ? `right:50%;background:var(--good)` : `left:50%;background:var(--bad)`}` });
    }
    for (const method of Object.keys(DATA.methods)) {
      const v = entry[method];
      if (v === null && entry.low === null) continue;
      const cell = put(line, "td", v === null ? {} : { class: v < 0 ? "gain" : "loss" }, v === null ? "–" : signed(v, 2));
      cell.title = v === null ? entry.why : "";
      if (method === "cubic" && entry.spread) put(cell, "small", { title: "smallest and largest of any seed" }, entry.spread.map((s) => signed(s, 1)).join(" … "));
    }
    if (entry.low === null) put(line, "td", { class: "why", colspan: 4 }, entry.why);
    else put(line, "td", {}, `${entry.low.toFixed(1)}–${entry.high.toFixed(1)}`);
  }
}

// Pictures at equal rate -----------------------------------------------------------------------------------------------

// Two pictures of one image, one on top of the other, with a divider to drag.
function comparison() {
  if (!section("compare", DATA.compare.length > 0)) return;
  const view = { image: 0, left: "original", right: null, cut: 50, zoom: "fit" };
  const controls = $("compare-controls"), viewer = $("viewer");
  if (DATA.compare.length > 1) choice(controls, "Image", DATA.compare.map((c, k) => [k, c.name]), 0, (value) => { view.image = +value; show(); });
  segments(controls, [["fit", "Fit"], ["1", "1:1"], ["2", "2:1"], ["4", "4:1"]], "fit", (key) => { view.zoom = key; size(); });
  const sides = put(viewer, "div", { class: "sides" });
  const parts = ["left", "right"].map((side) => {
    const host = put(sides, "div");
    const select = put(put(host, "label"), "select", { "aria-label": `On the ${side}` });
    select.addEventListener("change", () => { view[side] = select.value; show(); });
    return { side, select, facts: put(host, "div", { class: "facts" }) };
  });
  const stage = put(viewer, "div", { class: "stage" });
  const sheet = put(stage, "div", { class: "sheet" });
  const right = put(sheet, "img", { alt: "", draggable: "false" }), left = put(sheet, "img", { alt: "", draggable: "false" });
  const range = put(sheet, "input", { type: "range", min: 0, max: 100, step: 0.1, value: 50, "aria-label": "Where the left picture ends" });
  const edge = put(sheet, "div", { class: "edge" });
  const cut = () => { left.style.clipPath = `inset(0 ${100 - view.cut}% 0 0)`; edge.style.left = `${view.cut}%`; };
  range.addEventListener("input", () => { view.cut = +range.value; cut(); });
  const size = () => {
    const entry = DATA.compare[view.image];
    const room = stage.clientWidth;
    const scale = view.zoom === "fit" ? Math.min(room / entry.width, Math.max(1, (0.84 * innerHeight) / entry.height), 2) : +view.zoom;
    sheet.style.width = `${Math.floor(entry.width * scale)}px`;
    sheet.style.height = `${Math.floor(entry.height * scale)}px`;
    sheet.classList.toggle("big", scale >= 2);
  };
  const show = () => {
    const entry = DATA.compare[view.image];
    const has = (key) => key === "original" || entry.items.some((item) => String(item.curve) === key);
    if (!has(view.left)) view.left = "original";
    if (view.right === null || !has(view.right)) view.right = String((entry.items.findLast((item) => DATA.curves[item.curve].kind === "model") || entry.items[0]).curve);
    for (const { side, select, facts } of parts) {
      select.replaceChildren();
      put(select, "option", { value: "original" }, "Original");
      for (const item of entry.items) put(select, "option", { value: item.curve }, DATA.curves[item.curve].title);
      select.value = view[side];
      const item = entry.items.find((i) => String(i.curve) === view[side]);
      (side === "left" ? left : right).src = item ? item.source : entry.source;
      const off = item ? 100 * (item.bpp / entry.bpp - 1) : 0;
      facts.textContent = item
        ? [`${item.bpp.toFixed(3)} bpp${Math.abs(off) >= 3 ? ` (${signed(off, 0)} %)` : ""}`, `${item.psnr.toFixed(2)} dB PSNR`, ...(item.ms_ssim === null ? [] : [`${item.ms_ssim.toFixed(2)} dB MS-SSIM`])].join(" · ")
        : "24 bits per pixel";
    }
    $("compare-lead").textContent = `${entry.name}, ${entry.width} × ${entry.height} pixels, ${entry.why}. Every file is the one nearest to ${entry.bpp.toFixed(3)} bits per pixel. Drag the divider, or move it with the arrow keys.`;
    size();
    cut();
  };
  new ResizeObserver(size).observe(stage);
  show();
}

// Image by image, rates, times -----------------------------------------------------------------------------------------

// Rate and distortion of one image at a time.
function imageByImage() {
  if (!section("each", DATA.image_names.length > 0 && DATA.curves.some((c) => Object.keys(c.images).length))) return;
  const names = DATA.image_names, controls = $("each-controls");
  const go = (step) => { const k = (names.indexOf(state.image) + step + names.length) % names.length; select.value = state.image = names[k]; draw(); };
  const back = put(controls, "button", { type: "button", "aria-label": "Previous image" }, "‹");
  const select = choice(controls, "", names.map((n) => [n, n]), state.image, (value) => { state.image = value; draw(); });
  const on = put(controls, "button", { type: "button", "aria-label": "Next image" }, "›");
  const both = Object.keys(METRICS).map((metric) => ratePlot(`each-${metric}`, metric, (curve) => curve.images[state.image] || []));
  const draw = () => both.forEach((plot) => { plot.zoom = null; plot.draw(); });
  back.addEventListener("click", () => go(-1));
  on.addEventListener("click", () => go(1));
}

const RATE_PARTS = { y: ["latents y", "var(--c0)"], z: ["hyper-latents z", "var(--c4)"], header: ["header", "var(--c1)"], coder: ["range coder", "var(--c7)"] };

// How each model's bits are divided among parts of the file and among channels.
function rates() {
  const models = DATA.curves.filter((curve) => curve.points.some((p) => p.rate));
  if (!section("rates", models.length > 0)) return;
  state.model = models.at(-1).index;
  const keys = put($("split").parentNode, "div", { class: "keys" });
  $("split").before(keys);
  for (const [label, color] of Object.values(RATE_PARTS)) { const key = put(keys, "span"); put(key, "i", { style: `background:${color}` }); key.append(label); }
  plots.push(new RowPlot($("split"), () => {
    const rows = shown().flatMap((curve) => curve.points.filter((p) => p.rate).map((p) => ({
      label: `${curve.title}${p.quality ? `, ${p.quality}` : ""}`,
      tip: [...Object.entries(RATE_PARTS).map(([part, [label]]) => `${label}: ${p.rate[part].toFixed(4)} bpp, ${((100 * p.rate[part]) / p.bpp).toFixed(2)} %`), `all: ${p.bpp.toFixed(4)} bpp`],
      draw: (group, x, y) => {
        let at = 0;
        for (const [part, [, color]] of Object.entries(RATE_PARTS)) {
          const width = Math.max(0, x(at + Math.max(0, p.rate[part])) - x(at));
          put(group, "rect", { x: x(at), y: y - 7, width, height: 14, fill: color });
          at += Math.max(0, p.rate[part]);
        }
      },
    })));
    const top = Math.max(0.001, ...models.flatMap((curve) => curve.points.filter((p) => p.rate).map((p) => p.bpp)));
    return { label: "Rate (bits per pixel)", low: 0, high: top * 1.02, rows, empty: "No model is shown." };
  }));
  const withChannels = models.filter((curve) => curve.points.some((p) => p.channels));
  const plot = new LinePlot($("channels"), () => {
    const curve = DATA.curves[state.model];
    const points = curve.points.filter((p) => p.channels);
    const series = points.flatMap((p, k) => ["y", "z"].map((part) => ({
      look: { ...curve.look, kind: "model" },
      opacity: 0.35 + (0.65 * (k + 1)) / points.length,
      label: `${part}, ${p.quality || bpp(p.bpp)}`,
      dash: part === "y" ? "" : "5 4",
      marks: false,
      points: p.channels[part].filter((v) => v > 1e-6).map((v, n) => ({ x: n + 1, y: v, tip: [`channel ${n + 1} of ${p.channels[part].length}`, `${v.toPrecision(3)} bits per pixel`, `${((100 * v) / p.bpp).toFixed(2)} % of the file`] })),
    })));
    return { x: { label: "Channel, sorted (solid: y, dashed: z)" }, y: { label: "Bits per pixel", log: true }, series };
  });
  plots.push(plot);
  if (withChannels.length > 1) choice($("rates-controls"), "Channels of", withChannels.map((c) => [c.index, c.title]), state.model, (value) => { state.model = +value; plot.zoom = null; plot.draw(); });
}

// Median times to encode and to decode; bars span the settings of a curve.
function times() {
  const timed = DATA.curves.filter((curve) => curve.points.some((p) => p.seconds));
  if (!section("times", timed.length > 0)) return;
  const brief = (s) => (s < 0.1 ? `${(1000 * s).toPrecision(2)} ms` : `${s.toPrecision(2)} s`);
  plots.push(new RowPlot($("time-plot"), () => {
    const rows = shown().filter((curve) => timed.includes(curve)).map((curve) => {
      const ways = [0, 1].map((k) => curve.points.filter((p) => p.seconds).map((p) => Math.max(1e-4, p.seconds[k])).sort((a, b) => a - b));
      const middle = (all) => all[Math.floor(all.length / 2)];
      return {
        label: curve.title,
        tip: [...ways.map((all, k) => `${k ? "decode" : "encode"} ${brief(middle(all))}${all.length > 1 ? ` (${brief(all[0])} to ${brief(all.at(-1))})` : ""}`), curve.source],
        draw: (group, x, y) => {
          const ends = ways.flat().map(x);
          put(group, "rect", { x: Math.min(...ends) - 10, y: y - 11, width: Math.max(...ends) - Math.min(...ends) + 20, height: 22, fill: "transparent" });
          ways.forEach((all, k) => {
            const at = y + (k ? 4.5 : -4.5);
            put(group, "path", { d: `M${x(all[0])},${at}H${x(all.at(-1))}`, stroke: curve.look.color, "stroke-width": 6, "stroke-linecap": "round", "stroke-opacity": 0.28 });
            put(group, "path", { d: MARKS[k](4), transform: `translate(${x(middle(all))},${at})`, fill: k ? "var(--card)" : curve.look.color, stroke: curve.look.color, "stroke-width": 2 });
          });
        },
      };
    });
    const all = timed.flatMap((c) => c.points.flatMap((p) => p.seconds || [])).map((s) => Math.max(1e-4, s));
    return { label: "Seconds per image (log)", log: true, low: Math.min(...all) / 1.6, high: Math.max(...all) * 1.6, rows };
  }));
}

// The source of each curve.
function sources() {
  const host = $("source-table"), body = put(host, "tbody");
  for (const curve of DATA.curves) {
    const row = put(body, "tr");
    const name = put(row, "td", { class: "name" });
    swatch(name, curve.look);
    name.append(curve.title);
    put(row, "td", { class: "long" }, `${{ model: "coded here to real files", classical: "coded here", published: "as published" }[curve.kind]}${curve.source ? `: ${curve.source}` : ""}`);
  }
}

document.title = DATA.title;
$("title").textContent = DATA.title;
$("subtitle").textContent = DATA.subtitle;
$("footer").textContent = DATA.footer;
legend();
rateDistortion();
savings();
comparison();
imageByImage();
rates();
times();
sources();
redraw();
document.documentElement.dataset.ready = "yes";
