/** The arrays that a score names: files that were added to the page, a direction or a mask each. */
import { OrtcamError } from "../errors";
import { listed, shown } from "./shown";

/** Finite numbers in C order. */
export interface Numbers {
  readonly data: ArrayLike<number>;
  readonly shape: readonly number[];
  readonly sha256: string | null; // of them as float64; null where the browser has no cryptography
}

export type Arrays = ReadonlyMap<string, Numbers>; // by name of the file

/**
 * A unit vector: float64 [outputs].
 *
 * @param score how messages begin
 * @throws OrtcamError there is no such file, or it is no such vector
 */
export function directionOf(arrays: Arrays, name: string, outputs: number, score: string): Float64Array {
  const { data, shape } = arrayOf(arrays, name, score);
  if (data.length !== outputs || Math.max(0, ...shape) !== outputs) {
    throw new OrtcamError(
      `${score}: ${shown(name)} has shape ${listed(shape)}; accepted is [${outputs}], as the model has outputs`,
    );
  }
  const vector = Float64Array.from(data);
  const largest = vector.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  if (largest === 0) throw new OrtcamError(`${score}: ${shown(name)} is all zeros, which has no direction`);
  const unit = vector.map((value) => value / largest);
  const length = Math.sqrt(unit.reduce((total, value) => total + value * value, 0));
  return unit.map((value) => value / length);
}

/**
 * The weights of two axes, with a sum of 1: float64 [rows * columns].
 *
 * @param shape of the axes
 * @param size of the model's input, which a mask may have, too
 * @param score how messages begin
 * @throws OrtcamError there is no such file, or it is no such mask
 */
export function maskOf(
  arrays: Arrays,
  name: string,
  shape: readonly number[],
  size: { readonly height: number; readonly width: number },
  score: string,
): Float64Array {
  const found = arrayOf(arrays, name, score);
  const input = [size.height, size.width];
  const mask = !same(found.shape, shape) && same(found.shape, input) ? averaged(found, shape) : found;
  if (!same(mask.shape, shape)) {
    const other = same(shape, input) ? "" : `, or ${listed(input)}`;
    throw new OrtcamError(
      `${score}: the mask ${shown(name)} is ${listed(mask.shape)}; accepted is ${listed(shape)} as the output${other} as ` +
        "the model's input",
    );
  }
  const weights = Float64Array.from(mask.data);
  const most = weights.reduce((high, value) => Math.max(high, value), 0);
  if (most === 0 || weights.some((value) => value < 0)) {
    const wrong = weights.some((value) => value < 0) ? "values below 0" : "no value above 0";
    throw new OrtcamError(
      `${score}: the mask ${shown(name)} has ${wrong}; accepted are weights from 0, some above`,
    );
  }
  const total = weights.reduce((sum, value) => sum + value / most, 0);
  return weights.map((value) => value / most / total);
}

function arrayOf(arrays: Arrays, name: string, score: string): Numbers {
  const found = arrays.get(name);
  if (found !== undefined) return found;
  throw new OrtcamError(
    `${score}: no file ${shown(name)} was added to the page, which reads no other; accepted are .npy files, or an image as a mask`,
  );
}

/** Averages over equal parts of both axes. */
function averaged({ data, shape: [height, width] }: Numbers, shape: readonly number[]): Numbers {
  const [rows, columns] = shape;
  const out = new Float64Array(rows * columns);
  const [down, across] = [shares(height, rows), shares(width, columns)];
  for (const [row, y, high] of down) {
    for (const [column, x, wide] of across) out[row * columns + column] += high * wide * data[y * width + x];
  }
  return { data: out, shape, sha256: null };
}

/** What share of each part of an axis each of its cells has, where that is any: part, cell, share. */
function shares(size: number, parts: number): [number, number, number][] {
  const found: [number, number, number][] = [];
  for (let part = 0; part < parts; part++) {
    const [begin, end] = [(part * size) / parts, ((part + 1) * size) / parts];
    for (let cell = Math.floor(begin); cell < end && cell < size; cell++) {
      const overlap = Math.min(end, cell + 1) - Math.max(begin, cell);
      if (overlap > 0) found.push([part, cell, overlap * (parts / size)]);
    }
  }
  return found;
}

function same(one: readonly number[], other: readonly number[]): boolean {
  return one.length === other.length && one.every((side, axis) => side === other[axis]);
}
