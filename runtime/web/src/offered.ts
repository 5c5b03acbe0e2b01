/** What the page is told of a bundle by its manifest alone, whatever explains with it. */
import { cutsOf } from "./engine/classifier";
import { layerName } from "./engine/cut";
import { areProbabilities, type Manifest } from "./engine/manifest";
import { needsSamples } from "./images/preprocessing";
import { outputExample, outputsInShort } from "./request/outputs";
import type { Opened } from "./messages";
import { chooseMethod } from "./methods/auto";

/** Model, classes, layers, and which methods fit. */
export function offered(manifest: Manifest): Omit<Opened, "takesCamera" | "provider" | "runs" | "mostSamples" | "notes"> {
  return {
    model: manifest.model.name,
    labels: manifest.labels,
    outputs: outputsInShort(manifest),
    score: exampleOf(manifest),
    areProbabilities: areProbabilities(manifest),
    takesArrays: needsSamples(manifest.preprocessing),
    channels: manifest.cut.channels,
    scorers: Object.keys(manifest.graphs.scorers),
    layers: cutsOf(manifest).map(layerName),
    noGradient: manifest.no_gradient,
    hasAttention: manifest.gradient?.attention_heads != null,
    hasHead: manifest.graphs.head !== null,
    auto: chooseMethod(manifest),
    mapSize: [manifest.preprocessing.height, manifest.preprocessing.width],
    cells: { height: manifest.cut.height, width: manifest.cut.width },
  };
}

/** A score of a model, as an example. */
function exampleOf(manifest: Manifest): string {
  const { labels } = manifest;
  if (labels.length === 0) return outputExample(manifest);
  const isPlain = (label: string): boolean => /^\p{L}[\p{L}\p{N}_ ]*$/u.test(label) && labels.indexOf(label) === labels.lastIndexOf(label);
  const [one, other] = labels.slice(0, 2).map((label, index) => (isPlain(label) ? label : `index:${index}`));
  return other === undefined ? `2*${one}` : `${one} - ${other}`;
}
