// Builds symbol models: a partition for each channel of the hyper-latents, and windows for the latents.

import { partitionOf, TOP } from "./range_coder.js";

/** Half-widths of the windows, by kind. */
const HALVES = [3, 15, 63, 255, 1023];
const KINDS = HALVES.length;
/** Half-widths of the table of the cumulative and of the window, in scales, by family. */
const REACH = { gaussian: [5.5, 4.2], laplace: [18, 10.4], logistic: [18, 11.1] };
const FIXED = 1.5 * 2 ** 52; // doubles near this number have no fraction

/** Round to the nearest integer, ties to even, for magnitudes below 2^51. */
export const rint = (x) => x + FIXED - FIXED;

/** Return for each channel of the hyper-latents: the partition, the integer of its first entry, the escape's index. */
export function channelTables(tables) {
  const found = [];
  let start = 0;
  tables["prior.sizes"].forEach((size, channel) => {
    const partition = partitionOf(Array.from(tables["prior.masses"].subarray(start, start + size)));
    found.push({ partition, lowest: tables["prior.lowest"][channel], escape: size - 1 });
    start += size;
  });
  return found;
}

/** Return the tables for the latents' scales: resolution r, extent and upper half of the cumulative, reach of the window. */
export function scalesOf(tables, family) {
  const [rho, kappa] = REACH[family];
  let origin = 0;
  return Array.from(tables["latents.scales"], (sigma) => {
    let r = 1;
    while (r < 8 && 2 ** r < 32 / sigma) r++;
    const extent = Math.ceil(rho * sigma * 2 ** r);
    const upper = tables["latents.cumulative"].subarray(origin, origin + extent + 1);
    origin += extent + 1;
    return { r, extent, upper, reach: Math.ceil(kappa * sigma) };
  });
}

/** Windows of latents, see docs/file-format.md: { kind, lowest integer, partition }; the last entry is the escape. */
export class Windows {
  constructor(tables, family, numComponents) {
    this.K = numComponents;
    this.thresholds = tables["latents.thresholds"];
    this.exponential = tables["latents.exponential"];
    this.scales = scalesOf(tables, family);
    const last = this.thresholds[this.thresholds.length - 1] + 1;
    this.scaleOfRaw = new Uint8Array(last + 1);
    for (let raw = 0, s = 0; raw <= last; raw++) {
      while (s < this.thresholds.length && this.thresholds[s] < raw) s++;
      this.scaleOfRaw[raw] = s;
    }
    this.made = new Map();
  }

  /** Return the index of the scale for a raw output. */
  scale(raw) {
    return this.scaleOfRaw[Math.min(Math.max(raw, 0), this.scaleOfRaw.length - 1)];
  }

  /** Return the window of channel m; the raw outputs of its position begin at `start`, in blocks of K M. */
  at(raw, start, m, M) {
    return this.K === 1 ? this.single(raw, start, m, M) : this.mixture(raw, start, m, M);
  }

  /** Return the window of a density with one component; tables are cached by scale and phase. */
  single(raw, start, m, M) {
    const s = this.scale(raw[start + m]);
    const { r } = this.scales[s];
    const mean = rint(raw[start + M + m] * 2 ** (r - 12));
    const center = Math.floor(mean * 2 ** -r + 0.5);
    const phase = mean - center * 2 ** r;
    const key = s * 256 + phase + 128;
    let made = this.made.get(key);
    if (made === undefined) {
      made = this.window([{ s, mean: phase, center: 0, weight: 1 }]);
      this.made.set(key, made);
    }
    return { kind: made.kind, lowest: made.lowest + center, partition: made.partition };
  }

  /** Return the window of a mixture. */
  mixture(raw, start, m, M) {
    const { K } = this;
    let largest = -Infinity;
    for (let k = 0; k < K; k++) largest = Math.max(largest, raw[start + (2 * K + k) * M + m]);
    const components = [];
    for (let k = 0; k < K; k++) {
      const s = this.scale(raw[start + k * M + m]);
      const { r } = this.scales[s];
      const mean = rint(raw[start + (K + k) * M + m] * 2 ** (r - 12));
      const gap = largest - raw[start + (2 * K + k) * M + m];
      const weight = this.exponential[Math.min(rint(gap / 64), 1024)];
      components.push({ s, mean, center: Math.floor(mean * 2 ** -r + 0.5), weight });
    }
    return this.window(components);
  }

  /** Return the window that covers all components with enough weight, with its table. */
  window(components) {
    let [low, high] = [Infinity, -Infinity];
    let total = 0;
    for (const { s, center, weight } of components) {
      total += weight;
      if (components.length > 1 && weight < 16) continue;
      low = Math.min(low, center - this.scales[s].reach);
      high = Math.max(high, center + this.scales[s].reach);
    }
    const middle = Math.floor((low + high) / 2);
    let kind = 0;
    while (kind < KINDS - 1 && HALVES[kind] < high - middle) kind++;
    const half = HALVES[kind];
    const masses = new Float64Array(2 * half + 2);
    for (const { s, mean, weight } of components) {
      const { r, extent, upper } = this.scales[s];
      const step = 2 ** r;
      const cumulative = (d) => (d >= 0 ? upper[Math.min(d, extent)] : TOP - upper[Math.min(-d, extent)]);
      let edge = (2 * (middle - half) - 1) * (step / 2) - mean;
      let below = cumulative(edge);
      for (let index = 0; index <= 2 * half; index++) {
        edge += step;
        const above = cumulative(edge);
        masses[index] += weight * Math.max(above - below, 0);
        below = above;
      }
    }
    total *= TOP;
    let inside = 0;
    for (const mass of masses) inside += mass;
    masses[2 * half + 1] = Math.max(total - inside, total * 2 ** -16);
    return { kind, lowest: middle - half, partition: partitionOf(masses) };
  }
}

export { KINDS };
