/** The methods that mask no image: they take gradients of the head, or alter the features and ask it. */
import { type Manifest, outputsOf } from "../engine/manifest";
import { type CleanPass, cutsOf, featuresOf, logitsOf, mapsOf } from "../engine/classifier";
import { featuresShape, fromMaps, layerName } from "../engine/cut";
import { attentionRelevance, differentiate, type Place } from "../engine/derivative";
import { run, type Sessions } from "../engine/session";
import { OrtcamError } from "../errors";
import type { Score } from "../request/score";
import { drawNoise } from "../scoring/noise";
import { finish } from "../scoring/scoring";
import { finerSeed, fuse, gradientMap, oneHot, type RawMap, type Slope, SmoothSums } from "./gradient";
import { type AttentionChoice, type GradientChoice, type HeadChoice, type Kernel, type UnmaskedChoice, weighsByGradient } from "./methods";
import { onlyAt } from "./recipro";

const HEAD_BATCH = 16; // altered features per run of the head

/** What is explained and how: an image of a model, one of its classes or a score, and the method. */
export interface Scene {
  readonly manifest: Manifest;
  readonly sessions: Sessions;
  readonly input: Float32Array; // [channels, H, W]
  readonly clean: CleanPass;
  readonly kept: Map<string, Float64Array[]>; // of Recipro-CAM by kernel and score, for the other classes of the image
  readonly choice: UnmaskedChoice;
  readonly score: Score;
  readonly target: number; // a class; of an expression -1
}

/** What a map took, beside the clean pass. */
export interface Cost {
  forwardPasses: number; // of the whole model
  gradientPasses: number; // of the head, forwards and backwards
  headPasses: number;
  runs: number;
}

/** A map, and what it took. */
export interface Found {
  readonly data: Float32Array; // [H, W], in [0, 1]
  readonly flat: boolean;
  readonly cost: Cost;
  readonly layers: readonly number[]; // that it is of, by place
}

/**
 * Explain by a method that masks no image.
 *
 * Yields how many of how many steps are done, after each; returns the map.
 *
 * @throws OrtcamError the bundle lacks what the method needs, or the model is damaged
 */
export async function* explainUnmasked(
  scene: Scene,
): AsyncGenerator<{ done: number; total: number }, Found, void> {
  const { choice } = scene;
  const cost: Cost = { forwardPasses: 0, gradientPasses: 0, headPasses: 0, runs: 0 };
  const { height, width } = scene.manifest.preprocessing;
  const layers = weighsByGradient(choice) ? chosenLayers(choice, scene.manifest) : [0];
  const raws = yield* rawMaps(choice, scene, layers, cost);
  const raw = raws.length > 1 ? fuse(raws, { height, width }) : raws[0];
  return { ...finish(raw, { height, width }), cost, layers };
}

async function* rawMaps(
  choice: UnmaskedChoice,
  scene: Scene,
  layers: readonly number[],
  cost: Cost,
): AsyncGenerator<{ done: number; total: number }, RawMap[], void> {
  if (choice.method === "recipro-cam") return [yield* byHead(choice, scene, cost)];
  if (choice.method === "grad-attention") return [await byAttention(choice, scene, cost)];
  return yield* byGradient(choice, scene, layers, cost);
}

/** The layers that a choice takes, by place: that of the head is 0. */
export function chosenLayers({ layer }: GradientChoice, manifest: Pick<Manifest, "cut" | "layers">): number[] {
  const cuts = cutsOf(manifest);
  if (layer === "primary") return [0];
  if (layer === "all") return [...cuts.keys()];
  const place = cuts.findIndex((cut) => layer === cut.module || layer === cut.tensor);
  if (place < 0) {
    throw new OrtcamError(`layer ${layer}: this bundle has ${cuts.map(layerName).join(", ")}; also accepted: primary, all`);
  }
  return [place];
}

/** What is differentiated: d score / d logits, of a class as the method takes it the logit. */
function seedAt({ score, target }: Pick<Scene, "score" | "target">, logits: Float32Array): Float32Array {
  return score.matrix(target)?.derivative(logits) ?? oneHot(logits.length, target);
}

async function* byGradient(
  choice: GradientChoice,
  scene: Scene,
  layers: readonly number[],
  cost: Cost,
): AsyncGenerator<{ done: number; total: number }, RawMap[], void> {
  const { manifest, sessions, input, clean, target } = scene;
  const slopes = async (place: Place, seed: Float32Array): Promise<Slope[]> => {
    const maps = mapsOf(manifest, place.features);
    const gradients = await differentiate(manifest, sessions, place, seed, layers);
    cost.gradientPasses += 1;
    cost.runs += 1;
    return layers.map((layer, i) => ({ maps: maps[layer], gradient: gradients[i] }));
  };
  if (choice.method !== "smooth-grad-cam++") {
    const { method } = choice;
    const seed = choice.method === "finer-cam" ? finerSeed(clean.logits, target, choice) : seedAt(scene, clean.logits);
    return (await slopes({ input, features: clean.features }, seed)).map((slope) => gradientMap(method, slope));
  }
  const isAffine = scene.score.matrix(target)?.isAffine ?? true; // else its derivative at the noisy image counts
  const sums = layers.map((i) => new SmoothSums(clean.maps[i]));
  for (let sample = 0; sample < choice.samples; sample++) {
    const noise = drawNoise(input.length, choice.seed, sample);
    const noisy = input.map((value, i) => value + choice.std * noise[i]);
    const features = await featuresOf(manifest, sessions, noisy);
    cost.forwardPasses += 1;
    const logits = isAffine ? clean.logits : await logitsOf(manifest, sessions, noisy, features[0]);
    for (const [i, slope] of (await slopes({ input: noisy, features }, seedAt(scene, logits))).entries()) sums[i].add(slope);
    yield { done: sample + 1, total: choice.samples };
  }
  return sums.map((sum) => sum.map());
}

async function byAttention(
  { positive }: AttentionChoice,
  scene: Scene,
  cost: Cost,
): Promise<RawMap> {
  const { manifest, sessions, input, clean } = scene;
  const { height, width, prefix_tokens: prefix } = manifest.cut;
  const place = { input, features: clean.features };
  const relevance = await attentionRelevance(manifest, sessions, place, seedAt(scene, clean.logits));
  cost.gradientPasses += 1;
  cost.runs += 1;
  const tokens = prefix + height * width;
  const data = new Float64Array(height * width);
  for (const [i, value] of relevance.entries()) {
    const patch = (i % tokens) - prefix;
    if (patch >= 0) data[patch] += positive === "heads" ? Math.max(value, 0) : value;
  }
  return { data, height, width };
}

async function* byHead(
  { kernel }: HeadChoice,
  scene: Scene,
  cost: Cost,
): AsyncGenerator<{ done: number; total: number }, RawMap, void> {
  const { height, width } = scene.manifest.cut;
  const positions = height * width;
  const key = `${kernel} ${scene.score.key}`;
  const kept = scene.kept.get(key) ?? (yield* scoresAt(kernel, scene));
  scene.kept.set(key, kept);
  cost.headPasses += positions;
  cost.runs += Math.ceil(positions / HEAD_BATCH);
  const data = Float64Array.from(kept, (found) => found[scene.score.placeOf(scene.target)]);
  if (scene.score.hasZero) return { data, height, width };
  const least = data.reduce((low, value) => Math.min(low, value)); // the zero of a value is arbitrary
  return { data: data.map((value) => value - least), height, width };
}

/** What is read of the logits with each position alone left of the features, in the order of the positions. */
async function* scoresAt(
  kernel: Kernel,
  { manifest, sessions, clean, score }: Scene,
): AsyncGenerator<{ done: number; total: number }, Float64Array[], void> {
  const { cut, graphs } = manifest;
  const outputs = outputsOf(manifest);
  if (graphs.head === null) {
    throw new OrtcamError("this bundle has no head (its layer lies inside a branch): choose a method that needs none");
  }
  const [session, { Tensor }] = [await sessions.open(graphs.head), sessions.runtime.library];
  const positions = cut.height * cut.width;
  const size = clean.features[0].length;
  const found: Float64Array[] = [];
  while (found.length < positions) {
    const rows = Math.min(HEAD_BATCH, positions - found.length);
    const altered = new Float32Array(rows * size);
    for (let row = 0; row < rows; row++) {
      const only = onlyAt(clean.maps[0], found.length + row, kernel);
      altered.set(fromMaps(only, clean.features[0], cut), row * size);
    }
    const feeds = { features: new Tensor("float32", altered, [rows, ...featuresShape(cut).slice(1)]) };
    const [logits] = await run(session, feeds, ["logits"]);
    for (let row = 0; row < rows; row++) {
      found.push(score.read(logits.subarray(row * outputs, (row + 1) * outputs)));
    }
    yield { done: found.length, total: positions };
  }
  return found;
}
