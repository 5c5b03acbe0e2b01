/** Seeded Gaussian noise. It is as good as numpy's, but another stream: the same seed gives other numbers there. */

/** Mixes an integer into 32 random bits and returns a function that gives the next ones (splitmix32). */
function splitmix32(state: number): () => number {
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  };
}

/** Uniform numbers in [0, 1) of 32 bits: sfc32 (Doty-Humphrey, PractRand), seeded by two integers. */
export function uniforms(seed: number, stream: number): () => number {
  const [one, two] = [splitmix32(seed), splitmix32(~stream)];
  let [a, b, c, counter] = [one(), two(), one() ^ two(), 1];
  const next = (): number => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let round = 0; round < 12; round++) next();
  return next;
}

/** Sample i of the noise: float32 [length], standard normal, a function of (seed, i) alone (Box and Muller, 1958). */
export function drawNoise(length: number, seed: number, sample: number): Float32Array {
  const uniform = uniforms(seed, sample);
  const noise = new Float32Array(length);
  for (let i = 0; i < length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    noise[i] = radius * Math.cos(angle);
    if (i + 1 < length) noise[i + 1] = radius * Math.sin(angle);
  }
  return noise;
}
