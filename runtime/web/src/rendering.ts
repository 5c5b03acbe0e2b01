/** Pictures of maps: the heatmap as it lies on a photograph, and its blend with it. */
import { type Colormap, colours } from "./colormaps";
import { type CropGeometry, type Pixels, roundHalfEven, type Side } from "./preprocessing";

/** A map: float32 [height, width] in [0, 1], at the size of the model's input. */
export interface SaliencyMap {
  readonly data: Float32Array;
  readonly height: number;
  readonly width: number;
}

/**
 * The heatmap laid over a picture through crop and resize: bilinear, pixel centres at half-integers.
 *
 * @param size of the picture; that of the photograph, or a smaller one of the same proportions
 * @returns uint8 [height, width, 4], RGBA: opaque where the model saw the pixel, transparent where it did not
 */
export function heatmapOnPhotograph(
  map: SaliencyMap,
  geometry: CropGeometry,
  size: { height: number; width: number },
  colormap: Colormap,
): Uint8ClampedArray<ArrayBuffer> {
  const palette = colours(colormap);
  const rows = place({ ...geometry.rows, size: size.height }, map.height);
  const columns = place({ ...geometry.columns, size: size.width }, map.width);
  const out = new Uint8ClampedArray(4 * size.height * size.width);
  for (let y = rows.begin; y < rows.end; y++) {
    const upper = rows.low[y] * map.width;
    const lower = rows.high[y] * map.width;
    for (let x = columns.begin; x < columns.end; x++) {
      const [left, right, share] = [columns.low[x], columns.high[x], columns.fraction[x]];
      const above = map.data[upper + left] * (1 - share) + map.data[upper + right] * share;
      const below = map.data[lower + left] * (1 - share) + map.data[lower + right] * share;
      const value = above * (1 - rows.fraction[y]) + below * rows.fraction[y];
      const level = 3 * roundHalfEven(Math.min(Math.max(value, 0), 1) * 255);
      const pixel = 4 * (y * size.width + x);
      out[pixel] = palette[level];
      out[pixel + 1] = palette[level + 1];
      out[pixel + 2] = palette[level + 2];
      out[pixel + 3] = 255;
    }
  }
  return out;
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

/** The photograph with the heatmap over the part that the model saw: (1 - alpha) photograph + alpha heatmap, RGBA. */
export function overlay(
  photograph: Pixels,
  map: SaliencyMap,
  geometry: CropGeometry,
  { colormap, alpha }: { colormap: Colormap; alpha: number },
): Uint8ClampedArray<ArrayBuffer> {
  const heatmap = heatmapOnPhotograph(map, geometry, photograph, colormap);
  for (let i = 0; i < heatmap.length; i += 4) {
    const weight = heatmap[i + 3] === 0 ? 0 : alpha;
    for (let channel = i; channel < i + 3; channel++) {
      heatmap[channel] = roundHalfEven(weight * heatmap[channel] + (1 - weight) * photograph.data[channel]);
    }
    heatmap[i + 3] = 255;
  }
  return heatmap;
}
