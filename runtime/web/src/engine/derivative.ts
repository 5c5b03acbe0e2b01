/** The derivative of the head: the gradient graph of a bundle, which takes a seed per class and gives gradients. */
import type { InferenceSession } from "onnxruntime-web";
import { layerNames, type Manifest } from "./manifest";
import { cutsOf, imageTensor } from "./classifier";
import { asMaps, featuresShape } from "./cut";
import { OrtcamError } from "../errors";
import { type Feeds, run, type Sessions } from "./session";
import type { Maps } from "../scoring/upsampling";

const RELEVANCE = "attention_relevance";

/** Where the derivative is taken: at the features of an image, those of every layer in its layout, and at the image. */
export interface Place {
  readonly input: Float32Array; // [channels, H, W]
  readonly features: readonly Float32Array[];
}

/**
 * d(sum_c seed_c logit_c) / dA of layers, as maps [C, h, w].
 *
 * @param seed float32 [classes]
 * @param layers by place: that of the head is 0
 * @throws OrtcamError the bundle has no gradient graph, or what it gives is not finite or of another shape
 */
export async function differentiate(
  manifest: Manifest,
  sessions: Sessions,
  place: Place,
  seed: Float32Array,
  layers: readonly number[],
): Promise<Maps[]> {
  const names = layerNames(manifest.layers.length, "gradient");
  const sizes = layers.map((layer) => place.features[layer].length);
  const wanted = layers.map((layer) => names[layer]);
  const found = await runGradient(manifest, sessions, place, seed, wanted, sizes);
  return layers.map((layer, i) => asMaps(found[i], cutsOf(manifest)[layer]));
}

/**
 * What each token of the features gives to sum_c seed_c logit_c through each attention head: float32 [heads, tokens].
 *
 * @throws OrtcamError the bundle has no such output, or what it gives is not finite or of another shape
 */
export async function attentionRelevance(
  manifest: Manifest,
  sessions: Sessions,
  place: Place,
  seed: Float32Array,
): Promise<Float32Array> {
  const heads = manifest.gradient?.attention_heads ?? null;
  if (heads === null) {
    throw new OrtcamError("the head of this model has no attention over the tokens of its layer: choose another method");
  }
  const tokens = featuresShape(manifest.cut)[1];
  const [found] = await runGradient(manifest, sessions, place, seed, [RELEVANCE], [heads * tokens]);
  return found;
}

/** Open what `differentiate` runs for these layers, before it is needed. */
export async function openDerivative(manifest: Manifest, sessions: Sessions, layers: readonly number[]): Promise<void> {
  const names = layerNames(manifest.layers.length, "gradient");
  if (manifest.gradient === null) return;
  await open(
    manifest,
    manifest.gradient,
    sessions,
    layers.map((layer) => names[layer]),
  );
}

/** The gradient graph, without the outputs that nobody wants. */
function open(
  { layers }: Manifest,
  { graph, attention_heads: heads }: NonNullable<Manifest["gradient"]>,
  sessions: Sessions,
  wanted: readonly string[],
): Promise<InferenceSession> {
  const all = [...layerNames(layers.length, "gradient"), ...(heads === null ? [] : [RELEVANCE])];
  return sessions.open(graph, ...all.filter((name) => !wanted.includes(name)));
}

async function runGradient(
  manifest: Manifest,
  sessions: Sessions,
  { input, features }: Place,
  seed: Float32Array,
  wanted: readonly string[],
  sizes: readonly number[],
): Promise<Float32Array[]> {
  const { gradient, layers } = manifest;
  if (gradient === null) {
    throw new OrtcamError(`this model has no gradient, since ${manifest.no_gradient}: choose a method that needs none`);
  }
  const { Tensor } = sessions.runtime.library;
  const feeds: Record<string, Feeds[string]> = {
    seed: new Tensor("float32", seed, [1, seed.length]),
    image: imageTensor(manifest, sessions, input),
  };
  for (const [i, name] of layerNames(layers.length, "features").entries()) {
    feeds[name] = new Tensor("float32", features[i], featuresShape(cutsOf(manifest)[i]));
  }
  const found = await run(await open(manifest, gradient, sessions, wanted), feeds, wanted);
  for (const [i, values] of found.entries()) {
    if (values.length !== sizes[i]) {
      throw new OrtcamError(`${wanted[i]} has ${values.length} values; the model's layer has ${sizes[i]}`);
    }
    if (!values.every(Number.isFinite)) throw new OrtcamError(`${wanted[i]} is not finite: the model is damaged`);
  }
  return found;
}
