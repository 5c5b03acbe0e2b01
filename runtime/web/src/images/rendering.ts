/** Pictures of maps, drawn as `ortcam.images.rendering` draws them: the heatmap that lies on a photograph, and both in one. */
import { type Colormap, colours } from "./colormaps";
import { type CropGeometry, type Pixels, roundHalfEven, type Side } from "./preprocessing";

/** A map: float32 [height, width] in [0, 1], at the size of the model's input. */
export interface SaliencyMap {
  readonly data: Float32Array;
  readonly height: number;
  readonly width: number;
}

/**
 * How a map is drawn: "rising" the more opaque the higher it is, with smooth edges, what the model did not see dimmed and
 * what it saw framed; "flat" all of it equally opaque, and nothing else.
 */
export const BLENDS = ["rising", "flat"] as const;
export type Blend = (typeof BLENDS)[number];
export const DEFAULT_ALPHA: Readonly<Record<Blend, number>> = { rising: 0.65, flat: 0.5 };

export interface Look {
  readonly colormap: Colormap;
  readonly blend: Blend;
  readonly alpha: number; // opacity where the map is highest, in [0, 1]
}

interface Size {
  readonly height: number;
  readonly width: number;
}

/** Of the map: below the first nothing is drawn, from the second on it is at its most opaque. */
const [BEGIN, FULL] = [0.1, 0.9];
const DIM = 0.6; // brightness of what the model did not see
const GREY = 0.5; // how much of its colour is taken away
const LUMA = [0.299, 0.587, 0.114]; // ITU-R BT.601

/** How opaque a value of a map is drawn, where 1 is the most. */
function opacity(value: number): number {
  const t = Math.min(Math.max((value - BEGIN) / (FULL - BEGIN), 0), 1);
  return t * t * (3 - 2 * t);
}

/**
 * The heatmap laid over a picture through crop and resize: bilinear, pixel centres at half-integers.
 *
 * @param size of the picture; that of the photograph, or a smaller one of the same proportions
 * @returns uint8 [height, width, 4], RGBA: its opacity is 255 where it is to be `Look.alpha`, and 0 beyond the crop
 */
export function heatmapOnPhotograph(
  map: SaliencyMap,
  geometry: CropGeometry,
  size: Size,
  { colormap, blend }: Omit<Look, "alpha">,
): Uint8ClampedArray<ArrayBuffer> {
  const out = new Uint8ClampedArray(4 * size.height * size.width);
  eachPixel(map, geometry, size, colours(colormap), (pixel, value, [red, green, blue]) => {
    out[pixel] = red;
    out[pixel + 1] = green;
    out[pixel + 2] = blue;
    out[pixel + 3] = blend === "flat" ? 255 : 255 * opacity(value);
  });
  return out;
}

/** Calls `draw` for every pixel that the model saw, with its place in an RGBA picture, the map's value and its colour. */
function eachPixel(
  map: SaliencyMap,
  geometry: CropGeometry,
  size: Size,
  palette: Uint8Array,
  draw: (pixel: number, value: number, colour: readonly [number, number, number]) => void,
): void {
  const rows = place({ ...geometry.rows, size: size.height }, map.height);
  const columns = place({ ...geometry.columns, size: size.width }, map.width);
  const colour: [number, number, number] = [0, 0, 0];
  for (let y = rows.begin; y < rows.end; y++) {
    const upper = rows.low[y] * map.width;
    const lower = rows.high[y] * map.width;
    for (let x = columns.begin; x < columns.end; x++) {
      const [left, right, share] = [columns.low[x], columns.high[x], columns.fraction[x]];
      const above = map.data[upper + left] * (1 - share) + map.data[upper + right] * share;
      const below = map.data[lower + left] * (1 - share) + map.data[lower + right] * share;
      const value = Math.min(Math.max(above * (1 - rows.fraction[y]) + below * rows.fraction[y], 0), 1);
      const level = 3 * roundHalfEven(value * 255);
      for (let channel = 0; channel < 3; channel++) colour[channel] = palette[level + channel];
      draw(4 * (y * size.width + x), value, colour);
    }
  }
}

/** Where the pixels of one side of the picture lie in the map: neighbours, weight of the second, which are in it. */
function place(side: Side, cells: number) {
  const low = new Int32Array(side.size);
  const high = new Int32Array(side.size);
  const fraction = new Float32Array(side.size);
  let [begin, end] = [side.size, 0];
  for (let i = 0; i < side.size; i++) {
    const at = (((i + 0.5) * side.resized) / side.size - side.offset) / side.crop;
    if (at >= 0 && at < 1) {
      begin = Math.min(begin, i);
      end = i + 1;
    }
    const position = Math.min(Math.max(at * cells - 0.5, 0), cells - 1);
    low[i] = Math.min(Math.floor(position), Math.max(cells - 2, 0));
    high[i] = Math.min(low[i] + 1, cells - 1);
    fraction[i] = position - low[i];
  }
  return { low, high, fraction, begin, end };
}

/** The pixels of a picture that the model saw: rows and columns from the first to behind the last. */
export interface Seen {
  readonly top: number;
  readonly left: number;
  readonly bottom: number;
  readonly right: number;
}

export function seenPart(geometry: CropGeometry, size: Size): Seen {
  const rows = place({ ...geometry.rows, size: size.height }, 1);
  const columns = place({ ...geometry.columns, size: size.width }, 1);
  return { top: rows.begin, left: columns.begin, bottom: rows.end, right: columns.end };
}

/** Dim what lies outside, and draw a thin frame there, white with a dark edge; in place. */
export function dimOutside({ data, height, width }: Pixels, { top, left, bottom, right }: Seen): void {
  const line = Math.max(1, roundHalfEven(Math.min(height, width) / 500));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const away = Math.max(top - y, y - bottom + 1, left - x, x - right + 1);
      if (away <= 0) {
        x = right - 1;
        continue;
      }
      const pixel = 4 * (y * width + x);
      const grey = LUMA[0] * data[pixel] + LUMA[1] * data[pixel + 1] + LUMA[2] * data[pixel + 2];
      for (let channel = pixel; channel < pixel + 3; channel++) {
        if (away <= line) data[channel] = 255;
        else if (away <= 2 * line) data[channel] = 32;
        else data[channel] = DIM * ((1 - GREY) * data[channel] + GREY * Math.round(grey));
      }
    }
  }
}

/** A map without the creases between the cells of a layer: a Gaussian of a sixth of a cell, scaled to the same peak. */
export function smoothed(map: SaliencyMap, cells: Size): SaliencyMap {
  const { height, width } = map;
  const across = blur(map.data, { lines: height, line: width, step: 1, length: width }, width / cells.width / 6);
  const data = blur(across, { lines: width, line: 1, step: width, length: height }, height / cells.height / 6);
  const [peak, highest] = [data, map.data].map((values) => values.reduce((most, value) => Math.max(most, value), 0));
  if (peak > 0) for (let i = 0; i < data.length; i++) data[i] = Math.min((data[i] * highest) / peak, 1);
  return { data, height, width };
}

/** Blur every line by a Gaussian, with the ends repeated and the kernel that OpenCV makes for float32. */
function blur(
  data: Float32Array,
  { lines, line, step, length }: { lines: number; line: number; step: number; length: number },
  sigma: number,
): Float32Array {
  const wide = Math.max(sigma, 0.01);
  const reach = Math.round(8 * wide + 1) >> 1;
  const kernel = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-((i - reach) ** 2) / (2 * wide ** 2)));
  const total = kernel.reduce((a, b) => a + b);
  const out = new Float32Array(data.length);
  for (let n = 0; n < lines; n++) {
    for (let i = 0; i < length; i++) {
      let value = 0;
      for (let k = -reach; k <= reach; k++) {
        const at = Math.min(Math.max(i + k, 0), length - 1);
        value += kernel[k + reach] * data[n * line + at * step];
      }
      out[n * line + i * step] = value / total;
    }
  }
  return out;
}

/** The photograph with the heatmap over the part that the model saw, RGBA. */
export function overlay(
  photograph: Pixels,
  map: SaliencyMap,
  geometry: CropGeometry,
  { colormap, blend, alpha, cells }: Look & { readonly cells: Size },
): Uint8ClampedArray<ArrayBuffer> {
  const { height, width } = photograph;
  const out = { data: photograph.data.slice(), height, width };
  const rising = blend === "rising";
  eachPixel(rising ? smoothed(map, cells) : map, geometry, photograph, colours(colormap), (pixel, value, colour) => {
    const weight = rising ? alpha * opacity(value) : alpha;
    for (let channel = 0; channel < 3; channel++) {
      out.data[pixel + channel] = weight * colour[channel] + (1 - weight) * photograph.data[pixel + channel];
    }
  });
  if (rising) dimOutside(out, seenPart(geometry, photograph));
  return out.data;
}
