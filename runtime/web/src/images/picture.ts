/** A file becomes a picture: what is shown, and what a model takes, from the pixels or at the depth of the file. */
import { OrtcamError } from "../errors";
import { ACCEPTED, checkSize, decodeImage } from "./image";
import { decodeNpy, isNpy, type NumpyArray } from "./npy";
import { decodePngSamples, isDeepPng } from "./png";
import {
  greyOf,
  needsSamples,
  type Pixels,
  preprocess,
  preprocessSamples,
  type Preprocessing,
  type Samples,
  weighedSamples,
} from "./preprocessing";
import { stretched } from "./stretching";

/** What a file holds, for a model. */
export interface Picture {
  readonly pixels: Pixels; // what maps are drawn over, as `Preprocessing.render` has it in Python
  readonly input: Float32Array; // [channels, height, width], preprocessed
}

const MOST_NUMBERS = 2 ** 28; // of an array
const PICTURE_BANDS = [1, 3, 4]; // of an image that becomes RGB or grey

/**
 * Read a file for a model: an image that browsers decode, a PNG of 16 bits, or an array of numpy's.
 *
 * @throws OrtcamError it is none, damaged or too large, or has bands that the model does not take
 */
export async function readPicture(preprocessing: Preprocessing, file: Blob, name: string): Promise<Picture> {
  if (!needsSamples(preprocessing)) return pictureOf(preprocessing, await readPixels(file, name), name);
  return ofSamples(preprocessing, fitted(preprocessing, await readSamples(preprocessing, file, name), name));
}

/**
 * Take decoded pixels, say a frame of a camera, for a model.
 *
 * @throws OrtcamError the model takes bands that no such pixels have
 */
export function pictureOf(preprocessing: Preprocessing, pixels: Pixels, name: string): Picture {
  if (!needsSamples(preprocessing)) return { pixels: rendered(preprocessing, pixels), input: preprocess(preprocessing, pixels) };
  const read = { ...ofPixels(pixels, countsOf(preprocessing)), isByte: true };
  return ofSamples(preprocessing, fitted(preprocessing, read, name));
}

function ofSamples(preprocessing: Preprocessing, samples: Samples): Picture {
  return { pixels: stretched(samples, displayed(preprocessing)), input: preprocessSamples(preprocessing, samples) };
}

/** Whether a model takes what cameras give: pictures in colour. */
export function fitsCamera({ channel_order: order, mean }: Preprocessing): boolean {
  return order !== "bands" || mean.length === 3;
}

/** Which bands are shown, counted from 0: one or three. */
function displayed({ display, mean }: Preprocessing): readonly number[] {
  return display ?? (mean.length > 2 ? [0, 1, 2] : [0]);
}

/** 8-bit pixels as a model sees them: in colour, or as the grey that it takes. */
function rendered({ channel_order: order }: Preprocessing, decoded: Pixels): Pixels {
  if (order === "rgb" || order === "bgr") return decoded;
  const data = new Uint8ClampedArray(decoded.data.length).fill(255);
  for (const [pixel, level] of greyOf(decoded, order).entries()) data.fill(level, 4 * pixel, 4 * pixel + 3);
  return { ...decoded, data };
}

/** An image, or an array of 8-bit levels. */
async function readPixels(file: Blob, name: string): Promise<Pixels> {
  const bytes = await beginningOf(file);
  if (!isNpy(bytes)) return decodeImage(file, name);
  const array = await readArray(file, name);
  if (array.type !== "u1") {
    throw new OrtcamError(`${name} has samples of the type ${array.type}; this model takes levels of 8 bits (uint8)`);
  }
  const { data, height, width, channels } = ofArray(array, PICTURE_BANDS, name);
  const out = new Uint8ClampedArray(4 * height * width).fill(255);
  for (let pixel = 0; pixel < height * width; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      out[4 * pixel + channel] = data[pixel * channels + (channels === 1 ? 0 : channel)];
    }
  }
  return { data: out, height, width };
}

/** How many channels an image may have for a model. */
function countsOf({ channel_order: order, mean }: Preprocessing): readonly number[] {
  return order === "bands" ? [mean.length] : PICTURE_BANDS;
}

/** The samples of a file at its depth, with all its bands; `isByte` where it has 8-bit levels. */
type Read = Samples & { readonly isByte: boolean };

async function readSamples(preprocessing: Preprocessing, file: Blob, name: string): Promise<Read> {
  const bytes = await beginningOf(file);
  const counts = countsOf(preprocessing);
  if (isNpy(bytes)) {
    const array = await readArray(file, name);
    return { ...ofArray(array, counts, name), isByte: array.type === "u1" };
  }
  const begins = String.fromCharCode(...bytes.subarray(0, 4));
  if (begins === "II*\0" || begins === "MM\0*" || begins === "II+\0" || begins === "MM\0+") {
    throw new OrtcamError(`${name} is a TIFF file, which browsers do not read; save its samples with numpy.save as .npy`);
  }
  if (begins === "PK\x03\x04") {
    throw new OrtcamError(`${name} is an archive (.npz, .zip); accepted: one array of numpy.save, .npy`);
  }
  const pixels = await decodeImage(file, name);
  if (begins === "\x89PNG") {
    const whole = new Uint8Array(await file.arrayBuffer());
    const samples = await decodePngSamples(whole);
    if (samples !== null) return { ...samples, isByte: !isDeepPng(whole) };
    if (isDeepPng(whole)) {
      throw new OrtcamError(`${name} is an interlaced or turned PNG of 16 bits; save it plainly, or with numpy.save as .npy`);
    }
  }
  return { ...ofPixels(pixels, counts), isByte: true };
}

async function beginningOf(file: Blob): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await file.slice(0, 8).arrayBuffer());
}

async function readArray(file: Blob, name: string): Promise<NumpyArray> {
  return decodeNpy(new Uint8Array(await file.arrayBuffer()), name, MOST_NUMBERS);
}

/** The samples of decoded pixels: grey where the model takes one band and they are, else RGB. */
function ofPixels({ data, height, width }: Pixels, counts: readonly number[]): Samples {
  let grey = counts.includes(1);
  for (let at = 0; grey && at < data.length; at += 4) grey = data[at] === data[at + 1] && data[at] === data[at + 2];
  const channels = grey ? 1 : 3;
  const out = new Float32Array(height * width * channels);
  for (let i = 0; i < out.length; i++) out[i] = data[4 * Math.floor(i / channels) + (i % channels)];
  return { data: out, height, width, channels };
}

/**
 * An array [H, W], [H, W, C] or [C, H, W] as [H, W, C].
 *
 * @param counts what C may be
 * @throws OrtcamError it has another shape, or may be read in two ways
 */
function ofArray({ data, shape }: NumpyArray, counts: readonly number[], name: string): Samples {
  const accepted = `accepted: [H, W, C] or [C, H, W], C = ${counts.join(" or ")}${counts.includes(1) ? ", or [H, W]" : ""}`;
  const found = `${name} has the shape [${shape.join(", ")}]`;
  const flat = shape.length === 2 && counts.includes(1);
  if ((shape.length !== 3 && !flat) || shape.includes(0)) throw new OrtcamError(`${found}; ${accepted}`);
  const [first, last] = flat ? [false, false] : [counts.includes(shape[0]), counts.includes(shape[2])];
  if (!flat && first === last) {
    throw new OrtcamError(`${found}${first ? ", with its channels first or last" : ""}; ${accepted}`);
  }
  const [height, width] = first ? shape.slice(1) : shape;
  checkSize(width, height, name);
  if (!first) return { data, height, width, channels: flat ? 1 : shape[2] };
  const [channels, size] = [shape[0], height * width];
  const turned = new Float32Array(data.length);
  for (let channel = 0; channel < channels; channel++) {
    for (let i = 0; i < size; i++) turned[i * channels + channel] = data[channel * size + i];
  }
  return { data: turned, height, width, channels };
}

/** The channels that a model takes of what was read, as `ortcam.images.samples` has it. */
function fitted(preprocessing: Preprocessing, read: Read, name: string): Samples {
  const { channel_order: order, mean } = preprocessing;
  const { channels: found, data } = read;
  const accepted = countsOf(preprocessing);
  if (!accepted.includes(found)) {
    throw new OrtcamError(`${name} has ${found} bands; this model takes ${accepted.join(" or ")}. ${ACCEPTED}, and .npy`);
  }
  if (!data.every(Number.isFinite)) {
    throw new OrtcamError(`${name} has samples that are infinite or not a number; accepted: finite numbers`);
  }
  if (order === "bands" || found === mean.length) return read;
  if (order === "rgb" || order === "bgr") return picked(read, found === 1 ? [0, 0, 0] : [0, 1, 2]);
  return weighedSamples(picked(read, [0, 1, 2]), order, read.isByte);
}

function picked({ data, height, width, channels }: Samples, bands: readonly number[]): Samples {
  const out = new Float32Array(height * width * bands.length);
  for (let pixel = 0; pixel < height * width; pixel++) {
    for (const [place, band] of bands.entries()) out[pixel * bands.length + place] = data[pixel * channels + band];
  }
  return { data: out, height, width, channels: bands.length };
}
