/**
 * What the frames of a camera have taught, for the next one, and when it is forgotten.
 *
 * The same as `ortcam/scoring/prediction/memory.py`, where it is explained.
 */
import { quantile } from "./gaussian_process";
import { type Matrix, matrix } from "./linear_algebra";
import { type Before, FEWEST_AGAIN } from "./recalled";

const CUT = 0.5; // how far masks may have moved, over their distances among each other
const [MOST_FRAMES, MOST_CLASSES] = [16, 64]; // for which a class is remembered that is not explained, and classes
const LEAST_MOVED = 1e-3; // the least median movement

/** What is known of a class: by channel, [C], NaN where it was flat. */
interface Kept extends Before {
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
    const [y, age, open] = [kept.y, kept.age, kept.open].map((all) => Float64Array.from(seen.order, (channel) => all[channel]));
    let [mean, most, known, once] = [0, 0, 0, 0];
    for (const place of y.keys()) {
      if (isNew(place)) continue;
      const frames = this.frame - kept.frame + Math.max(Math.min(moved[place], 1) / Math.max(typical, LEAST_MOVED), 1);
      age[place] += frames;
      open[place] += frames * kept.change;
      [mean, most, known, once] = [mean + y[place], Math.max(most, open[place]), known + 1, once + Number(Number.isFinite(age[place]))];
    }
    if (once < FEWEST_AGAIN) return null;
    for (const place of y.keys()) if (isNew(place)) [y[place], age[place], open[place]] = [mean / known, Infinity, most];
    return { y, age, open, change: kept.change };

    function isNew(place: number): boolean {
      return !Number.isFinite(y[place]) || Number.isNaN(moved[place]);
    }
  }

  /** Take in what is known of a frame. @param channels of the layer */
  keep(target: number, channels: number, { order, features }: Seen, known: Before): void {
    this.frame += 1;
    const [y, age, open] = [known.y, known.age, known.open].map((values) => {
      const byChannel = new Float64Array(channels).fill(NaN);
      for (const [place, channel] of order.entries()) byChannel[channel] = values[place];
      return byChannel;
    });
    const all = matrix(channels, features.columns);
    all.data.fill(NaN);
    for (const [place, channel] of order.entries()) {
      const row = features.data.subarray(place * features.columns, (place + 1) * features.columns);
      all.data.set(row, channel * features.columns);
    }
    this.features = all;
    this.kept.delete(target); // so that the oldest come first
    this.kept.set(target, { y, age, open, change: known.change, frame: this.frame });
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
