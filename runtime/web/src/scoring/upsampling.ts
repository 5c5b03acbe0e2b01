/** Bilinear upsampling as two small matrices, and the exact range of an upsampled map without upsampling it. */

/** A stack of maps: `data` is [count, height, width], row by row. */
export interface Maps {
  readonly data: Float32Array;
  readonly count: number;
  readonly height: number;
  readonly width: number;
}

/** Left neighbour of every output and weight of the right one: half-pixel centres, clamped at the borders. */
function taps(sizeIn: number, sizeOut: number): { left: number[]; weight: number[] } {
  const positions = Array.from({ length: sizeOut }, (_, i) =>
    Math.min(Math.max((i + 0.5) * (sizeIn / sizeOut) - 0.5, 0), sizeIn - 1),
  );
  const left = positions.map(Math.floor);
  return { left, weight: positions.map((position, i) => position - left[i]) };
}

/**
 * The matrix R with U = R A along one axis: bilinear, half-pixel centres (`align_corners=False`).
 *
 * @returns float32 [sizeOut, sizeIn]
 */
export function bilinearMatrix(sizeIn: number, sizeOut: number): Float32Array {
  const { left, weight } = taps(sizeIn, sizeOut);
  const matrix = new Float64Array(sizeOut * sizeIn);
  for (let row = 0; row < sizeOut; row++) {
    matrix[row * sizeIn + left[row]] += 1 - weight[row];
    matrix[row * sizeIn + Math.min(left[row] + 1, sizeIn - 1)] += weight[row];
  }
  return Float32Array.from(matrix);
}

/**
 * U(map) of one map: float [h, w] -> float64 [height, width].
 *
 * A row of the matrix has two entries that are not zero, so only these are looked at.
 */
export function upsample(
  map: Float32Array | Float64Array,
  size: { height: number; width: number },
  to: { height: number; width: number },
): Float64Array {
  const rows = bilinearMatrix(size.height, to.height);
  const columns = bilinearMatrix(size.width, to.width);
  const left = taps(size.width, to.width).left;
  const top = taps(size.height, to.height).left;
  const across = new Float64Array(size.height * to.width);
  for (let y = 0; y < size.height; y++) {
    for (let x = 0; x < to.width; x++) {
      const a = left[x];
      const b = Math.min(a + 1, size.width - 1);
      const right = b === a ? 0 : columns[x * size.width + b] * map[y * size.width + b];
      across[y * to.width + x] = columns[x * size.width + a] * map[y * size.width + a] + right;
    }
  }
  const out = new Float64Array(to.height * to.width);
  for (let y = 0; y < to.height; y++) {
    const a = top[y];
    const b = Math.min(a + 1, size.height - 1);
    const upper = rows[y * size.height + a];
    const lower = b === a ? 0 : rows[y * size.height + b];
    for (let x = 0; x < to.width; x++) {
      out[y * to.width + x] = upper * across[a * to.width + x] + lower * across[b * to.width + x];
    }
  }
  return out;
}

/** The outputs that are the first or last between two neighbouring samples: at most 2 sizeIn. */
function extremes(sizeIn: number, sizeOut: number): number[] {
  const { left } = taps(sizeIn, sizeOut);
  const picked = new Set([0, sizeOut - 1]);
  for (let i = 1; i < sizeOut; i++) {
    if (left[i] !== left[i - 1]) picked.add(i - 1).add(i);
  }
  return [...picked];
}

/**
 * (min U(A_k), max U(A_k)) of every channel, exactly.
 *
 * Between four neighbouring samples U is bilinear, and a bilinear function on a box takes its extremes at the corners
 * of the box; so only the first and last output row and column between neighbours have to be looked at.
 *
 * @returns two float32 [C]
 */
export function upsampledRange(maps: Maps, height: number, width: number): { low: Float32Array; high: Float32Array } {
  const picked = { rows: extremes(maps.height, height), columns: extremes(maps.width, width) };
  const rows = bilinearMatrix(maps.height, height);
  const columns = bilinearMatrix(maps.width, width);
  const low = new Float32Array(maps.count).fill(Infinity);
  const high = new Float32Array(maps.count).fill(-Infinity);
  const across = new Float64Array(maps.height);
  for (let channel = 0; channel < maps.count; channel++) {
    const start = channel * maps.height * maps.width;
    for (const column of picked.columns) {
      for (let y = 0; y < maps.height; y++) {
        across[y] = 0;
        for (let x = 0; x < maps.width; x++) {
          across[y] += columns[column * maps.width + x] * maps.data[start + y * maps.width + x];
        }
      }
      for (const row of picked.rows) {
        let value = 0;
        for (let y = 0; y < maps.height; y++) value += rows[row * maps.height + y] * across[y];
        value = Math.fround(value);
        if (value < low[channel]) low[channel] = value;
        if (value > high[channel]) high[channel] = value;
      }
    }
  }
  return { low, high };
}
