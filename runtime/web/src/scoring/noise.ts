/** SS-CAM's noise, the same numbers as `ortcam.scoring.noise`, where its formula stands. */

const GOLDEN = 0x9e3779b9;

/** The hash "lowbias32" (Wellons 2018), of 32 bits to 32 bits. */
function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** The key of a sample, 32 bits, from the words of the seed (a whole number from 0), lowest first, and the sample. */
function noiseKey(seed: number, sample: number): number {
  const words = [seed % 2 ** 32];
  for (let rest = Math.floor(seed / 2 ** 32); rest > 0; rest = Math.floor(rest / 2 ** 32)) words.push(rest % 2 ** 32);
  return [...words, sample].reduce((key, word) => mix(key + GOLDEN + word), 0);
}

/** Uniform number `place` of a key, in (0, 1): float32. */
function uniform(key: number, place: number): number {
  return ((mix(mix(place) ^ key) >>> 9) + 0.5) * 2 ** -23;
}

/** Sample i of the noise: float32 [length], standard normal, a function of (seed, i) alone (Box and Muller, 1958). */
export function drawNoise(length: number, seed: number, sample: number): Float32Array {
  const key = noiseKey(seed, sample);
  return Float32Array.from({ length }, (_, i) => {
    return Math.sqrt(-2 * Math.log(uniform(key, 2 * i))) * Math.cos(2 * Math.PI * uniform(key, 2 * i + 1));
  });
}

/** The same values in a random order, the same one every time (Fisher and Yates). */
export function shuffled<T>(values: readonly T[]): T[] {
  const key = noiseKey(0, 0);
  const order = [...values];
  for (let last = order.length - 1; last > 0; last--) {
    const other = Math.floor(uniform(key, last) * (last + 1));
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}
