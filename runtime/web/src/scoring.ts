/** The scoring loop: masked forward passes in chunks, each one run of a scorer graph, summed into weights and a map. */
import type { InferenceSession } from "onnxruntime-web";
import { OrtcamError } from "./errors";
import type { Masks } from "./masks";
import type { Plan } from "./methods";
import { drawNoise, shuffled } from "./noise";
import { type Feeds, run, type Runtime } from "./session";
import { type Maps, upsample } from "./upsampling";

/** What is scored. */
export interface Work {
  readonly input: Float32Array; // [3, height, width], the preprocessed image
  readonly height: number;
  readonly width: number;
  readonly features: Maps;
  readonly masks: Masks;
  readonly plan: Plan;
  readonly target: number;
  readonly limit: number; // channels, in order of energy
}

/** What the passes have given so far. */
export interface Scores {
  readonly sum: Float64Array; // [C], of the probabilities
  readonly count: Int32Array; // [C], passes
  readonly gated: Float64Array | null; // [height, width], sum of alpha_k gate(U(A_k)), where there is a gate
  passes: number;
  runs: number;
}

/**
 * Make the passes in chunks; yields the scores, the same object each time, after every run of the graph.
 *
 * Samples outside, channels inside: whoever looks in between sees all channels with a few samples. So the steps of a
 * path come in random order.
 *
 * @param size masked images a run
 * @throws OrtcamError a score is not a number
 */
export async function* score(
  runtime: Runtime,
  scorer: InferenceSession,
  work: Work,
  size: number,
): AsyncGenerator<Scores, void, void> {
  const { input, height, width, masks, plan } = work;
  const { Tensor } = runtime.library;
  const float = (data: Float32Array, ...dims: number[]) => new Tensor("float32", data, dims);
  const { maps } = masks;
  const scores: Scores = {
    sum: new Float64Array(maps.count),
    count: new Int32Array(maps.count),
    gated: plan.gate === null ? null : new Float64Array(height * width),
    passes: 0,
    runs: 0,
  };
  const spread = plan.seed === null ? new Float32Array(maps.count) : noiseSpread(work);
  const fixed = {
    image: float(input, 1, 3, height, width),
    maps: float(maps.data, 1, maps.count, maps.height, maps.width),
    targets: new Tensor("int64", BigInt64Array.of(BigInt(work.target)), [1]),
    baseline: float(new Float32Array(1), 1),
    logit_softmax: new Tensor("bool", Uint8Array.of(0), []),
  };
  const outputs = plan.gate === null ? ["probabilities"] : ["probabilities", "partial_maps"];
  const channels = masks.order.slice(0, work.limit);
  for (const [sample, coefficient] of shuffled(plan.coefficients).entries()) {
    const noise =
      plan.seed === null ? null : float(drawNoise(3 * height * width, plan.seed, sample), 1, 3, height, width);
    for (let start = 0; start < channels.length; start += size) {
      const chunk = channels.slice(start, start + size);
      // A GPU compiles for every new shape, so there the last chunk is as long as the others.
      const rows = runtime.provider === "webgpu" ? size : chunk.length;
      const padded = Array.from({ length: rows }, (_, i) => chunk[Math.min(i, chunk.length - 1)]);
      const feeds: Feeds = {
        ...fixed,
        ...(noise && { noise }),
        channels: new Tensor("int64", BigInt64Array.from(padded, BigInt), [rows]),
        scale: float(new Float32Array(rows).fill(coefficient), rows),
        sigma: float(
          Float32Array.from(padded, (channel) => spread[channel]),
          rows,
        ),
        keep: float(
          Float32Array.from(padded, (_, i) => (i < chunk.length ? 1 : 0)),
          rows,
        ),
      };
      const [probabilities, partial] = await run(scorer, feeds, outputs);
      for (const [row, channel] of chunk.entries()) {
        if (Number.isNaN(probabilities[row])) {
          throw new OrtcamError("the score of a masked image is not a number: the model's values are too large");
        }
        scores.sum[channel] += probabilities[row];
        scores.count[channel] += 1;
      }
      if (scores.gated !== null) {
        for (let i = 0; i < partial.length; i++) scores.gated[i] += partial[i];
      }
      scores.passes += chunk.length;
      scores.runs += 1;
      yield scores;
    }
  }
}

/** The weighted sum before ReLU: float64 [height, width] where gated maps are summed, else [h, w]; U is linear. */
export function rawMap({ features, masks, plan }: Work, { sum, count, gated }: Scores): Float64Array {
  if (gated !== null) return gated;
  const summed = plan.normalized ? masks.maps : features;
  const size = summed.height * summed.width;
  const raw = new Float64Array(size);
  for (let channel = 0; channel < summed.count; channel++) {
    if (count[channel] === 0) continue;
    const weight = sum[channel] / count[channel];
    for (let i = 0; i < size; i++) raw[i] += weight * summed.data[channel * size + i];
  }
  return raw;
}

/** ReLU at image size and min-max: float32 [height, width] in [0, 1]; flat is beyond the rounding of float32 sums. */
export function finish(raw: Float64Array, { features, height, width }: Work): { data: Float32Array; flat: boolean } {
  const full = raw.length === height * width ? raw : upsample(raw, features, { height, width });
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
    for (let plane = 0; plane < 3; plane++) {
      for (let i = 0; i < mask.length; i++) {
        const value = mask[i] * input[plane * mask.length + i];
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    spread[channel] = high > low ? (2 / (high - low)) ** 2 : 0;
  }
  return spread;
}
