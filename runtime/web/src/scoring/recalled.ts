/**
 * Weights that earlier frames scored, as observations of what they are in this one.
 *
 * The same as `ortcam/scoring/prediction/recalled.py`, where the formulas and their source stand, for one class.
 */
import { sum } from "./linear_algebra";

export const FEWEST_AGAIN = 4; // channels scored before and now, below which nothing is recalled
const WORST = 2; // mean square of what recalling misses, over that of what the process misses
const LEAST_CHANGE = 1e-5; // c^2
const LEAST_VARIANCE = 1e-4;
const [LEAST_SLOPE, LARGEST_SLOPE] = [0.25, 4];
const TINIEST = 2 ** -1022; // the smallest normal float64

/** What earlier frames say, or what is known after a frame; by place, [L]. */
export interface Before {
  readonly y: Float64Array; // z: what is modelled of the weights; of channels that no frame scored it is predicted
  readonly age: Float64Array; // u: 0 where this frame scored it, infinite where none did
  readonly open: Float64Array; // variance that is left of y
  readonly change: number; // c^2
}

/** The n channels that were scored before, and not in this frame. */
export interface Recalled {
  readonly channels: readonly number[];
  readonly y: Float64Array; // [n], on the scale of this frame
  readonly noise: Float64Array; // [n], variance of the changes since, over that of y
  readonly change: number; // c^2
  readonly missed: ReadonlyMap<number, number>; // y less b_0 + b_1 z of the channels scored before and now, by place
}

/**
 * Whether what channels were says enough of what they are.
 *
 * @param scored places of channels that this frame scored
 * @param leftOut what the process misses y of these by, from the others alone
 */
export function helps(recalled: Recalled, scored: readonly number[], leftOut: Float64Array): boolean {
  let [own, others, count] = [0, 0, 0];
  for (const [i, k] of scored.entries()) {
    const missed = recalled.missed.get(k);
    if (missed === undefined) continue;
    own += missed ** 2;
    others += leftOut[i] ** 2;
    count++;
  }
  return count > 0 && own / count / Math.max(others / count, TINIEST) <= WORST;
}

/** What earlier frames say of the channels that this one did not score; null: too little to know how. @param y by place, where scored */
export function recall(before: Before, scored: readonly number[], y: Float64Array, signed: boolean): Recalled | null {
  const again = scored.filter((k) => Number.isFinite(before.age[k]));
  if (again.length < FEWEST_AGAIN) return null;
  const { level, slope } = line(before, again, y, signed);
  const missed = new Map(again.map((k) => [k, y[k] - level - slope * before.y[k]]));
  const residuals = again.map((k) => (missed.get(k) ?? 0) ** 2 / before.age[k]);
  const change = Math.max(residuals.reduce((a, b) => a + b, 0) / again.length, LEAST_CHANGE);
  const own = Float64Array.from(scored, (k) => y[k]);
  const middle = sum(own) / own.length;
  const variance = sum(own.map((value) => (value - middle) ** 2)) / own.length;
  const here = new Set(scored);
  const channels = [...before.age.keys()].filter((k) => Number.isFinite(before.age[k]) && !here.has(k));
  return {
    channels,
    y: Float64Array.from(channels, (k) => level + slope * before.y[k]),
    noise: Float64Array.from(channels, (k) => (change / Math.max(variance, LEAST_VARIANCE)) * before.age[k]),
    change,
    missed,
  };
}

/** b_0 and b_1. @param again the channels that were scored before and now */
function line(before: Before, again: readonly number[], y: Float64Array, signed: boolean): { level: number; slope: number } {
  const total = again.reduce((part, k) => part + 1 / before.age[k], 0);
  const mean = (of: (k: number) => number): number => again.reduce((part, k) => part + of(k) / before.age[k] / total, 0);
  const [then, now] = [mean((k) => before.y[k]), mean((k) => y[k])];
  const within = (slope: number): number => Math.min(Math.max(slope, LEAST_SLOPE), LARGEST_SLOPE);
  if (!signed) return { level: 0, slope: within(now / Math.max(then, TINIEST)) };
  const ratio = mean((k) => (y[k] - now) ** 2) / Math.max(mean((k) => (before.y[k] - then) ** 2), TINIEST);
  const slope = within(Math.sqrt(ratio));
  return { level: now - slope * then, slope };
}
