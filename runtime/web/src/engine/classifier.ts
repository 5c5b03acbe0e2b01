/** The classifier inside a bundle: features and logits of an image, the maps in the features, probabilities. */
import type { Tensor } from "onnxruntime-web";
import { layerNames, type Manifest, outputsOf } from "./manifest";
import { asMaps, type Cut, featuresShape } from "./cut";
import { OrtcamError } from "../errors";
import { run, type Sessions } from "./session";
import type { Maps } from "../scoring/upsampling";

/** What the model makes of an image as it is. */
export interface CleanPass {
  readonly features: readonly Float32Array[]; // of `cut` and of the further layers, each in its layout
  readonly maps: readonly Maps[]; // [C, h, w] each, in them
  readonly logits: Float32Array; // [outputs]
  readonly probabilities: Float32Array; // [outputs]; of the activation "identity" the logits, which are any values
}

/**
 * Classify a preprocessed image.
 *
 * @param input float32 [channels, H, W]
 * @throws OrtcamError features or logits are not numbers, or of another shape than the manifest says
 */
export async function classify(manifest: Manifest, sessions: Sessions, input: Float32Array): Promise<CleanPass> {
  const features = await featuresOf(manifest, sessions, input);
  const logits = await logitsOf(manifest, sessions, input, features[0]);
  const maps = mapsOf(manifest, features);
  return { features, maps, logits, probabilities: toProbabilities(logits, manifest.activation) };
}

/**
 * The logits of a preprocessed image, [outputs].
 *
 * @param features of the layer that the head begins at
 * @throws OrtcamError they are not numbers, or as many as the manifest says
 */
export async function logitsOf(
  manifest: Manifest,
  sessions: Sessions,
  input: Float32Array,
  features: Float32Array,
): Promise<Float32Array> {
  const { cut, graphs, labels } = manifest;
  const { Tensor } = sessions.runtime.library;
  const [logits] = await run(
    await sessions.open(graphs.head ?? graphs.classifier ?? ""),
    graphs.head === null
      ? { image: imageTensor(manifest, sessions, input) }
      : { features: new Tensor("float32", features, featuresShape(cut)) },
    ["logits"],
  );
  if (logits.length !== outputsOf(manifest)) {
    const [what, has] = labels.length > 0 ? ["classes", `${labels.length} labels`] : ["outputs", `${outputsOf(manifest)}`];
    throw new OrtcamError(`the model has ${logits.length} ${what}; bundle.json has ${has}`);
  }
  if (logits.some(Number.isNaN)) {
    throw new OrtcamError("the logits of the image are not numbers: the model is damaged");
  }
  return logits;
}

/**
 * The features of a preprocessed image, of every layer, in their layouts.
 *
 * @throws OrtcamError they are not numbers, or of another shape than the manifest says
 */
export async function featuresOf(
  manifest: Manifest,
  sessions: Sessions,
  input: Float32Array,
): Promise<Float32Array[]> {
  const image = imageTensor(manifest, sessions, input);
  const names = layerNames(manifest.layers.length, "features");
  const features = await run(await sessions.open(manifest.graphs.features), { image }, names);
  for (const [i, cut] of cutsOf(manifest).entries()) {
    const shape = featuresShape(cut);
    if (features[i].length !== shape.reduce((product, side) => product * side)) {
      throw new OrtcamError(`the model has ${features[i].length} features; the cut in bundle.json has ${shape.join(" x ")}`);
    }
    if (features[i].some(Number.isNaN)) {
      throw new OrtcamError("the features of the image are not numbers: the model is damaged");
    }
  }
  return features;
}

/** The maps [C, h, w] in the features of every layer, or in their gradients. */
export function mapsOf(manifest: Manifest, features: readonly Float32Array[]): Maps[] {
  return cutsOf(manifest).map((cut, i) => asMaps(features[i], cut));
}

/** The probabilities or values of classes, as the page lists them: none of tensors, which may be large. */
export function classesOf({ labels }: Pick<Manifest, "labels">, probabilities: Float32Array): Float32Array {
  return labels.length > 0 ? probabilities : new Float32Array();
}

/** The cuts of all layers, that of the head first. */
export function cutsOf({ cut, layers }: Pick<Manifest, "cut" | "layers">): Cut[] {
  return [cut, ...layers];
}

/** The finest of some layers. */
export function finestOf(manifest: Pick<Manifest, "cut" | "layers">, layers: readonly number[]): Cut {
  const cuts = layers.map((place) => cutsOf(manifest)[place]);
  return cuts.reduce((best, cut) => (cut.height * cut.width > best.height * best.width ? cut : best));
}

/** A preprocessed image as a graph takes it: float32 [1, channels, H, W]. */
export function imageTensor({ preprocessing }: Manifest, { runtime }: Sessions, input: Float32Array): Tensor {
  return new runtime.library.Tensor("float32", input, [1, preprocessing.mean.length, preprocessing.height, preprocessing.width]);
}

/** Softmax over the classes, the sigmoid of each logit, or the values as they are: float32 [classes], from arithmetic in float64. */
export function toProbabilities(logits: Float32Array, activation: Manifest["activation"]): Float32Array {
  if (activation === "identity") return logits.slice();
  if (activation === "sigmoid") return logits.map((logit) => 1 / (1 + Math.exp(-logit)));
  const most = logits.reduce((a, b) => Math.max(a, b));
  const shifted = Array.from(logits, (logit) => Math.exp(logit - most));
  const total = shifted.reduce((a, b) => a + b);
  return Float32Array.from(shifted, (value) => value / total);
}
