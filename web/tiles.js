// Cuts a map of latents into overlapping tiles, so that the transforms need little memory.

const TILE = 24; // longest side of a tile in latents, without its halo
const HALO = 2; // latents around a tile that are computed and discarded

/** Tiles of a map: row, column, rows and columns are the part that a tile provides; it is computed from [top, bottom) x [left, right). */
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
