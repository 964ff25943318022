// Encodes images to files and decodes them with a joint model; implements docs/file-format.md.

import { FileError, LEVEL_STEPS, pack, unpack } from "./bitstream.js";
import { Networks } from "./networks.js";
import { equalChances, Reader, Writer } from "./range_coder.js";
import { HYPER_STRIDE, STRIDE } from "./strides.js";
import { channelTables, KINDS, rint, Windows } from "./tables.js";
import { haloCuts, tiles } from "./tiles.js";
import { Frame } from "./wavefront.js";
import { fingerprint, GraphWeights, readTensors } from "./weights.js";

const ENCODED_POSITIONS = 512; // approximate number of positions whose parameters the encoder computes at a time
export const MAX_PIXELS = 2 ** 24;
const PARTS = {
  entropy_model: ["joint"], transform: ["gdn"], hyper_transform: ["conv"], entropy_network: ["conv"],
  likelihood: ["gaussian", "laplace", "logistic"],
}; // the parts of a model that this page supports
const PLAIN = equalChances(2 ** 16); // 16 bits that are coded without a model

export class Codec {
  /** Load the model that `make web` put beside this file; calls progress(bytes so far, total bytes) meanwhile. */
  static async load(progress) {
    const at = (path) => new URL(path, import.meta.url);
    const get = async (path) => {
      const response = await fetch(at(path));
      if (!response.ok) throw new FileError(`The model does not load (${path}: status ${response.status}). Reload the page.`);
      return response;
    };
    const config = await (await get("model/config.json")).json();
    const graphs = await (await get("graphs/graphs.json")).json();
    const response = await get("model/model.safetensors");
    const total = Number(response.headers.get("Content-Length")) || 14e6; // an estimate if the server does not send the length
    const chunks = [];
    let done = 0;
    const reader = response.body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      chunks.push(part.value);
      done += part.value.length;
      progress(done, Math.max(total, done));
    }
    const codec = new Codec();
    const { rung, ...model } = config.model; // rung is the former name of entropy_model
    codec.config = { entropy_model: rung, ...model };
    for (const [part, known] of Object.entries(PARTS)) {
      const found = codec.config[part] ?? known[0]; // older exports lack some of these entries
      if (!known.includes(found)) throw new FileError(`This page runs models with ${part} ${known.join(" or ")} only, not ${found}. Use the jahp command.`);
    }
    const { tensors, tables } = readTensors(await new Blob(chunks).arrayBuffer());
    codec.tensors = tensors;
    const weights = new GraphWeights(tensors);
    codec.fingerprint = config.fingerprint;
    if (globalThis.crypto?.subtle) {
      const found = await fingerprint(codec.config, tensors, tables, weights.layers);
      if (found !== config.fingerprint) {
        throw new FileError(`The model is damaged: its fingerprint is ${found}, not ${config.fingerprint}. Reload the page.`);
      }
    }
    codec.channels = channelTables(tables);
    codec.windows = new Windows(tables, codec.config.likelihood, codec.config.num_components);
    codec.networks = new Networks(graphs, weights);
    return codec;
  }

  get numLevels() {
    return this.config.num_levels;
  }

  /** Decode a file to its header, pixels (RGB, channel after channel) and latents; calls progress(share) meanwhile. */
  async decode(data, progress = () => {}) {
    const header = unpack(data, MAX_PIXELS);
    if (header.fingerprint !== this.fingerprint) {
      throw new FileError(
        `The file was made with model ${header.fingerprint}; this page has ${this.fingerprint}. Use the jahp command.`,
      );
    }
    const { level } = header;
    if ((level === null) !== (this.numLevels === 1) || (level ?? 0) > (this.numLevels - 1) * LEVEL_STEPS) {
      throw new FileError("The file states a rate level that this model does not have.");
    }
    const [height, width] = [Math.ceil(header.height / STRIDE), Math.ceil(header.width / STRIDE)];
    const reader = new Reader(header.payload);
    const zHat = this.readHyper(reader, Math.ceil(height / HYPER_STRIDE) * Math.ceil(width / HYPER_STRIDE));
    const yHat = await this.readLatents(reader, zHat, height, width, header, (share) => progress(share / 2));
    reader.finish();
    const rgb = await this.synthesize(yHat, height, width, header, (share) => progress((1 + share) / 2));
    return { header, rgb, yHat, zHat };
  }

  /** Read z_hat: `count` integers for each channel. */
  readHyper(reader, count) {
    const zHat = new Int32Array(this.channels.length * count);
    this.channels.forEach(({ partition, lowest, escape }, channel) => {
      const escaped = [];
      for (let index = channel * count; index < (channel + 1) * count; index++) {
        const entry = reader.symbol(partition);
        zHat[index] = entry + lowest;
        if (entry === escape) escaped.push(index);
      }
      for (const index of escaped) {
        const high = reader.symbol(PLAIN);
        zHat[index] = (high << 16) | reader.symbol(PLAIN);
      }
    });
    return zHat;
  }

  /** Write z_hat: `count` integers for each channel. */
  writeHyper(writer, zHat, count) {
    this.channels.forEach(({ partition, lowest, escape }, channel) => {
      const part = zHat.subarray(channel * count, (channel + 1) * count);
      const isInside = (z) => z >= lowest && z < lowest + escape;
      for (const z of part) writer.symbol(isInside(z) ? z - lowest : escape, partition);
      for (const z of part) {
        if (isInside(z)) continue;
        writer.symbol(z >>> 16, PLAIN);
        writer.symbol(z & 0xffff, PLAIN);
      }
    });
  }

  /** Resolves to the frame of an image whose latents range from `lowest` to `highest`. */
  async frame(zHat, height, width, lowest, highest) {
    const frame = new Frame(this, height, width, Math.max(-lowest, highest) > 128);
    await frame.prepare(zHat, this.config.num_filters, height, width);
    return frame;
  }

  /** Return the windows of all latents at `count` positions, by position, then by channel. */
  windowsOf(raw, count) {
    const M = this.config.num_latents;
    const size = raw.length / count;
    return Array.from({ length: count * M }, (_, index) =>
      this.windows.at(raw, Math.floor(index / M) * size, index % M, M),
    );
  }

  /** Resolves to y_hat (M, height, width), read one wavefront at a time. */
  async readLatents(reader, zHat, height, width, { lowest, highest }, progress = () => {}) {
    const M = this.config.num_latents;
    const frame = await this.frame(zHat, height, width, lowest, highest);
    const uniform = highest > lowest ? equalChances(highest - lowest + 1) : null;
    const symbols = new Int32Array(height * width * M);
    for (const { start, stop } of frame.steps) {
      const { values } = await frame.parameters(start, stop);
      const windows = this.windowsOf(values, stop - start);
      const found = symbols.subarray(start * M, stop * M);
      for (let kind = 0; kind < KINDS; kind++) {
        const escaped = [];
        windows.forEach((window, index) => {
          if (window.kind !== kind) return;
          const entry = reader.symbol(window.partition);
          found[index] = window.lowest + entry;
          if (entry === window.partition.length - 2) escaped.push(index);
        });
        for (const index of escaped) found[index] = lowest + (uniform === null ? 0 : reader.symbol(uniform));
      }
      for (const y of found) {
        if (y < lowest || y > highest) throw new FileError("The latents exceed the range that the header states.");
      }
      frame.show(start, found);
      progress(stop / (height * width));
    }
    return this.inRaster(symbols, frame.rank);
  }

  /** Write y_hat (M, height, width), whose values range from `lowest` to `highest`. */
  async writeLatents(writer, yHat, zHat, height, width, lowest, highest, progress = () => {}) {
    const M = this.config.num_latents;
    const frame = await this.frame(zHat, height, width, lowest, highest);
    const uniform = highest > lowest ? equalChances(highest - lowest + 1) : null;
    const symbols = new Int32Array(yHat.length);
    frame.rank.forEach((rank, position) => {
      for (let m = 0; m < M; m++) symbols[rank * M + m] = yHat[m * height * width + position];
    });
    frame.show(0, symbols);
    let first = 0;
    while (first < frame.steps.length) {
      const { start } = frame.steps[first];
      let last = first;
      while (last + 1 < frame.steps.length && frame.steps[last].stop - start < ENCODED_POSITIONS) last++;
      const { values } = await frame.parameters(start, frame.steps[last].stop);
      const windows = this.windowsOf(values, frame.steps[last].stop - start);
      for (; first <= last; first++) {
        const step = frame.steps[first];
        const part = windows.slice((step.start - start) * M, (step.stop - start) * M);
        for (let kind = 0; kind < KINDS; kind++) {
          const escaped = [];
          part.forEach((window, index) => {
            if (window.kind !== kind) return;
            const symbol = symbols[step.start * M + index];
            const escape = window.partition.length - 2;
            const entry = symbol - window.lowest;
            const isInside = entry >= 0 && entry < escape;
            writer.symbol(isInside ? entry : escape, window.partition);
            if (!isInside) escaped.push(symbol);
          });
          if (uniform !== null) for (const symbol of escaped) writer.symbol(symbol - lowest, uniform);
        }
      }
      progress(first / frame.steps.length);
    }
  }

  /** Rearrange latents from coding order to (M, h, w). */
  inRaster(symbols, rank) {
    const M = this.config.num_latents;
    const yHat = new Int32Array(symbols.length);
    rank.forEach((row, position) => {
      for (let m = 0; m < M; m++) yHat[m * rank.length + position] = symbols[row * M + m];
    });
    return yHat;
  }

  /** Return the gains of the M channels at a level (in steps of 1 / 256), interpolated between two levels in logarithms. */
  gains(level, logarithm) {
    const M = this.config.num_latents;
    if (level === null) return new Float32Array(M).fill(1);
    const s = level / LEVEL_STEPS;
    const below = Math.min(Math.floor(s), this.numLevels - 2);
    const t = s - below;
    return Float32Array.from({ length: M }, (_, m) =>
      Math.exp((1 - t) * logarithm(below * M + m) + t * logarithm((below + 1) * M + m)),
    );
  }

  /** Resolves to the image that latents (M, height, width) give with this header: RGB, channel after channel. */
  async synthesize(yHat, height, width, header, progress = () => {}) {
    const M = this.config.num_latents;
    const gain = this.tensors["gains.gain"]?.values;
    const offset = this.tensors["gains.offset"]?.values;
    const gains = this.gains(header.level, (index) => offset[index] - gain[index]);
    const rgb = new Uint8Array(3 * header.width * header.height);
    const pieces = [...tiles(height, width)];
    for (const [index, tile] of pieces.entries()) {
      progress(index / pieces.length);
      const [h, w] = [tile.bottom - tile.top, tile.right - tile.left];
      const seen = new Float32Array(M * h * w);
      for (let m = 0, at = 0; m < M; m++) {
        for (let i = tile.top; i < tile.bottom; i++) {
          for (let j = tile.left; j < tile.right; j++) seen[at++] = yHat[(m * height + i) * width + j] * gains[m];
        }
      }
      const cuts = haloCuts(tile);
      const { values, shape } = await this.networks.run("synthesis", {
        y_hat: ["float32", seen, [1, M, h, w]], starts: ["int64", cuts.starts, [3, 2]], ends: ["int64", cuts.ends, [3, 2]],
      });
      const rows = [tile.row * STRIDE, Math.min((tile.row + tile.rows) * STRIDE, header.height)];
      const columns = [tile.column * STRIDE, Math.min((tile.column + tile.columns) * STRIDE, header.width)];
      for (let c = 0; c < 3; c++) {
        for (let y = rows[0]; y < rows[1]; y++) {
          const from = (c * shape[2] + y - rows[0] + cuts.row) * shape[3] + cuts.column;
          rgb.set(values.subarray(from, from + columns[1] - columns[0]), (c * header.height + y) * header.width + columns[0]);
        }
      }
    }
    if (header.isGray) toGray(rgb, header.width * header.height);
    return rgb;
  }

  /** Apply g_a to an image (RGB, channel after channel); resolves to y before the gains. */
  async analyze(rgb, width, height, progress = () => {}) {
    const M = this.config.num_latents;
    const [h, w] = [Math.ceil(height / STRIDE), Math.ceil(width / STRIDE)];
    const y = new Float32Array(M * h * w);
    const pieces = [...tiles(h, w)];
    for (const [number, tile] of pieces.entries()) {
      progress(number / pieces.length);
      const [rows, columns] = [(tile.bottom - tile.top) * STRIDE, (tile.right - tile.left) * STRIDE];
      const seen = new Uint8Array(3 * rows * columns);
      for (let c = 0, index = 0; c < 3; c++) {
        for (let i = 0; i < rows; i++) {
          const row = (c * height + Math.min(tile.top * STRIDE + i, height - 1)) * width;
          for (let j = 0; j < columns; j++) seen[index++] = rgb[row + Math.min(tile.left * STRIDE + j, width - 1)];
        }
      }
      const { values, shape } = await this.networks.run("analysis", { image: ["uint8", seen, [1, 3, rows, columns]] });
      for (let m = 0; m < M; m++) {
        for (let i = tile.row; i < tile.row + tile.rows; i++) {
          const from = (m * shape[2] + i - tile.top) * shape[3] + tile.column - tile.left;
          y.set(values.subarray(from, from + tile.columns), (m * h + i) * w + tile.column);
        }
      }
    }
    return { y, height: h, width: w };
  }

  /** Encode an analyzed image at a quality from 1 to 100. */
  async encode(analyzed, width, height, isGray, quality, progress = () => {}) {
    const M = this.config.num_latents;
    const level = this.numLevels === 1 ? null : Math.round(((quality - 1) / 99) * (this.numLevels - 1) * LEVEL_STEPS);
    const gain = this.tensors["gains.gain"]?.values;
    const gains = this.gains(level, (index) => gain[index]);
    const { height: h, width: w } = analyzed;
    const y = analyzed.y.map((value, index) => value * gains[Math.floor(index / (h * w))]);
    const z = await this.networks.run("hyper_analysis", { y: ["float32", y, [1, M, h, w]] });
    const yHat = Int32Array.from(y, rint);
    const zHat = Int32Array.from(z.values, rint);
    let [lowest, highest] = [Infinity, -Infinity];
    for (const value of yHat) {
      lowest = Math.min(lowest, value);
      highest = Math.max(highest, value);
    }
    const writer = new Writer();
    this.writeHyper(writer, zHat, zHat.length / this.channels.length);
    await this.writeLatents(writer, yHat, zHat, h, w, lowest, highest, progress);
    const header = { fingerprint: this.fingerprint, width, height, level, lowest, highest, isGray };
    return { data: pack(header, writer.payload()), header, yHat, zHat };
  }
}

/** Replace R, G and B of `count` pixels by their luma. */
export function toGray(rgb, count) {
  for (let index = 0; index < count; index++) {
    const luma = Math.floor((299 * rgb[index] + 587 * rgb[count + index] + 114 * rgb[2 * count + index] + 500) / 1000);
    rgb[index] = rgb[count + index] = rgb[2 * count + index] = luma;
  }
}
