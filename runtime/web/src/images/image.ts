/** An image file becomes upright opaque pixels, those that OpenCV and Pillow give where the browser allows it. */
import { OrtcamError } from "../errors";
import { decodePngWithoutAlpha } from "./png";
import type { Pixels } from "./preprocessing";

/** Images above this are refused before they are decoded: a tab has less memory than a server. */
export const MAX_PIXELS = 2 ** 26;

export const ACCEPTED = "accepted: JPEG, PNG, WebP, GIF, BMP, AVIF";

/** What a file says before it is decoded. */
interface Header {
  readonly kind: string;
  readonly width: number;
  readonly height: number;
}

/**
 * Decode an image.
 *
 * Alpha is dropped, not blended, as Pillow's `convert("RGB")` does; of an image other than PNG, colours that are all
 * but transparent have lost bits on the way, since browsers multiply by alpha.
 *
 * @throws OrtcamError the file is empty, no image, truncated, damaged or too large
 */
export async function decodeImage(file: Blob, name: string): Promise<Pixels> {
  if (file.size === 0) throw new OrtcamError(`${name} is empty: 0 bytes; ${ACCEPTED}`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  const header = readHeader(bytes, name);
  if (header !== null) checkSize(header.width, header.height, name);
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    if (header === null) {
      throw new OrtcamError(
        `${name} is not an image that browsers read: it begins with ${quoted(bytes)}; ${ACCEPTED}`,
      );
    }
    throw new OrtcamError(`${name} is a ${header.kind} file that cannot be decoded: it is damaged; ${ACCEPTED}`);
  }
  try {
    const { width, height } = bitmap;
    checkSize(width, height, name);
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (context === null) throw new OrtcamError(`${name} has ${width} x ${height} pixels, too many for this browser`);
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    const pixels = { data, width, height };
    return isOpaque(pixels) ? pixels : await withoutAlpha(pixels, bytes, header?.kind === "PNG");
  } finally {
    bitmap.close();
  }
}

function isOpaque({ data }: Pixels): boolean {
  for (let alpha = 3; alpha < data.length; alpha += 4) {
    if (data[alpha] !== 255) return false;
  }
  return true;
}

/** The colours without their alpha: those under it where the file is a PNG, else what the canvas kept of them. */
async function withoutAlpha({ data, width, height }: Pixels, bytes: Uint8Array<ArrayBuffer>, isPng: boolean) {
  const kept = isPng ? await decodePngWithoutAlpha(bytes) : null;
  if (kept !== null && kept.width === width && kept.height === height) return kept;
  for (let alpha = 3; alpha < data.length; alpha += 4) data[alpha] = 255;
  return { data, width, height };
}

/** @throws OrtcamError an image of this size is too large for a tab */
export function checkSize(width: number, height: number, name: string): void {
  if (width * height > MAX_PIXELS) {
    throw new OrtcamError(
      `${name} has ${width} x ${height} = ${width * height} pixels, more than the limit of ${MAX_PIXELS}; ` +
        "make it smaller, or use ortcam in Python",
    );
  }
}

/** The first bytes of a file as text that can be shown. */
function quoted(bytes: Uint8Array): string {
  const text = String.fromCharCode(...bytes.subarray(0, 8));
  return JSON.stringify(text.replace(/[^\x20-\x7e]/g, "\ufffd"));
}

/** Read a file of a known format as far as its size is known, JPEG and PNG to their end; null for other formats. */
function readHeader(bytes: Uint8Array, name: string): Header | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const starts = (signature: string, at = 0): boolean =>
    [...signature].every((character, i) => bytes[at + i] === character.charCodeAt(0));
  try {
    if (starts("\xff\xd8\xff")) return walkJpeg(view);
    if (starts("\x89PNG\r\n\x1a\n")) return walkPng(view);
    if (starts("RIFF") && starts("WEBP", 8)) return readWebp(view, starts);
    if (starts("GIF8")) return { kind: "GIF", width: view.getUint16(6, true), height: view.getUint16(8, true) };
    if (starts("BM")) {
      return { kind: "BMP", width: Math.abs(view.getInt32(18, true)), height: Math.abs(view.getInt32(22, true)) };
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new OrtcamError(`${name} is truncated: ${bytes.length} bytes end before the image does; ${ACCEPTED}`);
  }
  return null;
}

/** To the image's own end-of-image marker: that of an EXIF thumbnail lies inside a segment, which is skipped. */
function walkJpeg(view: DataView): Header {
  let [position, width, height] = [2, 0, 0];
  for (;;) {
    const marker = view.getUint8(position + 1);
    // FF 00 is a stuffed byte, FF D0 to FF D7 are restarts and FF FF is fill inside entropy-coded data.
    const plain = marker <= 1 || marker === 0xff || (marker >= 0xd0 && marker <= 0xd8);
    if (view.getUint8(position) !== 0xff || plain) {
      position += 1;
      continue;
    }
    if (marker === 0xd9) return { kind: "JPEG", width, height };
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame && width === 0) [height, width] = [view.getUint16(position + 5), view.getUint16(position + 7)];
    position += 2 + view.getUint16(position + 2);
  }
}

function walkPng(view: DataView): Header {
  const header = { kind: "PNG", width: view.getUint32(16), height: view.getUint32(20) };
  const end = 0x49454e44; // "IEND"
  for (let position = 8; ; position += view.getUint32(position) + 12) {
    if (view.getUint32(position + 4) === end) return header;
  }
}

function readWebp(view: DataView, starts: (signature: string, at: number) => boolean): Header {
  if (view.getUint32(4, true) + 8 > view.byteLength) throw new RangeError();
  const triple = (at: number): number => view.getUint16(at, true) + (view.getUint8(at + 2) << 16);
  if (starts("VP8X", 12)) return { kind: "WebP", width: triple(24) + 1, height: triple(27) + 1 };
  if (starts("VP8L", 12)) {
    const bits = view.getUint32(21, true);
    return { kind: "WebP", width: (bits & 0x3fff) + 1, height: ((bits >> 14) & 0x3fff) + 1 };
  }
  return { kind: "WebP", width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
}
