/** The colours under the alpha of a PNG, which no canvas keeps. */
import type { Pixels } from "./preprocessing";

const [PALETTE, GREY_ALPHA, RGB_ALPHA] = [3, 4, 6];
const CHANNELS: Readonly<Record<number, number>> = { [PALETTE]: 1, [GREY_ALPHA]: 2, [RGB_ALPHA]: 4 };

/**
 * Decode the common kinds of PNG with alpha, without it: 8 bits a sample, not interlaced, not turned by EXIF.
 *
 * @param bytes of a whole PNG file that a browser could decode
 * @returns null for any other kind
 */
export async function decodePngWithoutAlpha(bytes: Uint8Array<ArrayBuffer>): Promise<Pixels | null> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [width, height, bits, kind, interlaced] = [
    view.getUint32(16),
    view.getUint32(20),
    view.getUint8(24),
    view.getUint8(25),
    view.getUint8(28),
  ];
  const channels = CHANNELS[kind];
  if (bits !== 8 || channels === undefined || interlaced !== 0) return null;
  const compressed: Uint8Array<ArrayBuffer>[] = [];
  let palette = bytes.subarray(0, 0);
  for (let at = 8; at < bytes.length; at += view.getUint32(at) + 12) {
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const content = bytes.subarray(at + 8, at + 8 + view.getUint32(at));
    if (name === "eXIf") return null;
    if (name === "PLTE") palette = content;
    if (name === "IDAT") compressed.push(content);
    if (name === "IEND") break;
  }
  const stream = new Blob(compressed).stream().pipeThrough(new DecompressionStream("deflate"));
  const filtered = new Uint8Array(await new Response(stream).arrayBuffer());
  if (filtered.length < height * (1 + channels * width)) return null;
  const samples = unfilter(filtered, height, channels * width, channels);
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      const sample = samples[pixel * channels + (kind === RGB_ALPHA ? channel : 0)];
      data[4 * pixel + channel] = kind === PALETTE ? palette[3 * sample + channel] : sample;
    }
  }
  return { data, width, height };
}

/** Undo the five filters of PNG's lines (W3C PNG, 9.2): uint8 [height, 1 + line] -> uint8 [height, line]. */
function unfilter(filtered: Uint8Array, height: number, line: number, step: number): Uint8Array {
  const out = new Uint8Array(height * line);
  for (let y = 0; y < height; y++) {
    const filter = filtered[y * (line + 1)];
    for (let x = 0; x < line; x++) {
      const at = y * line + x;
      const left = x >= step ? out[at - step] : 0;
      const above = y > 0 ? out[at - line] : 0;
      const corner = x >= step && y > 0 ? out[at - line - step] : 0;
      const predicted = [0, left, above, (left + above) >> 1, paeth(left, above, corner)][filter];
      out[at] = filtered[y * (line + 1) + 1 + x] + predicted;
    }
  }
  return out;
}

function paeth(left: number, above: number, corner: number): number {
  const estimate = left + above - corner;
  const [a, b, c] = [Math.abs(estimate - left), Math.abs(estimate - above), Math.abs(estimate - corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? above : corner;
}
