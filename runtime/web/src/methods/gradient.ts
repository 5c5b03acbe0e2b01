/**
 * The gradient methods as functions of arrays; formulas and sources are in `ortcam/methods/gradient.py`.
 *
 * A are the maps of a layer, g = d logit_c / dA. What a method gives is its map before ReLU, at the layer's resolution.
 */
import { type Maps, upsample } from "../scoring/upsampling";
import type { PlainGradientMethod } from "./methods";

// What rounding leaves of a sum that cancels, relative to the sum of the absolute values.
const CANCELLED = 1e-5;
const FUSED_SLOPE = 2;

/** Maps of a layer and the gradient of the logit there. */
export interface Slope {
  readonly maps: Maps;
  readonly gradient: Maps;
}

/** A map before ReLU: float64 [height, width]. */
export interface RawMap {
  readonly data: Float64Array;
  readonly height: number;
  readonly width: number;
}

/** The map of a method that takes one gradient. */
export function gradientMap(method: PlainGradientMethod, slope: Slope): RawMap {
  switch (method) {
    case "grad-cam":
    case "finer-cam":
      return weighted(slope.maps, perChannel(slope, (_, g) => g.reduce(add, 0) / g.length));
    case "grad-cam++":
      return weighted(slope.maps, perChannel(slope, plusPlus));
    case "xgrad-cam":
      return weighted(slope.maps, perChannel(slope, shareOfMap));
    case "layer-cam":
      return summed(slope, (a, g) => Math.max(g, 0) * a);
    case "hires-cam":
      return hiresCam(slope);
  }
}

/** One map of those of several layers (LayerCAM, eq. 8 and 9): the largest of tanh(2 M / max M), M = ReLU(raw). */
export function fuse(raws: readonly RawMap[], to: { readonly height: number; readonly width: number }): RawMap {
  const data = new Float64Array(to.height * to.width);
  for (const { data: raw, ...size } of raws) {
    const most = raw.reduce((high, value) => Math.max(high, value), 0);
    if (most === 0) continue;
    const scaled = raw.map((value) => Math.tanh((FUSED_SLOPE * Math.max(value, 0)) / most));
    for (const [i, value] of upsample(scaled, size, to).entries()) data[i] = Math.max(data[i], value);
  }
  return { data, ...to };
}

/** What is differentiated: the logit of a class. */
export function oneHot(classes: number, target: number): Float32Array {
  const seed = new Float32Array(classes);
  seed[target] = 1;
  return seed;
}

/** What Finer-CAM differentiates: y_c - strength y_d, the mean over the classes d whose logits are closest to y_c. */
export function finerSeed(
  logits: Float32Array,
  target: number,
  { strength, references }: { readonly strength: number; readonly references: number },
): Float32Array {
  const seed = oneHot(logits.length, target);
  const distance = (c: number): number => Math.abs(logits[c] - logits[target]);
  const others = [...logits.keys()].filter((c) => c !== target);
  const similar = others.sort((a, b) => distance(a) - distance(b) || a - b).slice(0, references);
  for (const c of similar) seed[c] = -strength / similar.length;
  return seed;
}

/** sum_ij a relu(g) with a = g^2 / (2 g^2 + (sum_ab A_ab) g^3), 0 where g = 0: Grad-CAM++, equation 19. */
function plusPlus(maps: Float32Array, gradient: Float32Array): number {
  const total = maps.reduce(add, 0);
  return gradient.reduce((sum, g) => sum + (g > 0 ? g * alpha(g ** 2, g ** 3, total) : 0), 0);
}

function alpha(square: number, cube: number, total: number): number {
  const below = 2 * square + total * cube;
  return below === 0 ? 0 : square / below;
}

/** sum g A / sum A; 0 where the map sums up to nothing. */
function shareOfMap(maps: Float32Array, gradient: Float32Array): number {
  const total = maps.reduce(add, 0);
  return total === 0 ? 0 : maps.reduce((sum, a, i) => sum + a * gradient[i], 0) / total;
}

/** sum_k g_k A_k, and 0 where rounding alone is left of it, as of tokens that a LayerNorm follows. */
function hiresCam(slope: Slope): RawMap {
  const raw = summed(slope, (a, g) => g * a);
  const sizes = summed(slope, (a, g) => Math.abs(g * a));
  const most = ({ data }: RawMap): number => data.reduce((high, value) => Math.max(high, Math.abs(value)), 0);
  return most(raw) > CANCELLED * most(sizes) ? raw : { ...raw, data: new Float64Array(raw.data.length) };
}

/** One number per channel of the maps: float64 [C]. */
function perChannel({ maps, gradient }: Slope, weigh: (a: Float32Array, g: Float32Array) => number): Float64Array {
  const size = maps.height * maps.width;
  return Float64Array.from({ length: maps.count }, (_, k) =>
    weigh(maps.data.subarray(k * size, (k + 1) * size), gradient.data.subarray(k * size, (k + 1) * size)),
  );
}

/** sum_k w_k A_k */
function weighted({ data, height, width }: Maps, weights: Float64Array): RawMap {
  const size = height * width;
  const out = new Float64Array(size);
  for (const [k, weight] of weights.entries()) {
    if (weight === 0) continue;
    for (let i = 0; i < size; i++) out[i] += weight * data[k * size + i];
  }
  return { data: out, height, width };
}

/** sum_k f(A_k, g_k), position by position */
function summed({ maps, gradient }: Slope, of: (a: number, g: number) => number): RawMap {
  const { height, width } = maps;
  const size = height * width;
  const out = new Float64Array(size);
  for (let i = 0; i < maps.data.length; i++) out[i % size] += of(maps.data[i], gradient.data[i]);
  return { data: out, height, width };
}

function add(a: number, b: number): number {
  return a + b;
}

/** Smooth Grad-CAM++: Grad-CAM++ with the means of g, g^2 and g^3 over noisy inputs, and the maps of the clean one. */
export class SmoothSums {
  private readonly sums: readonly Float64Array[]; // of g, g^2 and g^3
  private samples = 0;

  constructor(private readonly clean: Maps) {
    this.sums = [1, 2, 3].map(() => new Float64Array(clean.data.length));
  }

  /** Take another noisy input in. */
  add({ gradient }: Slope): void {
    this.samples += 1;
    for (const [i, g] of gradient.data.entries()) {
      for (const [power, sum] of this.sums.entries()) sum[i] += g ** (power + 1);
    }
  }

  map(): RawMap {
    const { clean } = this;
    const size = clean.height * clean.width;
    const [first, square, cube] = this.sums.map((sum) => sum.map((value) => value / this.samples));
    const weights = Float64Array.from({ length: clean.count }, (_, k) => {
      const total = clean.data.subarray(k * size, (k + 1) * size).reduce(add, 0);
      let weight = 0;
      for (let i = k * size; i < (k + 1) * size; i++) {
        if (first[i] > 0) weight += alpha(square[i], cube[i], total) * first[i];
      }
      return weight;
    });
    return weighted(clean, weights);
  }
}
