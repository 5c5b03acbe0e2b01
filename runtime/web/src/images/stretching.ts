/** Samples of any depth as pixels for the eye, as `ortcam.images.resampling.channels` shows them. */
import { type Pixels, roundHalfEven, type Samples } from "./preprocessing";

const SHOWN_PERCENTILES = [0.02, 0.98] as const; // of a band's samples: what becomes black, and what becomes white

/**
 * One band as grey, or three as RGB: each from its 2nd percentile, which is black, to its 98th, which is white.
 *
 * @param bands which of the samples' channels, one or three
 */
export function stretched({ data, height, width, channels }: Samples, bands: readonly number[]): Pixels {
  const out = new Uint8ClampedArray(4 * height * width).fill(255);
  for (let place = 0; place < 3; place++) {
    const band = bands[bands.length === 1 ? 0 : place];
    const plane = Float32Array.from({ length: height * width }, (_, pixel) => data[pixel * channels + band]);
    const levelOf = stretch(plane);
    for (let pixel = 0; pixel < plane.length; pixel++) out[4 * pixel + place] = levelOf(plane[pixel]);
  }
  return { data: out, height, width };
}

/** From a sample of a band to a level of 0 to 255. */
function stretch(plane: Float32Array): (sample: number) => number {
  const sorted = plane.slice().sort();
  let [low, high] = SHOWN_PERCENTILES.map((share) => percentile(sorted, share));
  if (!(low < high)) [low, high] = [sorted[0], sorted[sorted.length - 1]];
  if (!(low < high)) return () => 0;
  return (sample) => Math.min(Math.max(roundHalfEven(((sample - low) / (high - low)) * 255), 0), 255);
}

/** The value below which a share lies, interpolated as numpy does. */
function percentile(sorted: Float32Array, share: number): number {
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}
