/**
 * What is known of the weights before any is scored: nothing, or what the frame before gave.
 *
 * The same as `ortcam/scoring/prediction/trend.py`, where the formulas and their source stand, for one class.
 */
import { dot, type Matrix, solved, solveLower, solveUpper, sum } from "./linear_algebra";

const GROWTHS = [0.2, 1, 5, 25, 125]; // w
const LEAST_SPREAD = 1e-12; // s^2
export const LEAST_SPREAD_OF_FRAMES = 1e-4;
const RIDGE = 1e-6; // of the slope

/** What the frame before says, by place. */
export interface Before {
  readonly y: Float64Array; // [L], z: what is modelled of the weights
  readonly unknown: Float64Array; // [L], u: the variance that was left, over s^2; 0 where scored
}

/** A level, or with a frame before it level and slope. */
export class Trend {
  readonly growths: readonly number[]; // the values of w that are tried
  readonly leastSpread: number; // what s^2 is at least

  constructor(private readonly before: Before | null) {
    this.growths = before === null ? [1] : GROWTHS;
    this.leastSpread = before === null ? LEAST_SPREAD : LEAST_SPREAD_OF_FRAMES;
  }

  /** sqrt(g) of some channels. */
  scale(channels: readonly number[], growth: number): Float64Array {
    const { before } = this;
    if (before === null) return new Float64Array(channels.length).fill(1);
    return Float64Array.from(channels, (channel) => Math.sqrt(1 + growth * before.unknown[channel]));
  }

  /** L^-1 of what is left of y. @param y over sqrt(g) */
  residual(lower: Matrix, channels: readonly number[], growth: number, y: Float64Array): Float64Array {
    if (this.before === null) {
      const ones = solveUpper(lower, solveLower(lower, new Float64Array(y.length).fill(1)));
      const mu = dot(ones, y) / sum(ones);
      return solveLower(lower, y.map((value) => value - mu));
    }
    const [one, z] = this.bases(this.before, channels, growth).map((basis) => solveLower(lower, basis));
    const turned = solveLower(lower, y);
    const { level, slope } = leastSquares(one, z, turned, one, z);
    return turned.map((value, i) => value - level * one[i] - slope * z[i]);
  }

  /** The trend at channels, over sqrt(g), and at others, not divided. @param root L^-1 of the kernel with noise */
  fitted(
    root: Matrix,
    channels: readonly number[],
    growth: number,
    y: Float64Array,
    others: readonly number[],
  ): { here: Float64Array; there: Float64Array } {
    const { before } = this;
    if (before === null) {
      const ones = solved(root, new Float64Array(y.length).fill(1));
      const mu = dot(ones, y) / sum(ones);
      return { here: new Float64Array(y.length).fill(mu), there: new Float64Array(others.length).fill(mu) };
    }
    const [one, z] = this.bases(before, channels, growth);
    const { level, slope } = leastSquares(one, z, y, solved(root, one), solved(root, z));
    return {
      here: one.map((value, i) => level * value + slope * z[i]),
      there: Float64Array.from(others, (channel) => level + slope * before.y[channel]),
    };
  }

  private bases(before: Before, channels: readonly number[], growth: number): [Float64Array, Float64Array] {
    const one = this.scale(channels, growth).map((value) => 1 / value);
    return [one, Float64Array.from(channels, (channel, i) => before.y[channel] * one[i])];
  }
}

/** Level and slope. @param oneWeighed by the inverse of the kernel, as `zWeighed` is */
function leastSquares(
  one: Float64Array,
  z: Float64Array,
  y: Float64Array,
  oneWeighed: Float64Array,
  zWeighed: Float64Array,
): { level: number; slope: number } {
  const [a, b] = [dot(oneWeighed, one), dot(oneWeighed, z)];
  const c = dot(zWeighed, z) + RIDGE * a;
  const [d, e] = [dot(oneWeighed, y), dot(zWeighed, y)];
  const slope = (a * e - b * d) / (a * c - b * b);
  return { level: (d - b * slope) / a, slope };
}
