// Handles latents in coding order: wavefronts, the context of each position, and the parameters computed from it.

import { HYPER_STRIDE } from "./strides.js";
import { rint } from "./tables.js";

const STRIP_POSITIONS = 2 ** 13; // latents for which h_s runs at a time

/**
 * Compute the coding order of a map of latents: the rank of each position; the steps, which are ranges of ranks (start,
 * stop) with equal j + 3 i; and for each rank, the ranks of its twelve context positions plus one, 0 outside the map.
 */
function schedule(height, width) {
  const order = Array.from({ length: height * width }, (_, position) => position);
  const time = (position) => (position % width) + 3 * Math.floor(position / width);
  order.sort((a, b) => time(a) - time(b) || a - b);
  const rank = new Int32Array(height * width);
  order.forEach((position, index) => (rank[position] = index));
  const steps = [];
  order.forEach((position, index) => {
    if (index === 0 || time(position) !== time(order[index - 1])) steps.push({ start: index, stop: index });
    steps[steps.length - 1].stop = index + 1;
  });
  const taps = new Int32Array(12 * order.length); // 0 represents all positions outside
  order.forEach((position, index) => {
    const [i, j] = [Math.floor(position / width), position % width];
    for (let tap = 0; tap < 12; tap++) {
      const [row, column] = [i + Math.floor(tap / 5) - 2, j + (tap % 5) - 2];
      const isInside = row >= 0 && column >= 0 && column < width;
      taps[12 * index + tap] = isInside ? rank[row * width + column] + 1 : 0;
    }
  });
  return { rank, steps, taps };
}

/** Latents of an image in coding order, and the raw parameters that depend on them. `isWide`: latents exceed +-128. */
export class Frame {
  constructor(codec, height, width, isWide) {
    Object.assign(this, schedule(height, width));
    this.networks = codec.networks;
    this.M = codec.config.num_latents;
    const size = (height * width + 1) * this.M;
    this.pieces = isWide ? [new Float32Array(size), new Float32Array(size)] : [new Float32Array(size)];
  }

  /** Run h_s on z_hat (N, hz, wz), some rows at a time. */
  async prepare(zHat, N, height, width) {
    const [hz, wz] = [Math.ceil(height / HYPER_STRIDE), Math.ceil(width / HYPER_STRIDE)];
    const step = Math.max(1, Math.floor(STRIP_POSITIONS / (width * HYPER_STRIDE)));
    for (let first = 0; first < hz; first += step) {
      const [top, bottom] = [Math.max(first - 2, 0), Math.min(first + step + 2, hz)];
      const seen = new Float32Array((bottom - top) * wz * N);
      for (let n = 0; n < N; n++) {
        for (let i = top; i < bottom; i++) {
          for (let j = 0; j < wz; j++) seen[((i - top) * wz + j) * N + n] = zHat[(n * hz + i) * wz + j];
        }
      }
      const { values, shape } = await this.networks.run("hyper_synthesis", { z_hat: ["float32", seen, [bottom - top, wz, N]] });
      this.size = shape[2];
      this.fromPsi ??= new Float32Array(height * width * this.size);
      const stop = Math.min(HYPER_STRIDE * (first + step), height);
      for (let i = HYPER_STRIDE * first; i < stop; i++) {
        for (let j = 0; j < width; j++) {
          const from = ((i - HYPER_STRIDE * top) * shape[1] + j) * this.size;
          this.fromPsi.set(values.subarray(from, from + this.size), this.rank[i * width + j] * this.size);
        }
      }
    }
  }

  /** Resolves to { values }, the raw parameters of the ranks from `start` to before `stop`. */
  async parameters(start, stop) {
    const { M } = this;
    const count = stop - start;
    const inputs = { from_psi: ["float32", this.fromPsi.subarray(start * this.size, stop * this.size), [count, this.size]] };
    const names = this.pieces.length === 1 ? ["latents"] : ["low", "high"];
    this.pieces.forEach((piece, index) => {
      const seen = new Float32Array(count * 12 * M);
      for (let tap = 0; tap < 12 * count; tap++) {
        const row = this.taps[12 * start + tap] * M;
        if (row > 0) seen.set(piece.subarray(row, row + M), tap * M);
      }
      inputs[names[index]] = ["float32", seen, [count, 12 * M]];
    });
    return this.networks.run(this.pieces.length === 1 ? "context" : "context_wide", inputs);
  }

  /** Insert the latents of ranks from `start` on, so that later positions can use them as context. */
  show(start, symbols) {
    const offset = (start + 1) * this.M;
    symbols.forEach((symbol, index) => {
      const high = this.pieces.length === 1 ? 0 : rint(symbol / 256);
      this.pieces[0][offset + index] = symbol - 256 * high;
      if (this.pieces.length === 2) this.pieces[1][offset + index] = high;
    });
  }
}
