/** The maps of one image as the scorer takes them: min-maxed, the flat ones found, the others in order of energy. */
import type { Gate, Plan } from "../methods/methods";
import { type Maps, upsampledRange } from "./upsampling";

export interface Masks {
  readonly maps: Maps; // upsampled and gated inside the scorer; already min-maxed where nothing gates them
  readonly order: readonly number[]; // the live channels by descending energy; the others are flat: no pass, weight 0
  readonly energy: Float64Array; // [C], sum of the positive part of the raw map
}

/** s(U(A)) = U((A - min U(A)) / (max U(A) - min U(A))), so the upsampled maps never exist outside the scorer. */
export function prepareMasks(features: Maps, plan: Plan, height: number, width: number): Masks {
  const { count, data } = features;
  const size = features.height * features.width;
  const energy = new Float64Array(count);
  const own = { low: new Float32Array(count).fill(Infinity), high: new Float32Array(count).fill(-Infinity) };
  for (let i = 0; i < data.length; i++) {
    const channel = Math.floor(i / size);
    if (data[i] < own.low[channel]) own.low[channel] = data[i];
    if (data[i] > own.high[channel]) own.high[channel] = data[i];
    energy[channel] += Math.max(data[i], 0);
  }
  const upsampled = upsampledRange(features, height, width);
  let maps = features;
  let live: (channel: number) => boolean;
  if (plan.gate !== null) {
    const { gate } = plan;
    const { low, high } = gate === "relu" ? upsampled : own;
    live = (channel) => gateIsLive(gate, low[channel], high[channel]);
  } else {
    const { low, high } = upsampled;
    // Bilinear upsampling need not reach the extremes.
    live = (channel) => own.high[channel] > own.low[channel] && high[channel] > low[channel];
    const scaled = data.map((value, i) => {
      const channel = Math.floor(i / size);
      if (!live(channel)) return 0;
      return Math.fround(value - low[channel]) / Math.fround(high[channel] - low[channel]);
    });
    maps = { ...features, data: scaled };
  }
  const order = Array.from({ length: count }, (_, channel) => channel).filter(live);
  order.sort((a, b) => energy[b] - energy[a] || a - b);
  return { maps, order, energy };
}

/** False where gate(U(A_k)) is zero everywhere, from the range of A_k (of U(A_k) for the relu). */
function gateIsLive(gate: Gate, low: number, high: number): boolean {
  if (gate === "relu") return high > 0;
  const zeroAtZero = gate === "tanh" || gate === "mish" || gate === "swish" || gate === "softsign";
  return !zeroAtZero || low !== 0 || high !== 0;
}
