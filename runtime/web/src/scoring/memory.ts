/**
 * What the frames of a camera have taught, for the next one, and when it is forgotten.
 *
 * The same as `ortcam/scoring/prediction/memory.py`, where it is explained.
 */
import { quantile } from "./gaussian_process";
import { type Matrix, matrix } from "./linear_algebra";
import type { Before } from "./trend";

const CUT = 0.5; // how far masks may have moved, over their distances among each other
const [MOST_FRAMES, MOST_CLASSES] = [16, 64]; // for which a class is remembered that is not explained, and classes
const LEAST_MOVED = 1e-3; // the least median movement; over it 1 is the largest u

/** What is known of a class: by channel, NaN where it is not. */
interface Kept {
  readonly y: Float64Array; // [C]
  readonly unknown: Float64Array; // [C]
  readonly frame: number;
}

/** The channels of a frame, as the process sees them. */
export interface Seen {
  readonly order: readonly number[]; // [L], the active channels
  readonly features: Matrix; // [L, d], of their masks
  readonly unit: number; // the median squared distance of two of them
}

export class Memory {
  private readonly kept = new Map<number, Kept>();
  private features: Matrix | null = null; // [C, d]; NaN where flat
  private frame = 0;

  /** Whether nothing is remembered, as before the first frame. */
  get empty(): boolean {
    return this.features === null;
  }

  /** What the frames before say of a class; null: nothing, and all is forgotten where the camera shows another scene. */
  before(target: number, seen: Seen): Before | null {
    if (this.features === null) return null;
    const moved = movements(seen, this.features);
    const typical = median(moved);
    if (typical > CUT) {
      this.kept.clear();
      this.features = null;
      return null;
    }
    const kept = this.kept.get(target);
    if (kept === undefined) return null;
    const y = Float64Array.from(seen.order, (channel) => kept.y[channel]);
    const unknown = Float64Array.from(seen.order, (channel) => kept.unknown[channel] + this.frame - kept.frame);
    const known = [...y.keys()].filter((place) => Number.isFinite(y[place]));
    if (known.length < Math.max(y.length / 2, 1)) return null;
    const mean = known.reduce((total, place) => total + y[place], 0) / known.length;
    const most = known.reduce((high, place) => Math.max(high, unknown[place]), 0);
    for (const place of y.keys()) {
      const isNew = !Number.isFinite(y[place]);
      if (isNew) [y[place], unknown[place]] = [mean, most];
      const far = (!isNew && moved[place] < 1 ? moved[place] : 1) / Math.max(typical, LEAST_MOVED);
      unknown[place] = Math.min(unknown[place] + Math.max(far - 1, 0), 1 / LEAST_MOVED);
    }
    return { y, unknown };
  }

  /** Take in what is known of a frame. @param channels of the layer */
  keep(target: number, channels: number, { order, features }: Seen, known: Before): void {
    this.frame += 1;
    const [y, unknown] = [new Float64Array(channels).fill(NaN), new Float64Array(channels).fill(NaN)];
    const all = matrix(channels, features.columns);
    all.data.fill(NaN);
    for (const [place, channel] of order.entries()) {
      [y[channel], unknown[channel]] = [known.y[place], known.unknown[place]];
      const row = features.data.subarray(place * features.columns, (place + 1) * features.columns);
      all.data.set(row, channel * features.columns);
    }
    this.features = all;
    this.kept.delete(target); // so that the oldest come first
    this.kept.set(target, { y, unknown, frame: this.frame });
    for (const [index, { frame }] of this.kept) {
      if (this.frame - frame > MOST_FRAMES || this.kept.size > MOST_CLASSES) this.kept.delete(index);
    }
  }

  /** A frame of which nothing can be kept: all that is known is older by one. */
  skip(): void {
    this.frame += 1;
  }
}

/** How far each mask has moved, over their distances among each other: [L]; NaN where it was flat. */
function movements({ order, features: { data, columns }, unit }: Seen, before: Matrix): Float64Array {
  return Float64Array.from(order, (channel, place) => {
    if (columns !== before.columns) return NaN;
    let total = 0;
    for (let i = 0; i < columns; i++) total += (data[place * columns + i] - before.data[channel * columns + i]) ** 2;
    return total / unit;
  });
}

/** The median movement; infinite where no channel has one. */
function median(moved: Float64Array): number {
  const finite = [...moved].filter(Number.isFinite);
  return finite.length > 0 ? quantile(finite, 0.5) : Infinity;
}
