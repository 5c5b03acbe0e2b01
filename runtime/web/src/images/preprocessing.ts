/** From a photograph to the model's input: what torchvision's classification preset does, bit for bit. */

import { OrtcamError } from "../errors";

/** A photograph: `data` is uint8 [height, width, 4], RGBA and opaque, upright. */
export interface Pixels {
  readonly data: Uint8ClampedArray<ArrayBuffer>;
  readonly height: number;
  readonly width: number;
}

/** What an image holds where 8 bits of RGB do not suffice: `data` is [height, width, channels], not yet scaled. */
export interface Samples {
  readonly data: Float32Array;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
}

/** What the channels of a model are: the last is any number of bands, in the order of the file. */
export const CHANNEL_ORDERS = ["rgb", "bgr", "grey", "grey-opencv", "bands"] as const;

/** The entry of bundle.json; `runtime/ortcam/images/preprocessing.py` says what each value means. */
export interface Preprocessing {
  readonly height: number;
  readonly width: number;
  readonly resize: number | null;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly interpolation: "bilinear" | "bicubic";
  readonly antialias: boolean;
  readonly channel_order: (typeof CHANNEL_ORDERS)[number];
  readonly scale: number;
  readonly keep_aspect: boolean;
  readonly crop_rounding: "half-even" | "down";
  readonly value_range: readonly [number, number] | null; // of samples; null: 8-bit levels
  readonly display: readonly number[] | null; // bands that are shown, from 0
}

/** Whether 8-bit RGB pixels do not suffice for a model. */
export function needsSamples({ channel_order, value_range }: Preprocessing): boolean {
  return channel_order === "bands" || value_range !== null;
}

/** Where the model's input lies along one side of a photograph: resized from `size`, cropped from `offset` on. */
export interface Side {
  readonly size: number;
  readonly resized: number;
  readonly offset: number; // negative where the crop begins with padding
  readonly crop: number;
}

/** Where the model's input lies in a photograph. */
export interface CropGeometry {
  readonly rows: Side;
  readonly columns: Side;
}

// Bits of the fixed-point weights: Pillow's PRECISION_BITS, src/libImaging/Resample.c.
const PRECISION = 22;
const BYTES = [0, 255] as const;

/** Where the crop lies in a photograph of this size (pixels). */
export function cropGeometry(preprocessing: Preprocessing, height: number, width: number): CropGeometry {
  const { resize } = preprocessing;
  let [rows, columns] = [preprocessing.height, preprocessing.width];
  if (resize !== null) {
    [rows, columns] = [resize, resize];
    if (preprocessing.keep_aspect && height <= width) columns = Math.trunc((resize * width) / height);
    else if (preprocessing.keep_aspect) rows = Math.trunc((resize * height) / width);
  }
  const side = (size: number, resized: number, crop: number): Side => ({
    size,
    resized,
    offset: cropOffset(resized, crop, preprocessing.crop_rounding),
    crop,
  });
  return { rows: side(height, rows, preprocessing.height), columns: side(width, columns, preprocessing.width) };
}

function cropOffset(resized: number, crop: number, rounding: Preprocessing["crop_rounding"]): number {
  if (resized < crop) return -Math.floor((crop - resized) / 2); // the smaller half of the padding comes first
  return rounding === "down" ? Math.floor((resized - crop) / 2) : roundHalfEven((resized - crop) / 2);
}

/** The nearest integer; of two that are as near the even one, as Python's `round` and numpy's `rint`. */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Turn a photograph into the input of a model of 8-bit levels: float32 [channels, height, width]. */
export function preprocess(preprocessing: Preprocessing, photograph: Pixels): Float32Array {
  const place = placeOf(preprocessing, photograph);
  const tables = levelTables(preprocessing);
  const rounded = preprocessing.antialias;
  return fill(preprocessing, place, planesOf(preprocessing, photograph), (channel) => {
    const table = tables[channel];
    return {
      outside: table[0],
      sampled: (plane) => resample(plane, place, (lines, taps) => convolve(lines, taps, rounded)),
      valueOf: (level) => table[Math.min(Math.max(roundHalfEven(level), 0), 255)],
    };
  });
}

/**
 * Turn samples that keep their depth into the model's input: float32 [channels, height, width].
 *
 * Sums are float64 and nothing is rounded between: the low end of `value_range` becomes 0, its high end `scale`.
 *
 * @throws OrtcamError the input would not be finite
 */
export function preprocessSamples(preprocessing: Preprocessing, samples: Samples): Float32Array {
  const { mean, std, scale, channel_order: order } = preprocessing;
  const [low, high] = preprocessing.value_range ?? BYTES;
  const { data, width, channels } = samples;
  const place = placeOf(preprocessing, samples, false);
  const planes = mean.map((_, channel) => ({
    ...{ data, width: width, step: channels },
    start: order === "bgr" ? channels - 1 - channel : channel,
  }));
  const input = fill(preprocessing, place, planes, (channel) => {
    const [own, spread] = [Math.fround(mean[channel]), Math.fround(std[channel])];
    const normalised = (value: number): number => Math.fround(Math.fround(value - own) / spread);
    return {
      outside: normalised(0),
      sampled: (plane) => resample(plane, place, weighted),
      valueOf: (sample) => normalised(Math.fround(((sample - low) * scale) / (high - low))),
    };
  });
  if (!input.every(Number.isFinite)) {
    throw new OrtcamError(
      "the image has samples that are infinite or not a number in the model's input; accepted are samples of the order " +
        `of ${low} to ${high}, the range that the model takes`,
    );
  }
  return input;
}

/** What is done with a channel: how it is resampled, what becomes of a value, and what lies outside the image. */
interface Making {
  readonly outside: number;
  readonly sampled: (plane: Plane) => Float64Array;
  readonly valueOf: (sample: number) => number;
}

/** The model's input, float32 [channels, height, width], from a plane per channel. */
function fill(
  { height, width }: Preprocessing,
  { top, left, down, across, heightFirst }: Place,
  planes: readonly Plane[],
  making: (channel: number) => Making,
): Float32Array {
  const input = new Float32Array(planes.length * height * width);
  for (const [channel, plane] of planes.entries()) {
    const { outside, sampled, valueOf } = making(channel);
    const out = input.subarray(channel * height * width, (channel + 1) * height * width).fill(outside);
    const picture = sampled(plane);
    for (let y = 0; y < down.count; y++) {
      for (let x = 0; x < across.count; x++) {
        const sample = heightFirst ? picture[y * across.count + x] : picture[x * down.count + y];
        out[(top + y) * width + left + x] = valueOf(sample);
      }
    }
  }
  return input;
}

/** Where an image lies in the model's input, and what its pixels there are made of. */
interface Place {
  readonly top: number; // rows of padding before it
  readonly left: number;
  readonly down: Taps;
  readonly across: Taps;
  readonly heightFirst: boolean;
}

function placeOf(preprocessing: Preprocessing, { height, width }: Size, fixed = true): Place {
  const { rows, columns } = cropGeometry(preprocessing, height, width);
  return {
    top: Math.max(-rows.offset, 0),
    left: Math.max(-columns.offset, 0),
    down: taps(preprocessing, rows, fixed),
    across: taps(preprocessing, columns, fixed),
    // Pillow 13's order, which counts because of the rounding in between.
    heightFirst: rows.size - rows.resized > Math.max(2 * (columns.size - columns.resized), 0),
  };
}

interface Size {
  readonly height: number;
  readonly width: number;
}

/** One channel of an image: the sample of pixel i is at start + i step. */
interface Plane {
  readonly data: Uint8ClampedArray | Float32Array;
  readonly width: number;
  readonly start: number;
  readonly step: number;
}

/** The planes of a photograph that a model of 8-bit levels takes, in its order. */
function planesOf({ channel_order: order }: Preprocessing, photograph: Pixels): Plane[] {
  const { data, width } = photograph;
  if (order === "rgb" || order === "bgr") {
    const starts = order === "rgb" ? [0, 1, 2] : [2, 1, 0];
    return starts.map((start) => ({ data, width, start, step: 4 }));
  }
  return [{ data: greyOf(photograph, order), width, start: 0, step: 1 }];
}

/** How much red, green and blue weigh, in parts of 2 to this power: as Pillow's `convert("L")`, and as `cv2.cvtColor`. */
const GREY = {
  grey: { weights: [19595, 38470, 7471], bits: 16 },
  "grey-opencv": { weights: [9798, 19235, 3735], bits: 15 },
} as const;

/** The grey of a photograph: uint8 [height, width]. */
export function greyOf({ data }: Pixels, order: Preprocessing["channel_order"]): Uint8ClampedArray<ArrayBuffer> {
  const { weights, bits } = order === "grey-opencv" ? GREY["grey-opencv"] : GREY.grey;
  const [red, green, blue] = weights;
  const out = new Uint8ClampedArray(data.length / 4);
  for (let i = 0; i < out.length; i++) {
    const total = red * data[4 * i] + green * data[4 * i + 1] + blue * data[4 * i + 2];
    out[i] = (total + (1 << (bits - 1))) >> bits;
  }
  return out;
}

/**
 * Grey of RGB samples: [height, width, 3] -> [height, width, 1].
 *
 * @param rounded for 8-bit levels; other samples are weighed by Pillow's weights and not rounded
 */
export function weighedSamples(
  { data, height, width }: Samples,
  order: Preprocessing["channel_order"],
  rounded: boolean,
): Samples {
  const { weights, bits } = rounded && order === "grey-opencv" ? GREY["grey-opencv"] : GREY.grey;
  const [red, green, blue] = weights;
  const out = new Float32Array(height * width);
  for (let i = 0; i < out.length; i++) {
    const total = red * data[3 * i] + green * data[3 * i + 1] + blue * data[3 * i + 2];
    out[i] = rounded ? Math.floor(total / 2 ** bits + 0.5) : total / 2 ** bits;
  }
  return { data: out, height, width, channels: 1 };
}

/** One plane of the crop, [rows, columns] where the height comes first, else [columns, rows]. */
function resample(
  { data, width, start: zero, step }: Plane,
  { down, across, heightFirst }: Place,
  along: (lines: Lines, taps: Taps) => Float64Array,
): Float64Array {
  const line = step * width;
  // Only the pixels that the crop needs are read.
  const start = zero + down.first * line + step * across.first;
  if (heightFirst) {
    const columns = { data, start, lines: across.last - across.first, line: step, step: line };
    const thin = along(columns, down);
    return along({ data: thin, start: 0, lines: down.count, line: 1, step: down.count }, across);
  }
  const rows = { data, start, lines: down.last - down.first, line, step };
  const thin = along(rows, across);
  return along({ data: thin, start: 0, lines: across.count, line: 1, step: across.count }, down);
}

/** What the 256 levels become, for each channel of the model: float32 [256] each. */
function levelTables(preprocessing: Preprocessing): Float32Array[] {
  return preprocessing.mean.map((exact, channel) => {
    const mean = Math.fround(exact);
    const std = Math.fround(preprocessing.std[channel]);
    const level = (i: number): number => Math.fround((i * preprocessing.scale) / 255);
    return Float32Array.from({ length: 256 }, (_, i) => Math.fround(Math.fround(level(i) - mean) / std));
  });
}

/** Inputs (from `first` on) and weights, integers of 22 bits or not rounded, both [count, width], of the outputs along one side. */
interface Taps {
  readonly index: Int32Array;
  readonly weights: Float64Array;
  readonly count: number;
  readonly width: number;
  readonly first: number;
  readonly last: number;
}

/** What the cropped positions of a side are made of: `precompute_coeffs`, `normalize_coeffs_8bpc` of Resample.c. */
function taps(preprocessing: Preprocessing, { size, resized, offset, crop }: Side, fixed: boolean): Taps {
  const begin = Math.max(offset, 0);
  const count = Math.min(offset + crop, resized) - begin;
  const scale = size / resized;
  const stretch = preprocessing.antialias ? Math.max(scale, 1) : 1;
  const support = (preprocessing.interpolation === "bilinear" ? 1 : 2) * stretch;
  const outputs = Array.from({ length: count }, (_, i) => {
    const centre = (begin + i + 0.5) * scale;
    const [first, last] = [Math.floor(centre - support + 0.5), Math.floor(centre + support + 0.5)];
    // Leave out what is outside; torch without antialiasing repeats the edge instead.
    return preprocessing.antialias
      ? { centre, first: Math.max(first, 0), last: Math.min(last, size) }
      : { centre, first, last };
  });
  const width = Math.max(...outputs.map(({ first, last }) => last - first));
  const index = new Int32Array(count * width);
  const weights = new Float64Array(count * width);
  for (const [i, { centre, first, last }] of outputs.entries()) {
    let total = 0;
    for (let tap = 0; tap < width; tap++) {
      const position = first + tap;
      const weight = position < last ? kernel(preprocessing, (position - centre + 0.5) * (1 / stretch)) : 0;
      index[i * width + tap] = Math.min(Math.max(position, 0), size - 1);
      weights[i * width + tap] = weight;
      total += weight;
    }
    for (let tap = i * width; tap < (i + 1) * width; tap++) {
      const weight = weights[tap] / total;
      weights[tap] = fixed ? Math.trunc(weight * 2 ** PRECISION + (weight < 0 ? -0.5 : 0.5)) : weight;
    }
  }
  let [least, most] = [size, 0];
  for (const position of index) {
    least = Math.min(least, position);
    most = Math.max(most, position);
  }
  return { index: index.map((position) => position - least), weights, count, width, first: least, last: most + 1 };
}

function kernel({ interpolation, antialias }: Preprocessing, at: number): number {
  const x = Math.abs(at);
  if (interpolation === "bilinear") return Math.max(1 - x, 0);
  const a = antialias ? -0.5 : -0.75; // Pillow's, and torch's without antialiasing
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/** Lines of numbers inside an array: number i of line n is at start + n line + i step. */
interface Lines {
  readonly data: Uint8ClampedArray | Float32Array | Float64Array;
  readonly start: number;
  readonly lines: number;
  readonly line: number;
  readonly step: number;
}

/** Resample every line to [lines, taps.count] by weights of 22 bits, rounded to bytes or left as it is. */
function convolve(lines: Lines, taps: Taps, rounded: boolean): Float64Array {
  // Products of bytes and 22-bit weights: their sums are exact, as Pillow's in int32 are.
  return weighted(lines, taps).map((exact) => {
    const total = exact / 2 ** PRECISION;
    return rounded ? Math.min(Math.max(Math.floor(total + 0.5), 0), 255) : total;
  });
}

/** The weighted sums of every line: [lines, taps.count]. */
function weighted({ data, start, lines, line, step }: Lines, taps: Taps): Float64Array {
  const { count, width, weights } = taps;
  const places = taps.index.map((position) => position * step);
  const out = new Float64Array(lines * count);
  for (let n = 0; n < lines; n++) {
    const from = start + n * line;
    for (let i = 0; i < count; i++) {
      let total = 0;
      for (let tap = i * width; tap < (i + 1) * width; tap++) total += data[from + places[tap]] * weights[tap];
      out[n * count + i] = total;
    }
  }
  return out;
}
