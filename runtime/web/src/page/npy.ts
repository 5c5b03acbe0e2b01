/** Arrays in numpy's file format, version 1.0. */

/** The bytes of a `.npy` file that holds float32 of this shape, in C order. */
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
