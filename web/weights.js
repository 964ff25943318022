// Reads an export: its tensors in float32, and the integers to which h_s, g_cm and g_ep are converted.

import { FileError } from "./bitstream.js";
import { rint, scalesOf } from "./tables.js";

const TYPES = { F32: Float32Array, F64: Float64Array, I32: Int32Array, I8: Int8Array, BF16: Uint16Array };

/** Read the tensors of a .safetensors file, by name: { shape, values }; values are float32, those of tables doubles. */
export function readTensors(buffer) {
  const view = new DataView(buffer);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const raw = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const Type = TYPES[entry.dtype];
    if (Type === undefined) throw new FileError(`The model has a tensor of type ${entry.dtype}, which this page does not read.`);
    const [start, stop] = entry.data_offsets;
    raw[name] = { shape: entry.shape, type: entry.dtype, values: new Type(buffer.slice(8 + length + start, 8 + length + stop)) };
  }
  const tensors = {};
  const tables = {};
  for (const [name, { shape, type, values }] of Object.entries(raw)) {
    if (name.startsWith("tables.")) {
      tables[name.slice(7)] = Float64Array.from(values);
    } else if (!name.endsWith(".exponent")) {
      tensors[name] = { shape, values: toFloats(type, shape, values, raw[`${name}.exponent`]) };
    }
  }
  return { tensors, tables };
}

/** Convert stored values of a type to float32; integers are multiplied by powers of two with these exponents. */
function toFloats(type, shape, values, exponents) {
  if (type === "BF16") {
    return new Float32Array(Uint32Array.from(values, (half) => half << 16).buffer);
  }
  const floats = Float32Array.from(values);
  if (exponents !== undefined) {
    // Weights that differ only in their second index share an exponent.
    const inner = shape.slice(2).reduce((a, b) => a * b, 1);
    for (let index = 0; index < floats.length; index++) {
      const row = Math.floor(index / (shape[1] * inner));
      floats[index] *= 2 ** exponents.values[row * inner + (index % inner)];
    }
  }
  return floats;
}

/** Rearrange weights of a convolution, (out, in, ...), or (in, out, ...) if transposed, to (taps, in, out), taps in raster order. */
function byTap({ shape, values }, isTransposed) {
  const [first, second] = shape;
  const numTaps = shape.slice(2).reduce((a, b) => a * b, 1);
  const [numIn, numOut] = isTransposed ? [first, second] : [second, first];
  const weights = new Float32Array(values.length);
  for (let a = 0; a < first; a++) {
    for (let b = 0; b < second; b++) {
      const [i, o] = isTransposed ? [a, b] : [b, a];
      for (let tap = 0; tap < numTaps; tap++) {
        weights[(tap * numIn + i) * numOut + o] = values[(a * second + b) * numTaps + tap];
      }
    }
  }
  return { weights, numTaps, numIn, numOut };
}

/** Convert a layer to integers, see "Weights" in docs/file-format.md. */
function toIntegers({ weights, numTaps, numIn, numOut }, bias, slope, largestInput = 2 ** 10) {
  const room = Math.floor(2 ** 24 / largestInput) - Math.floor(numIn / 2) - 1;
  const grid = new Float32Array(numOut);
  for (let o = 0; o < numOut; o++) {
    let largest = 0;
    for (let tap = 0; tap < numTaps; tap++) {
      let sum = 0;
      for (let i = 0; i < numIn; i++) sum += Math.abs(weights[(tap * numIn + i) * numOut + o]);
      largest = Math.max(largest, sum);
    }
    let power = largest === 0 ? 1 : 2 ** -32;
    while (largest !== 0 && power <= largest / room) power *= 2;
    grid[o] = power;
  }
  const integers = new Float32Array(weights.length);
  for (let index = 0; index < weights.length; index++) {
    const exact = weights[index] / grid[index % numOut];
    integers[index] = rint(exact) || (1 / exact < 0 ? -0 : 0); // the fingerprint depends on the sign of a zero
  }
  return { weight: integers, numTaps, numIn, numOut, bias: bias ?? new Float32Array(numOut), grid, slope };
}

/** Convert the layers of h_s, g_cm and g_ep of a joint model to integers; the result has them by their names in the graphs. */
function integerLayers(tensors) {
  const layer = (name, slope, isTransposed = false) =>
    toIntegers(byTap(tensors[`${name}.weight`], isTransposed), tensors[`${name}.bias`].values, slope);
  const g_cm = byTap(tensors["g_cm.weight"], false); // only the unmasked taps are stored
  const joined = { ...g_cm, numTaps: 1, numIn: g_cm.numTaps * g_cm.numIn };
  const first = byTap(tensors["g_ep.0.weight"], false);
  const numPsi = first.numIn - g_cm.numOut;
  const part = (start, stop) => ({
    ...first, numIn: stop - start, weights: first.weights.slice(start * first.numOut, stop * first.numOut),
  });
  return {
    "h_s.0": layer("h_s.0", 0.01, true),
    "h_s.1": layer("h_s.2", 0.01, true),
    "h_s.2": layer("h_s.4", 1),
    g_cm: toIntegers(joined, tensors["g_cm.bias"].values, 1, 2 ** 7),
    "g_ep.0": toIntegers(part(numPsi, first.numIn), null, 0.01),
    "g_ep.1": layer("g_ep.2", 0.01),
    "g_ep.2": layer("g_ep.4", 1),
    "g_ep.psi": toIntegers(part(0, numPsi), tensors["g_ep.0.bias"].values, 1),
  };
}

/** Compute beta or gamma in GDN's equation from the stored parameter. */
function normalization({ values }, bound) {
  const least = Math.fround(Math.sqrt(bound + 2 ** -36));
  return values.map((value) => Math.fround(Math.max(value, least) ** 2) - 2 ** -36);
}

/** Select the taps of a 5x5 transposed convolution of stride 2 that reach outputs of one parity of row and column. */
function parityKernel({ shape, values }, row, column) {
  const [numIn, numOut] = shape;
  const rows = row ? [3, 1] : [4, 2, 0];
  const columns = column ? [3, 1] : [4, 2, 0];
  const kernel = new Float32Array(numOut * numIn * rows.length * columns.length);
  let index = 0;
  for (let o = 0; o < numOut; o++) {
    for (let i = 0; i < numIn; i++) {
      for (const k of rows) for (const l of columns) kernel[index++] = values[((i * numOut + o) * 5 + k) * 5 + l];
    }
  }
  return kernel;
}

/** Combine all four parities into 3x3 kernels, filled with zeros: (4 out, in, 3, 3), out outermost. */
function wholeKernel(tensor) {
  const [numIn, numOut] = tensor.shape;
  const kernel = new Float32Array(numOut * 4 * numIn * 9);
  for (const row of [0, 1]) {
    for (const column of [0, 1]) {
      const part = parityKernel(tensor, row, column);
      let index = 0;
      for (let o = 0; o < numOut; o++) {
        for (let i = 0; i < numIn; i++) {
          for (let k = row; k < 3; k++) {
            for (let l = column; l < 3; l++) {
              kernel[(((o * 4 + 2 * row + column) * numIn + i) * 3 + k) * 3 + l] = part[index++];
            }
          }
        }
      }
    }
  }
  return kernel;
}

/** Weights of all graphs, by the names in graphs.json. */
export class GraphWeights {
  constructor(tensors) {
    this.tensors = tensors;
    this.layers = integerLayers(tensors);
  }

  /** Return a weight of a graph as a typed array. */
  get(name) {
    const { tensors, layers } = this;
    const [, head, tail] = name.match(/^(.*)\.([^.]+)$/) ?? [null, "", name];
    const layer = layers[head];
    if (layer !== undefined) {
      const size = layer.numIn * layer.numOut;
      if (tail === "bias") return layer.bias;
      if (tail === "grid") return layer.grid;
      if (tail === "grid256") return layer.grid.map((value) => 256 * value);
      if (tail.startsWith("tap")) return layer.weight.subarray(Number(tail.slice(3)) * size).subarray(0, size);
    }
    if (tail === "beta") return normalization(tensors[name], 1e-6);
    if (tail === "gamma") return normalization(tensors[name], 0);
    if (name.startsWith("g_s.")) {
      if (tail === "bias") {
        const bias = tensors[name].values;
        return head === this.lastOfSynthesis() ? Float32Array.from({ length: 4 * bias.length }, (_, i) => bias[i >> 2]) : bias;
      }
      if (/^g_s\.\d+$/.test(head)) return parityKernel(tensors[`${head}.weight`], Number(tail[0]), Number(tail[1]));
      return wholeKernel(tensors[`${name}.weight`]);
    }
    if (tail === "bias") return tensors[name].values;
    return tensors[`${name}.weight`].values;
  }

  /** Name of the last convolution of g_s. */
  lastOfSynthesis() {
    const positions = Object.keys(this.tensors).filter((name) => /^g_s\.\d+\.weight$/.test(name));
    return `g_s.${Math.max(...positions.map((name) => Number(name.split(".")[1])))}`;
  }
}

/** Compute the fingerprint of a model as 16 hexadecimal digits, see docs/file-format.md. */
export async function fingerprint(config, tensors, tables, layers) {
  const { entropy_model, num_filters, num_latents, likelihood, num_components, transform, num_levels } = config;
  const words = [`'${entropy_model}'`, num_filters, num_latents, `'${likelihood}'`, num_components];
  if (transform !== "gdn") words.push(`'${transform}'`);
  if (num_levels > 1) words.push("'levels'", num_levels);
  const parts = [new TextEncoder().encode(`(${words.join(", ")})`)];
  const add = (array) => parts.push(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
  for (let position = 0; position < 7; position++) {
    const names = position % 2 === 0 ? ["weight", "bias"] : ["beta", "gamma"];
    for (const name of names) add(tensors[`g_s.${position}.${name}`].values);
  }
  if (num_levels > 1) for (const name of ["gains.gain", "gains.offset"]) add(tensors[name].values);
  add(tables["prior.lowest"]);
  add(tables["prior.masses"]);
  add(tables["latents.scales"]);
  add(tables["latents.thresholds"]);
  for (const { extent, upper } of scalesOf(tables, likelihood)) {
    const both = new Float64Array(2 * extent + 1);
    for (let d = 0; d <= extent; d++) {
      both[extent - d] = 2 ** 24 - upper[d];
      both[extent + d] = upper[d];
    }
    add(both);
  }
  add(tables["latents.exponential"]);
  for (const name of ["h_s.0", "h_s.1", "h_s.2", "g_cm", "g_ep.0", "g_ep.1", "g_ep.2", "g_ep.psi"]) {
    const { weight, bias, grid, slope } = layers[name];
    for (const array of [weight, bias, grid, Float64Array.of(slope)]) add(array);
  }
  const digest = await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer());
  return Array.from(new Uint8Array(digest, 0, 8), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
