// Cuts a map of latents into overlapping tiles, so that the transforms need little memory.

const TILE = 24; // longest side of a tile in latents, without its halo
const HALO = 2; // latents around a tile that are computed and discarded

/**
 * Divide a map into tiles. `row`, `column`, `rows` and `columns` describe the part that a tile provides; the tile is
 * computed from the latents in [top, bottom) x [left, right).
 */
export function* tiles(height, width) {
  const pieces = (length) => {
    const number = Math.ceil(length / TILE);
    const size = Math.ceil(length / number);
    return Array.from({ length: Math.ceil(length / size) }, (_, index) => [index * size, Math.min(size, length - index * size)]);
  };
  for (const [row, rows] of pieces(height)) {
    for (const [column, columns] of pieces(width)) {
      yield {
        row, rows, column, columns,
        top: Math.max(row - HALO, 0), bottom: Math.min(row + rows + HALO, height),
        left: Math.max(column - HALO, 0), right: Math.min(column + columns + HALO, width),
      };
    }
  }
}

const REACH = [2, 2, 1]; // number of positions around a tile on which its samples depend, after each layer of g_s but the last
const TO_END = 2n ** 31n; // end of a slice that reaches to the end of its axis

/** Return what g_s must cut off a tile after each layer but the last, and the tile's place in the result. */
export function haloCuts({ row, rows, column, columns, top, bottom, left, right }) {
  const cutsOf = (halo) => {
    const cuts = [];
    for (const reach of REACH) {
      const kept = halo.map((size) => Math.min(2 * size, reach));
      cuts.push(...halo.map((size, axis) => 2 * size - kept[axis]));
      halo = kept;
    }
    return { cuts, halo };
  };
  const before = cutsOf([row - top, column - left]);
  const after = cutsOf([bottom - row - rows, right - column - columns]);
  return {
    starts: BigInt64Array.from(before.cuts, BigInt),
    ends: BigInt64Array.from(after.cuts, (size) => (size === 0 ? TO_END : BigInt(-size))),
    row: 2 * before.halo[0], column: 2 * before.halo[1],
  };
}
