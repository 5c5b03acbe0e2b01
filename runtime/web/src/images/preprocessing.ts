/** From a photograph to the model's input: what torchvision's classification preset does, bit for bit. */

/** A photograph: `data` is uint8 [height, width, 4], RGBA and opaque, upright. */
export interface Pixels {
  readonly data: Uint8ClampedArray<ArrayBuffer>;
  readonly height: number;
  readonly width: number;
}

/** The entry of bundle.json; `runtime/ortcam/images/preprocessing.py` says what each value means. */
export interface Preprocessing {
  readonly height: number;
  readonly width: number;
  readonly resize: number | null;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly interpolation: "bilinear" | "bicubic";
  readonly antialias: boolean;
  readonly channel_order: "rgb" | "bgr";
  readonly scale: number;
  readonly keep_aspect: boolean;
  readonly crop_rounding: "half-even" | "down";
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

/** Turn a photograph into the model's input: float32 [3, height, width], the channels in the model's order. */
export function preprocess(preprocessing: Preprocessing, photograph: Pixels): Float32Array {
  const { rows, columns } = cropGeometry(preprocessing, photograph.height, photograph.width);
  const down = taps(preprocessing, rows);
  const across = taps(preprocessing, columns);
  // Pillow 13's order, which counts because of the rounding in between.
  const heightFirst = rows.size - rows.resized > Math.max(2 * (columns.size - columns.resized), 0);
  const { height, width } = preprocessing;
  const [top, left] = [Math.max(-rows.offset, 0), Math.max(-columns.offset, 0)];
  const tables = levelTables(preprocessing);
  const input = new Float32Array(3 * height * width);
  for (let channel = 0; channel < 3; channel++) {
    const plane = preprocessing.channel_order === "rgb" ? channel : 2 - channel;
    const table = tables[channel];
    const out = input.subarray(channel * height * width, (channel + 1) * height * width).fill(table[0]);
    const picture = resample(photograph, plane, down, across, { heightFirst, rounded: preprocessing.antialias });
    for (let y = 0; y < down.count; y++) {
      for (let x = 0; x < across.count; x++) {
        const value = heightFirst ? picture[y * across.count + x] : picture[x * down.count + y];
        const level = Math.min(Math.max(roundHalfEven(value), 0), 255);
        out[(top + y) * width + left + x] = table[level];
      }
    }
  }
  return input;
}

/** One plane of the crop, [rows, columns] where the height comes first, else [columns, rows]: values of 0 to 255. */
function resample(
  photograph: Pixels,
  plane: number,
  down: Taps,
  across: Taps,
  { heightFirst, rounded }: { heightFirst: boolean; rounded: boolean },
): Float64Array {
  const line = 4 * photograph.width;
  // Only the pixels that the crop needs are read.
  const start = down.first * line + 4 * across.first + plane;
  if (heightFirst) {
    const columns = { data: photograph.data, start, lines: across.last - across.first, line: 4, step: line };
    const thin = convolve(columns, down, rounded);
    return convolve({ data: thin, start: 0, lines: down.count, line: 1, step: down.count }, across, rounded);
  }
  const rows = { data: photograph.data, start, lines: down.last - down.first, line, step: 4 };
  const thin = convolve(rows, across, rounded);
  return convolve({ data: thin, start: 0, lines: across.count, line: 1, step: across.count }, down, rounded);
}

/** What the 256 grey levels become, for each channel of the model: three float32 [256]. */
function levelTables(preprocessing: Preprocessing): Float32Array[] {
  return [0, 1, 2].map((channel) => {
    const mean = Math.fround(preprocessing.mean[channel]);
    const std = Math.fround(preprocessing.std[channel]);
    const level = (i: number): number => Math.fround((i * preprocessing.scale) / 255);
    return Float32Array.from({ length: 256 }, (_, i) => Math.fround(Math.fround(level(i) - mean) / std));
  });
}

/** Inputs (from `first` on) and integer weights, both [count, width], of the outputs along one side. */
interface Taps {
  readonly index: Int32Array;
  readonly weights: Float64Array;
  readonly count: number;
  readonly width: number;
  readonly first: number;
  readonly last: number;
}

/** What the cropped positions of a side are made of: `precompute_coeffs`, `normalize_coeffs_8bpc` of Resample.c. */
function taps(preprocessing: Preprocessing, { size, resized, offset, crop }: Side): Taps {
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
      weights[tap] = Math.trunc(weight * 2 ** PRECISION + (weight < 0 ? -0.5 : 0.5));
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
  readonly data: Uint8ClampedArray | Float64Array;
  readonly start: number;
  readonly lines: number;
  readonly line: number;
  readonly step: number;
}

/** Resample every line to [lines, taps.count], rounded to bytes or left as it is. */
function convolve({ data, start, lines, line, step }: Lines, taps: Taps, rounded: boolean): Float64Array {
  const { count, width, weights } = taps;
  const places = taps.index.map((position) => position * step);
  const out = new Float64Array(lines * count);
  for (let n = 0; n < lines; n++) {
    const from = start + n * line;
    for (let i = 0; i < count; i++) {
      let total = 0; // products of bytes and 22-bit weights: their sum is exact, as Pillow's in int32 is
      for (let tap = i * width; tap < (i + 1) * width; tap++) total += data[from + places[tap]] * weights[tap];
      total /= 2 ** PRECISION;
      out[n * count + i] = rounded ? Math.min(Math.max(Math.floor(total + 0.5), 0), 255) : total;
    }
  }
  return out;
}
