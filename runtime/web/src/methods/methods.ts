/** The methods as data: names, options, and the plans of the masked ones; formulas and sources are in `ortcam/methods`. */

export const GATES = ["tanh", "sigmoid", "sigmoid-relu", "relu", "mish", "swish", "softsign", "minmax"] as const;
export type Gate = (typeof GATES)[number];

/** The gradient methods that take one gradient, at the features of the image itself. */
export type PlainGradientMethod = "grad-cam" | "grad-cam++" | "xgrad-cam" | "layer-cam" | "hires-cam" | "finer-cam";

export const KERNELS = ["single", "gaussian", "gaussian-spread"] as const;
export type Kernel = (typeof KERNELS)[number];

/** A method that masks the image with each channel, with its options. */
export type MaskedChoice =
  | { readonly method: "scorecam" }
  | { readonly method: "scorecam++"; readonly gate: Gate }
  | { readonly method: "sscam"; readonly samples: number; readonly seed: number }
  | { readonly method: "iscam"; readonly samples: number };

/** A method that takes gradients, with its options; `layer` is "primary", "all", or a layer's name. */
export type GradientChoice =
  | { readonly method: "grad-cam"; readonly layer: string }
  | { readonly method: "grad-cam++"; readonly layer: string }
  | { readonly method: "xgrad-cam"; readonly layer: string }
  | { readonly method: "layer-cam"; readonly layer: string }
  | { readonly method: "hires-cam"; readonly layer: string }
  | { readonly method: "finer-cam"; readonly layer: string; readonly strength: number; readonly references: number }
  | {
      readonly method: "smooth-grad-cam++";
      readonly layer: string;
      readonly samples: number;
      readonly std: number;
      readonly seed: number;
    };

/** The method that sums what each token gives through the attention of the head, with its options. */
export interface AttentionChoice {
  readonly method: "grad-attention";
  readonly positive: "sum" | "heads"; // what the ReLU is applied to
}

/** A method that alters the features and asks the head, with its options. */
export interface HeadChoice {
  readonly method: "recipro-cam";
  readonly kernel: Kernel;
}

/** What the reader chose. */
export type Choice = MaskedChoice | UnmaskedChoice;
export type UnmaskedChoice = GradientChoice | AttentionChoice | HeadChoice;
export type MethodName = Choice["method"];

export const TITLES: Readonly<Record<MethodName, string>> = {
  "grad-cam": "Grad-CAM",
  "grad-cam++": "Grad-CAM++",
  "xgrad-cam": "XGrad-CAM",
  "layer-cam": "LayerCAM",
  "hires-cam": "HiResCAM",
  "finer-cam": "Finer-CAM",
  "smooth-grad-cam++": "Smooth Grad-CAM++",
  "grad-attention": "Gradient × attention",
  "recipro-cam": "Recipro-CAM",
  "scorecam++": "ScoreCAM++",
  scorecam: "Score-CAM",
  sscam: "SS-CAM",
  iscam: "IS-CAM",
};

/** The methods with their options as they are by default. */
export const DEFAULTS: { readonly [Name in MethodName]: Extract<Choice, { readonly method: Name }> } = {
  "grad-cam": { method: "grad-cam", layer: "primary" },
  "grad-cam++": { method: "grad-cam++", layer: "primary" },
  "xgrad-cam": { method: "xgrad-cam", layer: "primary" },
  "layer-cam": { method: "layer-cam", layer: "all" },
  "hires-cam": { method: "hires-cam", layer: "primary" },
  "finer-cam": { method: "finer-cam", layer: "primary", strength: 0.6, references: 3 },
  "smooth-grad-cam++": { method: "smooth-grad-cam++", layer: "primary", samples: 4, std: 0.3, seed: 0 },
  "grad-attention": { method: "grad-attention", positive: "sum" },
  "recipro-cam": { method: "recipro-cam", kernel: "single" },
  "scorecam++": { method: "scorecam++", gate: "tanh" },
  scorecam: { method: "scorecam" },
  sscam: { method: "sscam", samples: 35, seed: 0 },
  iscam: { method: "iscam", samples: 10 },
};

/**
 * A method with options that differ from the default, under the names that Python has for them.
 *
 * @throws Error the page has no such option
 */
export function choiceOf(method: MethodName, options: Readonly<Record<string, unknown>>): Choice {
  const choice: Choice = { ...DEFAULTS[method] };
  for (const [name, value] of Object.entries(options)) {
    const own = name === "num_samples" ? "samples" : name;
    if (typeof value !== typeof (choice as unknown as Record<string, unknown>)[own]) {
      throw new Error(`${method}: the page has no option ${name}`);
    }
    Object.assign(choice, { [own]: value });
  }
  return choice;
}

export function isMasked(choice: Pick<Choice, "method">): choice is MaskedChoice {
  return ["scorecam", "scorecam++", "sscam", "iscam"].includes(choice.method);
}

export function weighsByGradient(choice: Choice): choice is GradientChoice {
  return "layer" in choice;
}

/** What the scoring loop has to do for a choice. */
export interface Plan {
  readonly scorer: string; // kind of scorer graph
  readonly gate: Gate | null; // applied inside the graph, which then sums the gated maps, too
  readonly normalized: boolean; // whether s(U(A_k)) is summed and not U(A_k)
  readonly coefficients: readonly number[]; // on the masked image, one a sample
  readonly seed: number | null; // of the noise, where there is any
}

const PLAIN: Plan = { scorer: "linear", gate: null, normalized: false, coefficients: [1], seed: null };

export function resolvePlan(choice: MaskedChoice): Plan {
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

/**
 * Every option of the method under the names that Python has for them, defaults included.
 *
 * @param hasZero whether what is explained has a zero, as probabilities have; else what the blank image gives is subtracted
 */
export function allOptions(choice: Choice, hasZero = true): Record<string, string | number | boolean | null> {
  const shared = { weighting: "probability", baseline: hasZero ? "none" : "zeros" };
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
    case "grad-attention":
      return { positive: choice.positive };
    case "recipro-cam":
      return { kernel: choice.kernel, score: "probability" };
    case "smooth-grad-cam++":
      return { layer: choice.layer, num_samples: choice.samples, std: choice.std, seed: choice.seed, epsilon: 0 };
    case "finer-cam":
      return { layer: choice.layer, strength: choice.strength, references: choice.references, weighting: "mean" };
    case "grad-cam++":
    case "xgrad-cam":
      return { layer: choice.layer, epsilon: 0 };
    default:
      return { layer: choice.layer };
  }
}
