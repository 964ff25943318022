// The range coder of docs/file-format.md. Numbers of 64 bits are pairs of unsigned 32-bit halves in doubles.

import { FileError } from "./bitstream.js";

const WORD = 2 ** 32;
export const TOP = 2 ** 24;

const undecodable = () => new FileError("The payload does not decode with this model; an incompatible program made the file.");

/** Create a partition of 2^24 into n values of equal probability. */
export function equalChances(n) {
  const step = Math.floor(TOP / n);
  const partition = new Uint32Array(n + 1);
  for (let k = 0; k < n; k++) partition[k] = k * step;
  partition[n] = TOP;
  return partition;
}

/** Create a partition of 2^24 in proportion to masses (integers in doubles): n + 1 edges from 0 to 2^24. */
export function partitionOf(masses) {
  const n = masses.length;
  let total = 0;
  for (const mass of masses) total += mass;
  const factor = (TOP - n) / total;
  const partition = new Uint32Array(n + 1);
  let sum = 0;
  for (let k = 0; k < n; k++) {
    partition[k] = Math.floor(sum * factor) + k;
    sum += masses[k];
  }
  partition[n] = TOP;
  return partition;
}

/** Multiply a scale below 2^40 by a number up to 2^24, and return both halves; all intermediate results are exact. */
function multiply(scale, number) {
  const upper = Math.floor(scale / 2 ** 20) * number;
  const low = (upper % 4096) * 2 ** 20 + (scale % 2 ** 20) * number;
  return { high: Math.floor(upper / 4096) + Math.floor(low / WORD), low: low % WORD };
}

/** Split a payload into 32-bit words. */
function words(payload) {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  return Uint32Array.from({ length: payload.length / 4 }, (_, index) => view.getUint32(4 * index, true));
}

/** Reads symbols from a payload, each under the partition with which it was written. */
export class Reader {
  constructor(payload) {
    this.words = words(payload);
    this.position = 0;
    [this.lowerHigh, this.lowerLow] = [0, 0];
    [this.rangeHigh, this.rangeLow] = [WORD - 1, WORD - 1];
    this.pointHigh = this.next();
    this.pointLow = this.next();
  }

  /** Return the next word; 0 after the last one. */
  next() {
    const word = this.position < this.words.length ? this.words[this.position] : 0;
    this.position++;
    return word;
  }

  /** Read the next symbol, an index into the partition. */
  symbol(partition) {
    const scale = this.rangeHigh * 256 + Math.floor(this.rangeLow / TOP); // range >> 24, below 2^40
    let low = this.pointLow - this.lowerLow;
    let high = this.pointHigh - this.lowerHigh;
    if (low < 0) {
      low += WORD;
      high--;
    }
    if (high < 0) high += WORD;
    // The quotient in doubles may be off by one; exact products correct it.
    let q = Math.floor((high * WORD + low) / scale);
    const compare = (number) => {
      const product = multiply(scale, number);
      return high - product.high || low - product.low;
    };
    if (compare(q) < 0) q--;
    else if (compare(q + 1) >= 0) q++;
    if (q >= TOP) throw undecodable();
    let [first, last] = [0, partition.length - 1];
    while (last - first > 1) {
      const middle = (first + last) >> 1;
      if (partition[middle] <= q) first = middle;
      else last = middle;
    }
    const offset = multiply(scale, partition[first]);
    const sumLow = this.lowerLow + offset.low;
    this.lowerLow = sumLow % WORD;
    this.lowerHigh = (this.lowerHigh + offset.high + Math.floor(sumLow / WORD)) % WORD;
    const width = multiply(scale, partition[first + 1] - partition[first]);
    [this.rangeHigh, this.rangeLow] = [width.high, width.low];
    if (this.rangeHigh === 0) {
      [this.lowerHigh, this.lowerLow] = [this.lowerLow, 0];
      [this.rangeHigh, this.rangeLow] = [this.rangeLow, 0];
      [this.pointHigh, this.pointLow] = [this.pointLow, this.next()];
    }
    return first;
  }

  /** Throw FileError if words are left, or the payload does not end as a writer would end it. */
  finish() {
    let low = this.pointLow - this.lowerLow;
    let high = this.pointHigh - this.lowerHigh - (low < 0 ? 1 : 0);
    low = (low + WORD) % WORD;
    high = (high + WORD) % WORD;
    const isUsedUp = this.position >= this.words.length && high * WORD + low < 2 ** 33 - 1;
    if (!isUsedUp) throw undecodable();
  }
}

/** Writes symbols, each under a partition. */
export class Writer {
  constructor() {
    this.words = [];
    [this.lowerHigh, this.lowerLow] = [0, 0];
    [this.rangeHigh, this.rangeLow] = [WORD - 1, WORD - 1];
    this.isEmpty = true;
  }

  /** Append a symbol: an index into the partition. */
  symbol(index, partition) {
    const scale = this.rangeHigh * 256 + Math.floor(this.rangeLow / TOP);
    const offset = multiply(scale, partition[index]);
    const sumLow = this.lowerLow + offset.low;
    this.lowerLow = sumLow % WORD;
    this.lowerHigh += offset.high + Math.floor(sumLow / WORD);
    if (this.lowerHigh >= WORD) {
      this.lowerHigh -= WORD;
      this.carry();
    }
    const width = multiply(scale, partition[index + 1] - partition[index]);
    [this.rangeHigh, this.rangeLow] = [width.high, width.low];
    if (this.rangeHigh === 0) {
      this.words.push(this.lowerHigh);
      [this.lowerHigh, this.lowerLow] = [this.lowerLow, 0];
      [this.rangeHigh, this.rangeLow] = [this.rangeLow, 0];
    }
    this.isEmpty = false;
  }

  /** Add one to the words written so far. */
  carry() {
    let last = this.words.length - 1;
    while (this.words[last] === WORD - 1) this.words[last--] = 0;
    this.words[last]++;
  }

  /** Return all symbols as bytes; the writer cannot be used afterwards. */
  payload() {
    if (!this.isEmpty) {
      // The shortest number within the interval: one word, or two if no single word is within it.
      let point = this.lowerHigh + (this.lowerLow > 0 ? 1 : 0);
      const endLow = this.lowerLow + this.rangeLow;
      const end = this.lowerHigh + this.rangeHigh + Math.floor(endLow / WORD);
      if (point >= WORD) this.carry();
      this.words.push(point % WORD);
      if (end === point) this.words.push(0);
    }
    const bytes = new Uint8Array(4 * this.words.length);
    const view = new DataView(bytes.buffer);
    this.words.forEach((word, index) => view.setUint32(4 * index, word, true));
    return bytes;
  }
}
