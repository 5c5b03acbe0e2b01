/** The methods as data: what each masks with and what it sums; formulas and sources are in `ortcam/methods/masked.py`. */

export const GATES = ["tanh", "sigmoid", "sigmoid-relu", "relu", "mish", "swish", "softsign", "minmax"] as const;
export type Gate = (typeof GATES)[number];

/** What the reader chose. */
export type Choice =
  | { readonly method: "scorecam" }
  | { readonly method: "scorecam++"; readonly gate: Gate }
  | { readonly method: "sscam"; readonly samples: number; readonly seed: number }
  | { readonly method: "iscam"; readonly samples: number };
export type MethodName = Choice["method"];

export const TITLES: Readonly<Record<MethodName, string>> = {
  scorecam: "Score-CAM",
  "scorecam++": "ScoreCAM++",
  sscam: "SS-CAM",
  iscam: "IS-CAM",
};

/** What the scoring loop has to do for a choice. */
export interface Plan {
  readonly scorer: string; // kind of scorer graph
  readonly gate: Gate | null; // applied inside the graph, which then sums the gated maps, too
  readonly normalized: boolean; // whether s(U(A_k)) is summed and not U(A_k)
  readonly coefficients: readonly number[]; // on the masked image, one a sample
  readonly seed: number | null; // of the noise, where there is any
}

const PLAIN: Plan = { scorer: "linear", gate: null, normalized: false, coefficients: [1], seed: null };

export function resolvePlan(choice: Choice): Plan {
  switch (choice.method) {
    case "scorecam":
      return PLAIN;
    case "scorecam++":
      if (choice.gate === "minmax") return { ...PLAIN, normalized: true };
      return { ...PLAIN, scorer: choice.gate, gate: choice.gate };
    case "sscam":
      return { ...PLAIN, scorer: "noise", coefficients: Array(choice.samples).fill(1), seed: choice.seed };
    case "iscam": {
      const n = choice.samples;
      return { ...PLAIN, coefficients: Array.from({ length: n }, (_, i) => ((i + 1) * (i + 2)) / (2 * n)) };
    }
  }
}

/** Every option of the method under the names that Python has for them, defaults included. */
export function allOptions(choice: Choice): Record<string, string | number | boolean | null> {
  const shared = { weighting: "probability", baseline: "none" };
  const maps = { ...shared, normalize: "after-upsampling", maps: "raw" };
  switch (choice.method) {
    case "scorecam":
      return maps;
    case "scorecam++":
      return { gate: choice.gate, gate_sum: true, ...shared };
    case "sscam":
      return { num_samples: choice.samples, std: null, noise: "input", seed: choice.seed, ...maps };
    case "iscam":
      return { num_samples: choice.samples, path: "cumulative", ...maps };
  }
}
