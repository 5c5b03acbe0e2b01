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
import { drawNoise } from "./noise";
import type { Maps } from "./upsampling";

const BLUR = 0.7;
const BLUR_ENDS = 1e-4;
const LENGTHS = [0.7, 1.0, 1.4, 2.0]; // times the median distance between masks
const NOISES = [1e-2, 3e-2, 1e-1, 3e-1, 1.0]; // variances, over s^2
const MASK_GRID = 14; // cells a side; finer masks are averaged down to it
const ERROR_GRID = 7; // the same of the maps drawn for the estimate
const FOR_LIKELIHOOD = 64; // scored channels, about, that say length and noise
const [FOR_PREDICTION, FOR_FEW, FOR_EACH] = [512, 128, 4]; // scored channels that others are predicted from
const FOR_COVARIANCE = 384; // channels whose errors are correlated in the estimate; the others are independent
const SAFETY = 2.0; // factor on the deviations of the estimate
const DRAWS = 96;
const QUANTILE = 0.97;
const LEAST_VARIANCE = 1e-4; // over the largest
const ROOT = 4; // what weights are the power of, where none is negative
const FEWEST = 8; // scored channels below which nothing is said of the error
const GOLDEN = 0.6180339887498949;
const TINIEST = 2 ** -126; // the smallest normal float32
const ROUNDING = 8 * 2 ** -23; // of signed weights, over the largest of them

/** The weights of all channels, given those scored. */
export interface Prediction {
  readonly weights: Float64Array; // [L]; those scored as they are
  readonly deviation: Float64Array; // [L], standard deviation of the others; 0 where scored
}

/** The process given weights; O channels were not scored, n are what the others are predicted from. */
interface Given {
  readonly open: readonly number[]; // [O]
  readonly scored: number; // how many
  readonly length: number;
  readonly noise: number;
  readonly spread: number; // s^2
  readonly top: number; // the largest weight; of signed ones the largest distance from their mean
  readonly mean: Float64Array; // [O]
  readonly variance: Float64Array; // [O], over s^2
  readonly cross: Matrix; // [O, n], kernel
  readonly root: Matrix; // [n, n], L^-1 of the kernel with noise
  readonly surprise: number;
}

/** The process over the masks of one image. */
export class MaskModel {
  private readonly features: Matrix; // [L, d]
  private readonly squares: Float64Array; // [L]
  private readonly unit: number;
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
    this.unit = Math.max(apart.length > 0 ? quantile(apart, 0.5) : 0, 1e-12);
  }

  /**
   * Take in the weights scored so far and predict the others.
   *
   * @param scored places of the channels, ascending
   * @param scores [L], their weights, positive unless they are signed; what is elsewhere is not looked at
   */
  condition(scored: readonly number[], scores: Float64Array): Prediction {
    const channels = this.features.rows;
    const known = new Set(scored);
    const open = Array.from({ length: channels }, (_, k) => k).filter((k) => !known.has(k));
    const { middle, top } = this.scaleOf(scored, scores);
    const given = some(scored, Math.min(Math.max(FOR_FEW, FOR_EACH * open.length), FOR_PREDICTION));
    const y = Float64Array.from(given, (k) => top > 0 ? ((scores[k] - middle) / top) ** (1 / this.power) : 0);
    const { length, noise } = this.likely(given, y);
    const n = given.length;
    const root = invertLower(cholesky(kernelWithNoise(this.distances(given, given), length, noise)));
    const ones = solved(root, new Float64Array(n).fill(1));
    const mu = dot(ones, y) / sum(ones);
    const rest = y.map((value) => value - mu);
    const pulled = solved(root, rest);
    const spread = Math.max(dot(rest, pulled) / n, 1e-12);
    let surprise = 0; // leave-one-out residuals over their own standard deviations: 1 where the variances are right
    for (let i = 0; i < n; i++) {
      let own = 0;
      for (let k = i; k < n; k++) own += root.data[k * n + i] ** 2;
      surprise += pulled[i] ** 2 / own / n;
    }
    surprise = Math.sqrt(surprise / spread);
    const cross = matern(this.distances(open, given), length);
    const mean = new Float64Array(open.length);
    const variance = new Float64Array(open.length);
    for (let place = 0; place < open.length; place++) {
      const row = cross.data.subarray(place * n, (place + 1) * n);
      const expected = mu + dot(row, pulled);
      mean[place] = this.signed ? expected : Math.max(expected, 0);
      variance[place] = Math.max(1 - squaredLength(root, row), 0);
    }
    this.given = { open, scored: scored.length, length, noise, spread, top, mean, variance, cross, root, surprise };
    const weights = new Float64Array(channels);
    const deviation = new Float64Array(channels);
    for (const k of scored) weights[k] = scores[k];
    if (this.signed) {
      for (const [place, k] of open.entries()) {
        weights[k] = middle + top * mean[place];
        deviation[k] = top * Math.sqrt(variance[place] * spread);
      }
    } else if (top > TINIEST) {
      for (const [place, k] of open.entries()) {
        const [m2, v] = [mean[place] ** 2, variance[place] * spread];
        weights[k] = top * (m2 ** 2 + 6 * m2 * v);
        deviation[k] = top * Math.sqrt(v * (16 * m2 ** 3 + v * (168 * m2 ** 2 + v * (384 * m2 + 96 * v))));
      }
    }
    return { weights, deviation };
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
    const scale = given.spread * (SAFETY * Math.max(1, given.surprise)) ** 2;
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
    const likelihoods = LENGTHS.flatMap((length) =>
      NOISES.map((noise) => {
        const lower = cholesky(kernelWithNoise(distances, length, noise));
        const ones = solveUpper(lower, solveLower(lower, new Float64Array(n).fill(1)));
        const mu = dot(ones, values) / sum(ones);
        const turnedRest = solveLower(
          lower,
          values.map((value) => value - mu),
        );
        const spread = Math.max(dot(turnedRest, turnedRest) / n, 1e-12);
        let logarithms = 0;
        for (let i = 0; i < n; i++) logarithms += Math.log(lower.data[i * n + i]);
        return -logarithms - (n * Math.log(spread)) / 2;
      }),
    );
    const most = Math.max(...likelihoods);
    const shares = likelihoods.map((value) => Math.exp(value - most));
    const total = shares.reduce((a, b) => a + b);
    let [length, noise] = [0, 0];
    for (const [i, share] of shares.entries()) {
      length += (share / total) * Math.log(LENGTHS[Math.floor(i / NOISES.length)]);
      noise += (share / total) * Math.log(NOISES[i % NOISES.length]);
    }
    return { length: Math.exp(length), noise: Math.exp(noise) };
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

function kernelWithNoise(distances: Matrix, length: number, noise: number): Matrix {
  const kernel = matern({ ...distances, data: distances.data.slice() }, length);
  for (let i = 0; i < kernel.rows; i++) kernel.data[i * kernel.rows + i] += noise;
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

/** phi = G (sign(s) sqrt|s|), at most 14 cells a side: [L, d]. */
function smoothed(masks: Maps): Matrix {
  const rooted = Float64Array.from(masks.data, (value) => Math.sign(value) * Math.sqrt(Math.abs(value)));
  return along(rooted, masks, smoothing(masks.height), smoothing(masks.width));
}

function pooled(maps: Maps): Matrix {
  return along(maps.data, maps, pooling(maps.height, ERROR_GRID), pooling(maps.width, ERROR_GRID));
}

/** rows A columns' for every map A: [count, rows.rows * columns.rows]. */
function along(data: ArrayLike<number>, { count, height, width }: Maps, rows: Matrix, columns: Matrix): Matrix {
  const out = matrix(count, rows.rows * columns.rows);
  const right = transposed(columns);
  for (let k = 0; k < count; k++) {
    const map = matrix(height, width);
    for (let i = 0; i < height * width; i++) map.data[i] = data[k * height * width + i];
    out.data.set(product(product(rows, map), right).data, k * out.columns);
  }
  return out;
}

/** Blur by 0.7 cells, of the coarser grid where there is one: [min(size, 14), size]. */
function smoothing(size: number): Matrix {
  const pool = pooling(size, MASK_GRID);
  const blur = matrix(pool.rows, pool.rows);
  for (let i = 0; i < pool.rows; i++) {
    let total = 0;
    for (let j = 0; j < pool.rows; j++) {
      const value = Math.exp(-((i - j) ** 2) / (2 * BLUR ** 2));
      blur.data[i * pool.rows + j] = value < BLUR_ENDS ? 0 : value;
      total += blur.data[i * pool.rows + j];
    }
    for (let j = 0; j < pool.rows; j++) blur.data[i * pool.rows + j] /= total;
  }
  return product(blur, pool);
}

/** Averages over equal parts of an axis, [min(size, largest), size]; the identity where they are cells. */
function pooling(size: number, largest: number): Matrix {
  const parts = Math.min(size, largest);
  const pool = matrix(parts, size);
  for (let part = 0; part < parts; part++) {
    const [first, last] = [(part * size) / parts, ((part + 1) * size) / parts];
    for (let cell = 0; cell < size; cell++) {
      const overlap = Math.min(last, cell + 1) - Math.max(first, cell);
      pool.data[part * size + cell] = Math.max(overlap, 0) * (parts / size);
    }
  }
  return pool;
}

/** The value below which a share of them lies, interpolated as numpy does. */
function quantile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort();
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}
