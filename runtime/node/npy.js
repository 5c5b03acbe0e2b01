// Arrays of numpy.save as samples [H,W,C], and which of their bands are shown.

import { readFile } from "node:fs/promises";

const READERS = {
  u1: (view, at) => view.getUint8(at),
  u2: (view, at, little) => view.getUint16(at, little),
  i2: (view, at, little) => view.getInt16(at, little),
  f4: (view, at, little) => view.getFloat32(at, little),
  f8: (view, at, little) => view.getFloat64(at, little),
};
const SHOWN_PERCENTILES = [0.02, 0.98]; // of a band: what becomes black, and what becomes white

/** The samples of a `.npy` file, float32 [H,W,C]; the file has [H,W,C], or [H,W] of one band. */
export async function readNpy(path, channels) {
  const bytes = await readFile(path);
  if (bytes.toString("latin1", 0, 6) !== "\x93NUMPY") throw new Error(`${path}: accepted is an array of numpy.save, .npy`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = bytes[6] === 1 ? 10 : 12;
  const end = start + (bytes[6] === 1 ? view.getUint16(8, true) : view.getUint32(8, true));
  const header = bytes.toString("latin1", start, end);
  const [, order, type] = /'descr': '([<>|])(\w\d)'/.exec(header) ?? [];
  const shape = (/'shape': \(([\d, ]*)\)/.exec(header)?.[1] ?? "").split(",").filter((side) => side.trim()).map(Number);
  const [height, width, found = 1] = shape;
  const read = READERS[type];
  if (!read || !header.includes("'fortran_order': False") || ![2, 3].includes(shape.length) || found !== channels) {
    throw new Error(`${path}: accepted are uint8, uint16, int16, float32 or float64 as [H,W,${channels}], in C order`);
  }
  const [count, size] = [height * width * channels, Number(type[1])];
  if (bytes.length < end + count * size) throw new Error(`${path}: is truncated`);
  const data = Float32Array.from({ length: count }, (_, i) => read(view, end + i * size, order !== ">"));
  if (!data.every(Number.isFinite)) throw new Error(`${path}: accepted are finite numbers`);
  return { data, height, width, channels };
}

/** RGB bytes of one band or three, each from its 2nd percentile, which is black, to its 98th, which is white. */
export function shownBands({ data, height, width, channels }, display) {
  const bands = display ?? (channels > 2 ? [0, 1, 2] : [0]);
  const shown = new Uint8Array(3 * height * width);
  for (let place = 0; place < 3; place++) {
    const band = bands[bands.length === 1 ? 0 : place];
    const plane = Float32Array.from({ length: height * width }, (_, pixel) => data[pixel * channels + band]);
    const sorted = plane.slice().sort();
    let [low, high] = SHOWN_PERCENTILES.map((share) => percentile(sorted, share));
    if (!(low < high)) [low, high] = [sorted[0], sorted.at(-1)];
    for (let pixel = 0; pixel < plane.length && low < high; pixel++) {
      const level = Math.round((255 * (plane[pixel] - low)) / (high - low));
      shown[3 * pixel + place] = Math.min(Math.max(level, 0), 255);
    }
  }
  return { data: shown, height, width };
}

/** The value below which a share lies, interpolated as numpy does. */
function percentile(sorted, share) {
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}
