/** Arrays in numpy's file format: images as samples, and maps to save. */
import { OrtcamError } from "../errors";

type Floats = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;

/** An array of a file, its numbers as float32 or as was asked for. */
export interface NumpyArray<Kind extends Floats = Float32Array<ArrayBuffer>> {
  readonly data: Kind; // in C order
  readonly shape: readonly number[];
  readonly type: string; // as numpy writes it, without the order of its bytes: "u1", "f4", ...
}

const MAGIC = "\x93NUMPY";
const LONGEST_HEADER = 2 ** 16;

/** How a number of each type is read; those of 64 bits are rounded to float32 where that is the kind. */
const READERS: Readonly<Record<string, (view: DataView, at: number, little: boolean) => number>> = {
  u1: (view, at) => view.getUint8(at),
  i1: (view, at) => view.getInt8(at),
  u2: (view, at, little) => view.getUint16(at, little),
  i2: (view, at, little) => view.getInt16(at, little),
  u4: (view, at, little) => view.getUint32(at, little),
  i4: (view, at, little) => view.getInt32(at, little),
  u8: (view, at, little) => Number(view.getBigUint64(at, little)),
  i8: (view, at, little) => Number(view.getBigInt64(at, little)),
  f2: (view, at, little) => halfOf(view.getUint16(at, little)),
  f4: (view, at, little) => view.getFloat32(at, little),
  f8: (view, at, little) => view.getFloat64(at, little),
};

/** Whether a file begins as one of numpy's does. */
export function isNpy(bytes: Uint8Array): boolean {
  return [...MAGIC].every((character, i) => bytes[i] === character.charCodeAt(0));
}

/**
 * Read a `.npy` file of version 1, 2 or 3.
 *
 * @param most numbers that it may have
 * @param kind of array that is made: Float32Array, or Float64Array
 * @throws OrtcamError it is damaged, too large, or holds something other than numbers
 */
export function decodeNpy(bytes: Uint8Array<ArrayBuffer>, name: string, most: number): NumpyArray;
export function decodeNpy<Kind extends Floats>(
  bytes: Uint8Array<ArrayBuffer>,
  name: string,
  most: number,
  kind: new (length: number) => Kind,
): NumpyArray<Kind>;
export function decodeNpy(
  bytes: Uint8Array<ArrayBuffer>,
  name: string,
  most: number,
  kind: new (length: number) => Floats = Float32Array,
): NumpyArray<Floats> {
  const { header, start } = headerOf(bytes, name);
  const description = /'descr'\s*:\s*'([^']*)'/.exec(header)?.[1];
  const fortran = /'fortran_order'\s*:\s*(True|False)/.exec(header)?.[1];
  const sides = /'shape'\s*:\s*\(([\d,\s]*)\)/.exec(header)?.[1];
  const [, order, type] = /^([<>|=])(\w\d+)$/.exec(description ?? "") ?? [];
  const read = READERS[type ?? ""];
  if (fortran === undefined || sides === undefined) {
    throw new OrtcamError(`${name} is a damaged .npy file: its header tells no shape`);
  }
  if (read === undefined) {
    const found = description ?? "no plain numbers";
    throw new OrtcamError(`${name} has samples of the type ${found}; accepted: whole numbers and floats, up to 64 bits`);
  }
  const shape = sides.split(",").filter((side) => side.trim() !== "").map(Number);
  const count = shape.reduce((product, side) => product * side, 1);
  if (count > most) throw new OrtcamError(`${name} has ${count} numbers, more than the limit of ${most}; make it smaller`);
  const size = Number(type.slice(1));
  if (bytes.length < start + count * size) {
    throw new OrtcamError(`${name} is truncated: it has ${bytes.length} bytes instead of ${start + count * size}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset + start, count * size);
  const data = new kind(count);
  for (let i = 0; i < count; i++) data[i] = read(view, i * size, order !== ">");
  return { data: fortran === "True" ? inOrder(data, shape) : data, shape, type };
}

function headerOf(bytes: Uint8Array<ArrayBuffer>, name: string): { header: string; start: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = bytes[6];
  const begin = version === 1 ? 10 : 12;
  if (bytes.length < begin) throw new OrtcamError(`${name} is truncated: ${bytes.length} bytes are no .npy file`);
  if (version < 1 || version > 3) {
    throw new OrtcamError(`${name} is a .npy file of version ${version}; accepted: 1, 2 and 3`);
  }
  const length = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (length > LONGEST_HEADER || begin + length > bytes.length) {
    throw new OrtcamError(`${name} is truncated or damaged: its header would have ${length} bytes`);
  }
  return { header: new TextDecoder("latin1").decode(bytes.subarray(begin, begin + length)), start: begin + length };
}

/** Numbers in Fortran's order, the first index fastest, brought into C's. */
function inOrder<Kind extends Floats>(data: Kind, shape: readonly number[]): Kind {
  const out = data.slice() as Kind;
  const index = shape.map(() => 0);
  const strides = shape.map((_, axis) => shape.slice(0, axis).reduce((product, side) => product * side, 1));
  for (let at = 0; at < out.length; at++) {
    out[at] = data[index.reduce((place, value, axis) => place + value * strides[axis], 0)];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis] += 1;
      if (index[axis] < shape[axis]) break;
      index[axis] = 0;
    }
  }
  return out;
}

/** The number that 16 bits stand for (IEEE 754). */
function halfOf(bits: number): number {
  const [sign, exponent, fraction] = [bits >> 15 === 0 ? 1 : -1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The bytes of a `.npy` file of version 1.0 that holds float32 of this shape, in C order. */
export function encodeNpy(data: Float32Array, shape: readonly number[]): Uint8Array<ArrayBuffer> {
  const description = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`;
  const header = `${description.padEnd(64 * Math.ceil((description.length + 11) / 64) - 11)}\n`;
  const bytes = new Uint8Array(10 + header.length + 4 * data.length);
  const view = new DataView(bytes.buffer);
  bytes.set([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0]);
  view.setUint16(8, header.length, true);
  bytes.set(new TextEncoder().encode(header), 10);
  data.forEach((value, i) => view.setFloat32(10 + header.length + 4 * i, value, true));
  return bytes;
}
