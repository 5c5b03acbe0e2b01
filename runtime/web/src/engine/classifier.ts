/** The classifier inside a bundle: features and logits of an image, the maps in the features, probabilities. */
import type { Manifest } from "./bundle";
import { asMaps, featuresShape } from "./cut";
import { OrtcamError } from "../errors";
import { run, type Sessions } from "./session";
import type { Maps } from "../scoring/upsampling";

/** What the model makes of an image as it is. */
export interface CleanPass {
  readonly features: Maps; // [C, h, w]
  readonly probabilities: Float32Array; // [classes]
}

/**
 * Classify a preprocessed image.
 *
 * @param input float32 [3, H, W]
 * @throws OrtcamError features or logits are not numbers, or of another shape than the manifest says
 */
export async function classify(manifest: Manifest, sessions: Sessions, input: Float32Array): Promise<CleanPass> {
  const { cut, graphs, preprocessing, labels } = manifest;
  const { Tensor } = sessions.runtime.library;
  const image = new Tensor("float32", input, [1, 3, preprocessing.height, preprocessing.width]);
  const [features] = await run(await sessions.open(graphs.features), { image }, ["features"]);
  const shape = featuresShape(cut);
  if (features.length !== shape.reduce((product, side) => product * side)) {
    throw new OrtcamError(`the model has ${features.length} features; the cut in bundle.json has ${shape.join(" x ")}`);
  }
  const [logits] = await run(
    await sessions.open(graphs.head ?? graphs.classifier ?? ""),
    graphs.head === null ? { image } : { features: new Tensor("float32", features, shape) },
    ["logits"],
  );
  if (logits.length !== labels.length) {
    throw new OrtcamError(`the model has ${logits.length} classes; bundle.json has ${labels.length} labels`);
  }
  if (features.some(Number.isNaN) || logits.some(Number.isNaN)) {
    throw new OrtcamError("the features or logits of the image are not numbers: the model is damaged");
  }
  return { features: asMaps(features, cut), probabilities: toProbabilities(logits, manifest.activation) };
}

/** Softmax over the classes, or the sigmoid of each logit: float32 [classes], from arithmetic in float64. */
export function toProbabilities(logits: Float32Array, activation: Manifest["activation"]): Float32Array {
  if (activation === "sigmoid") return logits.map((logit) => 1 / (1 + Math.exp(-logit)));
  const most = logits.reduce((a, b) => Math.max(a, b));
  const shifted = Array.from(logits, (logit) => Math.exp(logit - most));
  const total = shifted.reduce((a, b) => a + b);
  return Float32Array.from(shifted, (value) => value / total);
}
