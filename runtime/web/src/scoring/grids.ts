/** Maps on coarser grids: as the Gaussian process compares masks, and as the error of a map is estimated. */
import { type Matrix, matrix, product, transposed } from "./linear_algebra";
import type { Maps } from "./upsampling";

const BLUR = 0.7;
const BLUR_ENDS = 1e-4;
const MASK_GRID = 14; // cells a side; finer masks are averaged down to it
const ERROR_GRID = 7; // the same of the maps drawn for the estimate

/** phi = G (sign(s) sqrt|s|), at most 14 cells a side: [L, d]. */
export function smoothed(masks: Maps): Matrix {
  const rooted = Float64Array.from(masks.data, (value) => Math.sign(value) * Math.sqrt(Math.abs(value)));
  return along(rooted, masks, smoothing(masks.height), smoothing(masks.width));
}

/** Averages over at most 7 cells a side: [L, d]. */
export function pooled(maps: Maps): Matrix {
  return along(maps.data, maps, pooling(maps.height, ERROR_GRID), pooling(maps.width, ERROR_GRID));
}

/** rows A columns' for every map A: [count, rows.rows * columns.rows]. */
function along(data: ArrayLike<number>, { count, height, width }: Maps, rows: Matrix, columns: Matrix): Matrix {
  const out = matrix(count, rows.rows * columns.rows);
  const right = transposed(columns);
  for (let k = 0; k < count; k++) {
    const map = matrix(height, width);
    for (let i = 0; i < height * width; i++) map.data[i] = data[k * height * width + i];
    out.data.set(product(product(rows, map), right).data, k * out.columns);
  }
  return out;
}

/** Blur by 0.7 cells, of the coarser grid where there is one: [min(size, 14), size]. */
function smoothing(size: number): Matrix {
  const pool = pooling(size, MASK_GRID);
  const blur = matrix(pool.rows, pool.rows);
  for (let i = 0; i < pool.rows; i++) {
    let total = 0;
    for (let j = 0; j < pool.rows; j++) {
      const value = Math.exp(-((i - j) ** 2) / (2 * BLUR ** 2));
      blur.data[i * pool.rows + j] = value < BLUR_ENDS ? 0 : value;
      total += blur.data[i * pool.rows + j];
    }
    for (let j = 0; j < pool.rows; j++) blur.data[i * pool.rows + j] /= total;
  }
  return product(blur, pool);
}

/** Averages over equal parts of an axis, [min(size, largest), size]; the identity where they are cells. */
function pooling(size: number, largest: number): Matrix {
  const parts = Math.min(size, largest);
  const pool = matrix(parts, size);
  for (let part = 0; part < parts; part++) {
    const [first, last] = [(part * size) / parts, ((part + 1) * size) / parts];
    for (let cell = 0; cell < size; cell++) {
      const overlap = Math.min(last, cell + 1) - Math.max(first, cell);
      pool.data[part * size + cell] = Math.max(overlap, 0) * (parts / size);
    }
  }
  return pool;
}
