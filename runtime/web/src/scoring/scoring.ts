/** The scoring loop: masked forward passes in chunks, each one run of a scorer graph, whose scores are kept for all classes. */
import type { InferenceSession } from "onnxruntime-web";
import { OrtcamError } from "../errors";
import { gateFunction } from "./gates";
import type { Masks } from "./masks";
import type { Plan } from "../methods/methods";
import type { Columns } from "../request/score";
import { drawNoise, shuffled } from "./noise";
import { type Feeds, run, type Runtime } from "../engine/session";
import { type Maps, upsample } from "./upsampling";

/** What is scored. */
export interface Work {
  readonly input: Float32Array; // [channels, height, width], the preprocessed image
  readonly height: number;
  readonly width: number;
  readonly features: Maps;
  readonly masks: Masks;
  readonly plan: Plan;
  readonly columns: Columns; // that are scored: all classes, or one score
  readonly offset: Float32Array | null; // [columns], subtracted from values, which may be negative; null: probabilities
}

// Of the sum of the weights: a channel below that changes no map, and need not be gated.
const NEGLIGIBLE = 1e-10;
const TINIEST = 2 ** -126; // the smallest normal float32
const ROUNDING = 8 * 2 ** -23; // of values, over the largest of them

/** The masked passes of one image, made a group of channels at a time; what they gave is kept for every class. A target is a place among the columns. */
export class Scoring {
  private readonly sums: Float32Array; // [C, columns], of the scores
  private readonly counts: Int32Array; // [C], passes
  private readonly spread: Float32Array; // [C], of the noise
  private readonly fixed: Feeds;
  passes = 0;
  runs = 0;

  /** @param size masked images a run */
  constructor(
    private readonly runtime: Runtime,
    private readonly scorer: InferenceSession,
    readonly work: Work,
    readonly size: number,
  ) {
    const { input, height, width, masks, plan, columns } = work;
    const classes = columns.targets.length;
    const { maps } = masks;
    this.sums = new Float32Array(maps.count * classes);
    this.counts = new Int32Array(maps.count);
    this.spread = plan.seed === null ? new Float32Array(maps.count) : noiseSpread(work);
    const { Tensor } = runtime.library;
    this.fixed = {
      image: this.float(input, 1, input.length / (height * width), height, width),
      maps: this.float(maps.data, 1, maps.count, maps.height, maps.width),
      targets: new Tensor(
        "int64",
        BigInt64Array.from(columns.targets, BigInt),
        [classes],
      ),
      baseline: this.float(new Float32Array(classes), classes),
      score: this.float(columns.row, 1, columns.row.length),
      logit_softmax: new Tensor("bool", Uint8Array.of(0), []),
    };
  }

  /** The live channels, by descending energy: what is called a place is an index into them. */
  get order(): readonly number[] {
    return this.work.masks.order;
  }

  /** The places whose channels have all their samples, ascending. */
  get scored(): number[] {
    const samples = this.work.plan.coefficients.length;
    return [...this.order.keys()].filter((place) => this.counts[this.order[place]] === samples);
  }

  /** Whether a place has a sample at all. */
  hasAny(place: number): boolean {
    return this.counts[this.order[place]] > 0;
  }

  get complete(): boolean {
    return this.scored.length === this.order.length;
  }

  /** The weights of a class by place, [L]: means of the samples so far; 0 where there is none. */
  weights(target: number): Float64Array {
    const { columns, offset } = this.work;
    const classes = columns.targets.length;
    let most = Math.abs(offset?.[target] ?? 0);
    const weights = Float64Array.from(this.order, (channel) => {
      const count = this.counts[channel];
      if (count === 0) return 0;
      const mean = this.sums[channel * classes + target] / count;
      most = Math.max(most, Math.abs(mean));
      return offset === null ? Math.max(mean, TINIEST) : mean - offset[target];
    });
    // What rounding leaves of values that are all the same is no weight.
    return offset !== null && weights.every((weight) => Math.abs(weight) <= ROUNDING * most) ? weights.fill(0) : weights;
  }

  /**
   * Make the passes of some places that have none yet; yields after every run of the graph.
   *
   * Samples outside, channels inside: whoever looks in between sees all of these channels with a few samples. So the
   * steps of a path come in random order. What an earlier call left half done is begun anew.
   *
   * @throws OrtcamError a score is not a number
   */
  async *run(places: readonly number[]): AsyncGenerator<void, void, void> {
    const { plan, input, height, width, columns } = this.work;
    const classes = columns.targets.length;
    const shape = [1, input.length / (height * width), height, width];
    const channels = places.map((place) => this.order[place]);
    for (const channel of channels) {
      this.passes -= this.counts[channel];
      this.counts[channel] = 0;
      this.sums.fill(0, channel * classes, (channel + 1) * classes);
    }
    for (const [sample, coefficient] of shuffled(plan.coefficients).entries()) {
      const noise =
        plan.seed === null ? null : this.float(drawNoise(input.length, plan.seed, sample), ...shape);
      for (let start = 0; start < channels.length; start += this.size) {
        await this.runChunk(channels.slice(start, start + this.size), coefficient, noise === null ? {} : { noise });
        yield;
      }
    }
  }

  private async runChunk(chunk: readonly number[], coefficient: number, noise: Feeds): Promise<void> {
    const classes = this.work.columns.targets.length;
    const { Tensor } = this.runtime.library;
    // A GPU compiles for every new shape, so there the last chunk is as long as the others.
    const rows = this.runtime.provider === "webgpu" ? this.size : chunk.length;
    const padded = Array.from({ length: rows }, (_, i) => chunk[Math.min(i, chunk.length - 1)]);
    const feeds: Feeds = {
      ...this.fixed,
      ...noise,
      channels: new Tensor("int64", BigInt64Array.from(padded, BigInt), [rows]),
      scale: this.float(new Float32Array(rows).fill(coefficient), rows),
      sigma: this.float(
        Float32Array.from(padded, (channel) => this.spread[channel]),
        rows,
      ),
      keep: this.float(new Float32Array(rows), rows),
    };
    const [probabilities] = await run(this.scorer, feeds, ["probabilities"]);
    if (probabilities.length !== rows * classes || !probabilities.every(Number.isFinite)) {
      throw new OrtcamError("the score of a masked image is not a number: the model's values are too large");
    }
    for (const [row, channel] of chunk.entries()) {
      for (let i = 0; i < classes; i++) this.sums[channel * classes + i] += probabilities[row * classes + i];
      this.counts[channel] += 1;
    }
    this.passes += chunk.length;
    this.runs += 1;
  }

  private float(data: Float32Array, ...dims: number[]) {
    return new this.runtime.library.Tensor("float32", data, dims);
  }
}

/** What the weights are summed over, at feature resolution: gated, min-maxed or raw maps by place, [L, h, w]. */
export function summandsOf({ masks, plan, features }: Work): Maps {
  return picked(plan.gate !== null || plan.normalized ? masks.maps : features, masks.order, plan.gate);
}

/** The masks at feature resolution, as they multiply the image, by place: [L, h, w]. */
export function gatedMasks({ masks, plan }: Work): Maps {
  return picked(masks.maps, masks.order, plan.gate);
}

function picked({ data, height, width }: Maps, channels: readonly number[], gate: Plan["gate"]): Maps {
  const size = height * width;
  const out = new Float32Array(channels.length * size);
  for (const [place, channel] of channels.entries()) {
    out.set(data.subarray(channel * size, (channel + 1) * size), place * size);
  }
  return { data: gate === null ? out : out.map(gateFunction(gate)), count: channels.length, height, width };
}

/**
 * The weighted sum before ReLU: float64, at feature resolution where U is linear, else [height, width] / step.
 *
 * @param weights by place, [L]
 * @param step pixels from one that is gated to the next
 */
export function rawMap(work: Work, weights: Float64Array, step: number): { data: Float64Array } & Size {
  const { features, masks, plan } = work;
  if (plan.gate !== null) return gatedSum(work, weights, step);
  const { data: summed, height, width } = plan.normalized ? masks.maps : features;
  const size = height * width;
  const data = new Float64Array(size);
  for (const [place, channel] of masks.order.entries()) {
    const weight = weights[place];
    if (weight === 0) continue;
    for (let i = 0; i < size; i++) data[i] += weight * summed[channel * size + i];
  }
  return { data, height, width };
}

interface Size {
  readonly height: number;
  readonly width: number;
}

/** Sum alpha_k gate(U(A_k)), gated at one pixel in `step` of both axes. */
function gatedSum({ masks, plan, ...work }: Work, weights: Float64Array, step: number) {
  const { maps, order } = masks;
  const gate = gateFunction(plan.gate);
  const to = { height: Math.ceil(work.height / step), width: Math.ceil(work.width / step) };
  const size = maps.height * maps.width;
  const data = new Float64Array(to.height * to.width);
  const least = NEGLIGIBLE * weights.reduce((total, weight) => total + Math.abs(weight), 0);
  for (const [place, channel] of order.entries()) {
    const weight = weights[place];
    if (Math.abs(weight) <= least) continue;
    const mask = upsample(maps.data.subarray(channel * size, (channel + 1) * size), maps, to);
    for (let i = 0; i < data.length; i++) data[i] += weight * gate(mask[i]);
  }
  return { data, ...to };
}

/** ReLU at image size and min-max: float32 [height, width] in [0, 1]; flat is beyond the rounding of float32 sums. */
export function finish(raw: { data: Float64Array } & Size, { height, width }: Size): { data: Float32Array; flat: boolean } {
  const full = raw.data.length === height * width ? raw.data : upsample(raw.data, raw, { height, width });
  let [low, high, scale] = [Infinity, 0, 0];
  for (const value of full) {
    low = Math.min(low, Math.max(value, 0));
    high = Math.max(high, value);
    scale = Math.max(scale, Math.abs(value));
  }
  const span = high - low;
  const flat = span <= 8 * 2 ** -23 * scale;
  const data = new Float32Array(height * width);
  if (!flat) full.forEach((value, i) => (data[i] = (Math.max(value, 0) - low) / span));
  return { data, flat };
}

/** sigma_k of the authors, float32 [C]: (2 / (max M_k - min M_k))^2 of the masked image M_k = X s(U(A_k)). */
function noiseSpread({ input, height, width, masks }: Work): Float32Array {
  const { maps, order } = masks;
  const size = maps.height * maps.width;
  const spread = new Float32Array(maps.count);
  for (const channel of order) {
    const mask = upsample(maps.data.subarray(channel * size, (channel + 1) * size), maps, { height, width });
    let [low, high] = [Infinity, -Infinity];
    for (let start = 0; start < input.length; start += mask.length) {
      for (let i = 0; i < mask.length; i++) {
        const value = mask[i] * input[start + i];
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    spread[channel] = high > low ? (2 / (high - low)) ** 2 : 0;
  }
  return spread;
}
