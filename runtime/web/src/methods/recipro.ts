/** Recipro-CAM: what the head says when only one position of the features is left, as `ortcam/methods/head_only.py` has it. */
import type { Kernel } from "./methods";
import type { Maps } from "../scoring/upsampling";

const BINOMIAL = [0.25, 0.5, 0.25];

/**
 * The maps with only position `at` left, by a kernel around it that the border cuts: float32 [C, h, w].
 *
 * "single": that position. "gaussian": all around it by a 3 x 3 binomial kernel. "gaussian-spread": the features of that
 * position itself, spread by that kernel.
 */
export function onlyAt({ data, count, height, width }: Maps, at: number, kernel: Kernel): Float32Array {
  const size = height * width;
  const out = new Float32Array(count * size);
  const [row, column] = [Math.floor(at / width), at % width];
  const reach = kernel === "single" ? 0 : 1;
  for (let y = Math.max(row - reach, 0); y <= Math.min(row + reach, height - 1); y++) {
    for (let x = Math.max(column - reach, 0); x <= Math.min(column + reach, width - 1); x++) {
      const share = reach === 0 ? 1 : BINOMIAL[y - row + 1] * BINOMIAL[x - column + 1];
      const from = kernel === "gaussian-spread" ? at : y * width + x;
      for (let k = 0; k < count; k++) out[k * size + y * width + x] = share * data[k * size + from];
    }
  }
  return out;
}
