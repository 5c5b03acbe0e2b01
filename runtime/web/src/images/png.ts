/** What a PNG holds that no canvas keeps: the colours under its alpha, and samples of 16 bits. */
import type { Pixels, Samples } from "./preprocessing";

const [GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA] = [0, 2, 3, 4, 6];
const CHANNELS: Readonly<Record<number, number>> = { [GREY]: 1, [RGB]: 3, [PALETTE]: 1, [GREY_ALPHA]: 2, [RGB_ALPHA]: 4 };

/** What the header of a PNG says. */
interface Header {
  readonly width: number;
  readonly height: number;
  readonly bits: number; // of a sample
  readonly kind: number; // its colour type
  readonly interlaced: boolean;
}

/** Whether a PNG has samples of 16 bits, of which a canvas keeps 8. @param bytes of a whole PNG file */
export function isDeepPng(bytes: Uint8Array<ArrayBuffer>): boolean {
  return headerOf(bytes).bits === 16;
}

/**
 * Decode the common kinds of PNG with alpha, without it: 8 bits a sample, not interlaced, not turned by EXIF.
 *
 * @param bytes of a whole PNG file that a browser could decode
 * @returns null for any other kind
 */
export async function decodePngWithoutAlpha(bytes: Uint8Array<ArrayBuffer>): Promise<Pixels | null> {
  const { width, height, bits, kind } = headerOf(bytes);
  if (bits !== 8 || kind === GREY || kind === RGB) return null;
  const found = await decode(bytes);
  if (found === null) return null;
  const { samples, palette } = found;
  const channels = CHANNELS[kind];
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      const sample = samples[pixel * channels + (kind === RGB_ALPHA ? channel : 0)];
      data[4 * pixel + channel] = kind === PALETTE ? palette[3 * sample + channel] : sample;
    }
  }
  return { data, width, height };
}

/**
 * Decode the samples of a PNG of 8 or 16 bits a sample, not interlaced, not turned by EXIF, with their alpha.
 *
 * Grey with alpha becomes RGB with alpha, as OpenCV has it.
 *
 * @param bytes of a whole PNG file that a browser could decode
 * @returns null for any other kind
 */
export async function decodePngSamples(bytes: Uint8Array<ArrayBuffer>): Promise<Samples | null> {
  const { width, height, bits, kind } = headerOf(bytes);
  if (kind === PALETTE || bits < 8) return null;
  const found = await decode(bytes);
  if (found === null) return null;
  const { samples } = found;
  const numbers =
    bits === 8
      ? Float32Array.from(samples)
      : Float32Array.from({ length: samples.length / 2 }, (_, i) => 256 * samples[2 * i] + samples[2 * i + 1]);
  if (kind !== GREY_ALPHA) return { data: numbers, width, height, channels: CHANNELS[kind] };
  const data = Float32Array.from({ length: 2 * numbers.length }, (_, i) => numbers[2 * (i >> 2) + (i % 4 === 3 ? 1 : 0)]);
  return { data, width, height, channels: 4 };
}

function headerOf(bytes: Uint8Array<ArrayBuffer>): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    width: view.getUint32(16),
    height: view.getUint32(20),
    bits: view.getUint8(24),
    kind: view.getUint8(25),
    interlaced: view.getUint8(28) !== 0,
  };
}

/** The bytes of the samples, line by line, and the palette; null for a kind that is not read. */
async function decode(bytes: Uint8Array<ArrayBuffer>): Promise<{ samples: Uint8Array; palette: Uint8Array } | null> {
  const { width, height, bits, kind, interlaced } = headerOf(bytes);
  const channels = CHANNELS[kind];
  if (bits < 8 || channels === undefined || interlaced) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
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
  const step = (channels * bits) / 8;
  if (filtered.length < height * (1 + step * width)) return null;
  return { samples: unfilter(filtered, height, step * width, step), palette };
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
