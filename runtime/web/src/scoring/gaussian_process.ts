/**
 * The weights of channels that were not scored: a Gaussian process over masks predicts them, and says how well.
 *
 * The same model as `ortcam/scoring/gaussian_process.py`, where its formulas and their sources stand, for one class at a
 * time. Channels are places in the order of energy, 0 to L - 1.
 */
import {
  addOuter,
  cholesky,
  dot,
  invertLower,
  type Matrix,
  matrix,
  norm,
  picked,
  product,
  solved,
  solveLower,
  solveUpper,
  squaredLength,
  sum,
  symmetricEigen,
  transposed,
} from "./linear_algebra";
import { pooled, smoothed } from "./grids";
import { drawNoise } from "./noise";
import { type Before, helps, recall } from "./recalled";
import type { Maps } from "./upsampling";

const LENGTHS = [0.7, 1.0, 1.4, 2.0]; // times the median distance between masks
const NOISES = [1e-2, 3e-2, 1e-1, 3e-1, 1.0]; // variances, over s^2
const FOR_LIKELIHOOD = 64; // scored channels, about, that say length and noise
const [FOR_PREDICTION, FOR_FEW, FOR_EACH] = [512, 128, 4]; // scored channels that others are predicted from
const FOR_COVARIANCE = 384; // channels whose errors are correlated in the estimate; the others are independent
const [SAFETY, SAFETY_OF_FRAMES] = [2.0, 3.0]; // factors on the deviations of the estimate
const DRAWS = 96;
const QUANTILE = 0.97;
const LEAST_VARIANCE = 1e-4; // over the largest
const ROOT = 4; // what weights are the power of, where none is negative
const LEAST_UNIT = 1e-3; // over the mean of |phi|^2
const LEAST_SPREAD = 1e-12; // s^2
export const FIRST_CHANGE = 0.05; // over the variance of y, before a second frame tells it
const FEWEST = 8; // scored channels below which nothing is said of the error
const GOLDEN = 0.6180339887498949;
const TINIEST = 2 ** -126; // the smallest normal float32
const ROUNDING = 8 * 2 ** -23; // of signed weights, over the largest of them

/** The weights of all channels, given those scored. */
export interface Prediction {
  readonly weights: Float64Array; // [L]; those scored as they are
  readonly deviation: Float64Array; // [L], standard deviation of the others; 0 where scored
  readonly y: Float64Array; // [L], what is modelled of the weights; of those not scored the mean
  readonly scored: number; // how many were
  readonly recalls: boolean | null; // whether earlier frames count; null: nothing says
  readonly known: Before; // for the next frame
}

/** The process given weights; O channels were not scored, n are what the others are predicted from. */
interface Given {
  readonly open: readonly number[]; // [O]
  readonly scored: number; // how many
  readonly length: number;
  readonly noise: number;
  readonly spread: number; // s^2
  readonly top: number; // the largest weight; of signed ones the largest distance from their mean
  readonly safety: number;
  readonly mean: Float64Array; // [O]
  readonly variance: Float64Array; // [O], over s^2, without the noise; of a recalled channel less than it is at least
  readonly cross: Matrix; // [O, n], kernel, with the noise where a channel was recalled
  readonly root: Matrix; // [n, n], L^-1 of the kernel with noise
  readonly surprise: number;
}

/** The process over the masks of one image. */
export class MaskModel {
  readonly features: Matrix; // [L, d], phi
  readonly unit: number; // the median of |phi_i - phi_j|^2; where most masks are equal 0.001 of the mean of |phi|^2
  private readonly squares: Float64Array; // [L]
  private readonly power: number; // of what the process is over, that weights are
  private given: Given | null = null;

  /**
   * @param masks of the live channels, as the scorer multiplies with them (gated, scaled)
   * @param signed whether weights may be negative; then the process is over the weights themselves
   */
  constructor(masks: Maps, private readonly signed = false) {
    this.power = signed ? 1 : ROOT;
    this.features = smoothed(masks);
    const { data, columns } = this.features;
    this.squares = Float64Array.from({ length: masks.count }, (_, k) => {
      let total = 0;
      for (let i = k * columns; i < (k + 1) * columns; i++) total += data[i] ** 2;
      return total;
    });
    const most = Math.min(masks.count, 2 * FOR_LIKELIHOOD);
    const some = Array.from({ length: most }, (_, i) => Math.trunc((i * (masks.count - 1)) / Math.max(most - 1, 1)));
    const distances = this.distances(some, some, 1);
    const apart: number[] = [];
    for (let i = 0; i < most; i++) for (let j = i + 1; j < most; j++) apart.push(distances.data[i * most + j]);
    const median = apart.length > 0 ? quantile(apart, 0.5) : 0;
    this.unit = Math.max(median, (LEAST_UNIT * sum(this.squares)) / Math.max(masks.count, 1), 1e-12);
  }

  /**
   * Take in the weights scored so far and predict the others.
   *
   * @param scored places of the channels, ascending
   * @param scores [L], their weights, positive unless they are signed; what is elsewhere is not looked at
   * @param before what the frame before says, of a camera
   * @param decided whether that counts; null: it is found out here
   */
  condition(scored: readonly number[], scores: Float64Array, before: Before | null = null, decided: boolean | null = null): Prediction {
    const channels = this.features.rows;
    const known = new Set(scored);
    const open = Array.from({ length: channels }, (_, k) => k).filter((k) => !known.has(k));
    const { middle, top } = this.scaleOf(scored, scores);
    const most = Math.min(Math.max(FOR_FEW, FOR_EACH * open.length), FOR_PREDICTION);
    const now = some(scored, most);
    const modelled = this.modelled(scored, scores);
    const y = Float64Array.from(now, (k) => modelled[k]);
    const { length, noise } = this.likely(now, y);
    const found = before === null ? null : recall(before, scored, modelled, this.signed);
    const recalls = decided ?? (found === null ? null : helps(found, now, this.leftOut(now, y, length, noise)));
    const recalled = recalls === true ? found : null;
    const used = recalled === null ? [] : someOf(recalled.channels, Math.max(most - now.length, 1));
    const then = used.map((i) => recalled?.channels[i] ?? 0);
    const given = [...now, ...then];
    const n = given.length;
    const own = used.map((i) => this.allowed(recalled?.y[i] ?? 0));
    const noises = [...now.map(() => noise), ...used.map((i) => noise + (recalled?.noise[i] ?? 0))];
    const values = Float64Array.from([...y, ...own]);
    const root = invertLower(cholesky(kernelWithNoise(this.distances(given, given), length, noises)));
    const ones = solved(root, new Float64Array(n).fill(1));
    const mu = dot(ones, values) / sum(ones);
    const rest = values.map((value) => value - mu);
    const pulled = solved(root, rest);
    const spread = Math.max(dot(rest, pulled) / n, LEAST_SPREAD);
    let surprise = 0; // leave-one-out residuals over their own standard deviations: 1 where the variances are right
    for (const [i, own] of diagonal(root).entries()) surprise += pulled[i] ** 2 / own / n;
    surprise = Math.sqrt(surprise / spread);
    const cross = matern(this.distances(open, given), length);
    const placeOf = new Map(then.map((k, i) => [k, now.length + i]));
    const mean = new Float64Array(open.length);
    const variance = new Float64Array(open.length);
    for (const [place, k] of open.entries()) {
      const row = cross.data.subarray(place * n, (place + 1) * n);
      const at = placeOf.get(k);
      if (at !== undefined) row[at] += noise;
      mean[place] = this.allowed(mu + dot(row, pulled));
      variance[place] = Math.max(1 - squaredLength(root, row), at === undefined ? 0 : -noise);
    }
    const safety = before === null ? SAFETY : SAFETY_OF_FRAMES;
    this.given = { open, scored: scored.length, length, noise, spread, top, safety, mean, variance, cross, root, surprise };
    const weights = new Float64Array(channels);
    const deviation = new Float64Array(channels);
    for (const k of scored) weights[k] = scores[k];
    if (this.signed) {
      for (const [place, k] of open.entries()) {
        weights[k] = middle + top * mean[place];
        deviation[k] = top * deviationOf(mean[place], Math.max(variance[place], 0) * spread, true);
      }
    } else if (top > TINIEST) {
      for (const [place, k] of open.entries()) {
        const [m2, v] = [mean[place] ** 2, Math.max(variance[place], 0) * spread];
        weights[k] = top * (m2 ** 2 + 6 * m2 * v);
        deviation[k] = top * deviationOf(mean[place], v);
      }
    }
    const left = new Float64Array(channels);
    for (const [place, k] of open.entries()) {
      modelled[k] = mean[place];
      left[k] = (variance[place] + noise) * spread;
    }
    const [kept, age] = [modelled.slice(), new Float64Array(channels).fill(Infinity)];
    for (const k of scored) age[k] = 0;
    for (const [i, k] of recalled?.channels.entries() ?? []) {
      kept[k] = recalled?.y[i] ?? 0;
      age[k] = before?.age[k] ?? Infinity;
    }
    const change = recalled?.change ?? FIRST_CHANGE * spread;
    return { weights, deviation, y: modelled, scored: scored.length, recalls, known: { y: kept, age, open: left, change } };
  }

  /** What each y differs by from what the others make of it. @param y of some channels */
  private leftOut(channels: readonly number[], y: Float64Array, length: number, noise: number): Float64Array {
    const root = invertLower(cholesky(kernelWithNoise(this.distances(channels, channels), length, noise)));
    const ones = solved(root, new Float64Array(y.length).fill(1));
    const mu = dot(ones, y) / sum(ones);
    const pulled = solved(root, y.map((value) => value - mu));
    const own = diagonal(root);
    return pulled.map((value, i) => value / own[i]);
  }

  /** What is modelled, cut to what it can be. */
  private allowed(value: number): number {
    return this.signed ? value : Math.max(value, 0);
  }

  /** What is modelled of the weights of scored channels, by place: [L], 0 elsewhere. */
  modelled(scored: readonly number[], scores: Float64Array): Float64Array {
    const { middle, top } = this.scaleOf(scored, scores);
    const y = new Float64Array(this.features.rows);
    for (const k of scored) y[k] = top > 0 ? ((scores[k] - middle) / top) ** (1 / this.power) : 0;
    return y;
  }

  /** What is taken off the scores, and what they are divided by. */
  private scaleOf(scored: readonly number[], scores: Float64Array): { middle: number; top: number } {
    const most = scored.reduce((high, k) => Math.max(high, Math.abs(scores[k])), 0);
    if (!this.signed) return { middle: 0, top: most };
    const middle = scored.reduce((total, k) => total + scores[k], 0) / Math.max(scored.length, 1);
    const apart = scored.reduce((high, k) => Math.max(high, Math.abs(scores[k] - middle)), 0);
    return { middle, top: apart > ROUNDING * most ? apart : 0 };
  }

  /**
   * Largest difference that the finished map is likely to have from the exact one, in [0, 1]; 1 where nothing is known.
   *
   * @param prediction what `condition` returned last
   * @param summands what the weights are summed over, at feature resolution
   * @param normals standard normal, [DRAWS, cells]
   */
  mapError(prediction: Prediction, summands: Maps, normals?: ArrayLike<number>): number {
    const { given } = this;
    if (given === null || given.scored < FEWEST || given.top <= TINIEST) return 1;
    const cells = pooled(summands);
    const width = cells.columns;
    const slopes = given.mean.map((value) => value ** (this.power - 1));
    const importance = slopes.map((slope, place) => slope * norm(cells, given.open[place]));
    const ranked = [...given.open.keys()].sort((a, b) => importance[b] - importance[a] || a - b);
    const together = ranked.slice(0, FOR_COVARIANCE);
    const slope = (place: number): number => this.power * given.top * slopes[place];
    const b = matrix(together.length, width);
    for (const [row, place] of together.entries()) {
      for (let i = 0; i < width; i++) {
        b.data[row * width + i] = slope(place) * cells.data[given.open[place] * width + i];
      }
    }
    const places = together.map((place) => given.open[place]);
    const kernel = kernelWithNoise(this.distances(places, places), given.length, given.noise);
    const covariance = product(transposed(b), product(kernel, b));
    const known = product(given.root, product(transposed(picked(given.cross, together)), b));
    for (let k = 0; k < known.rows; k++) {
      addOuter(covariance, known.data.subarray(k * width, (k + 1) * width), -1);
    }
    for (const place of ranked.slice(FOR_COVARIANCE)) {
      const factor = slope(place) ** 2 * (given.variance[place] + given.noise);
      addOuter(covariance, cells.data.subarray(given.open[place] * width, (given.open[place] + 1) * width), factor);
    }
    const scale = given.spread * (given.safety * Math.max(1, given.surprise)) ** 2;
    for (let i = 0; i < covariance.data.length; i++) covariance.data[i] *= scale;
    const raw = new Float64Array(width);
    for (let k = 0; k < cells.rows; k++) {
      for (let i = 0; i < width; i++) raw[i] += prediction.weights[k] * cells.data[k * width + i];
    }
    return Math.min(quantile(differences(raw, covariance, normals ?? drawNoise(DRAWS * width, 0, 0)), QUANTILE), 1);
  }

  /** Length and noise: means of their logarithms over the grid, weighed by the marginal likelihood. */
  private likely(given: readonly number[], y: Float64Array): { length: number; noise: number } {
    const picked = someOf(given, FOR_LIKELIHOOD);
    const values = Float64Array.from(picked, (place) => y[place]);
    const channels = picked.map((place) => given[place]);
    const distances = this.distances(channels, channels);
    const n = values.length;
    const tried: { likelihood: number; logarithms: readonly number[] }[] = [];
    for (const length of LENGTHS) {
      for (const noise of NOISES) {
        const lower = cholesky(kernelWithNoise(distances, length, noise));
        let determinant = 0;
        for (let i = 0; i < n; i++) determinant += Math.log(lower.data[i * n + i]);
        const ones = solveUpper(lower, solveLower(lower, new Float64Array(n).fill(1)));
        const mu = dot(ones, values) / sum(ones);
        const rest = solveLower(lower, values.map((value) => value - mu));
        const spread = Math.max(dot(rest, rest) / n, LEAST_SPREAD);
        tried.push({ likelihood: -determinant - (n * Math.log(spread)) / 2, logarithms: [length, noise].map(Math.log) });
      }
    }
    const most = Math.max(...tried.map(({ likelihood }) => likelihood));
    const shares = tried.map(({ likelihood }) => Math.exp(likelihood - most));
    const total = shares.reduce((a, b) => a + b);
    const [length, noise] = [0, 1].map((which) =>
      Math.exp(tried.reduce((mean, { logarithms }, i) => mean + (shares[i] / total) * logarithms[which], 0)),
    );
    return { length, noise };
  }

  /** |phi_i - phi_j|^2 in units of the median. */
  private distances(some: readonly number[], others: readonly number[], unit = this.unit): Matrix {
    const { data, columns } = this.features;
    const out = matrix(some.length, others.length);
    for (const [row, i] of some.entries()) {
      for (const [column, j] of others.entries()) {
        let total = 0;
        for (let at = i * columns, other = j * columns; at < (i + 1) * columns; at++, other++) {
          total += data[at] * data[other];
        }
        out.data[row * others.length + column] =
          i === j ? 0 : Math.max(this.squares[i] + this.squares[j] - 2 * total, 0) / unit;
      }
    }
    return out;
  }
}

/** About as many of the channels as wanted, spread over all; all where they are no more. */
function some(channels: readonly number[], most: number): number[] {
  return someOf(channels, most).map((place) => channels[place]);
}

/** Their places: whether a channel is among them depends on its own number alone. */
function someOf(channels: readonly number[], most: number): number[] {
  const places = [...channels.keys()];
  if (channels.length <= most) return places;
  const chosen = places.filter((place) => (channels[place] * GOLDEN) % 1 < most / channels.length);
  return chosen.length > 0 ? chosen : places.slice(0, most);
}

/** The Matern kernel of order 3/2, in place of the squared distances. */
function matern(distances: Matrix, length: number): Matrix {
  const { data } = distances;
  for (let i = 0; i < data.length; i++) {
    const r = (Math.sqrt(3) / length) * Math.sqrt(data[i]);
    data[i] = (1 + r) * Math.exp(-r);
  }
  return distances;
}

/** @param noise the same for all, or of each */
function kernelWithNoise(distances: Matrix, length: number, noise: number | readonly number[]): Matrix {
  const kernel = matern({ ...distances, data: distances.data.slice() }, length);
  for (let i = 0; i < kernel.rows; i++) kernel.data[i * kernel.rows + i] += typeof noise === "number" ? noise : noise[i];
  return kernel;
}

/** Largest differences from a finished map of maps drawn around it. */
function differences(raw: Float64Array, covariance: Matrix, normals: ArrayLike<number>): number[] {
  const width = raw.length;
  const { values, vectors } = symmetricEigen(covariance);
  const largest = Math.max(...values, 0);
  const roots = values.map((value) => Math.sqrt(Math.max(value, 0) + LEAST_VARIANCE * largest));
  const scaled = matrix(width, width);
  for (let i = 0; i < width; i++) {
    for (let j = 0; j < width; j++) scaled.data[i * width + j] = vectors.data[i * width + j] * roots[j];
  }
  const root = product(scaled, transposed(vectors));
  const exact = finished(raw);
  return Array.from({ length: Math.floor(normals.length / width) }, (_, draw) => {
    const map = raw.slice();
    for (let i = 0; i < width; i++) {
      for (let j = 0; j < width; j++) map[j] += normals[draw * width + i] * root.data[i * width + j];
    }
    return finished(map).reduce((most, value, i) => Math.max(most, Math.abs(value - exact[i])), 0);
  });
}

/** ReLU and min-max. */
function finished(raw: Float64Array): Float64Array {
  const positive = raw.map((value) => Math.max(value, 0));
  const low = positive.reduce((a, b) => Math.min(a, b));
  const span = Math.max(positive.reduce((a, b) => Math.max(a, b)) - low, 1e-30);
  return positive.map((value) => (value - low) / span);
}

/** The standard deviation of a weight, over the largest, of mean and variance of what the process is over. */
export function deviationOf(mean: number, variance: number, signed = false): number {
  const [m2, v] = [mean ** 2, variance];
  return Math.sqrt(signed ? v : v * (16 * m2 ** 3 + v * (168 * m2 ** 2 + v * (384 * m2 + 96 * v))));
}

/** The value below which a share of them lies, interpolated as numpy does. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort();
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}

/** The diagonal of the inverse of a matrix, from L^-1 of it. */
function diagonal(root: Matrix): Float64Array {
  const n = root.columns;
  const own = new Float64Array(n);
  for (let i = 0; i < n; i++) for (let k = i; k < n; k++) own[i] += root.data[k * n + i] ** 2;
  return own;
}
