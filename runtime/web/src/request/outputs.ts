/** The outputs of a model as scores name them: `output` of one, and each by its name of several. */
import { OrtcamError } from "../errors";
import type { Manifest, OutputPart } from "../engine/manifest";
import { listed, shown } from "./shown";
import { didYouMean } from "./suggestions";

const ONE = "output"; // what the output of a model is called that has one
const PLAIN = /^(?!entropy$|logit:|probability:|cosine:)[A-Za-z_][\w.:/]*$/i;
const SHOWN = 8; // outputs in a sentence

type Outputs = Pick<Manifest, "output_shape" | "output_parts">;

/**
 * The shape of an output for one image, and where it begins among all the numbers that the graphs give.
 *
 * @throws OrtcamError the model has no output of this name
 */
export function findOutput(name: string, outputs: Outputs): { readonly shape: readonly number[]; readonly first: number } {
  const { output_shape: shape, output_parts: parts } = outputs;
  if (parts.length === 0) {
    if (name.toLowerCase() === ONE) return { shape, first: 0 };
    throw new OrtcamError(`${shown(name)} is no output: ${outputsInWords(outputs)}, which is called ${ONE}`);
  }
  let first = 0;
  for (const part of parts) {
    if (part.name === name) return { shape: part.shape, first };
    first += part.shape.reduce((product, side) => product * side, 1);
  }
  const hint = didYouMean(name, parts.map((part) => part.name));
  throw new OrtcamError(
    `${shown(name)} is no output${hint}; ${outputsInWords(outputs)}; accepted is NAME[...], such as ${shown(outputExample(outputs))}`,
  );
}

/** What a model without classes gives for an image, as part of a sentence. */
export function outputsInWords(outputs: Outputs): string {
  return `this model's ${outputs.output_parts.length > 0 ? "outputs are" : "output is"} ${outputsInShort(outputs)}`;
}

/** The same without the words around it. */
export function outputsInShort({ output_shape: shape, output_parts: parts }: Outputs): string {
  if (parts.length === 0) return `a tensor ${listed(shape)}`;
  const some = parts.slice(0, SHOWN).map(({ name, shape: own }) => `${name} ${listed(own)}`);
  return `${some.join(", ")}${parts.length > SHOWN ? ", ..." : ""}`;
}

/** A score of a model without classes, as an example: "output[0, :, :]", the mean of some of its values. */
export function outputExample({ output_shape: shape, output_parts: parts }: Outputs): string {
  const part: OutputPart = parts.length > 0 ? parts[0] : { name: ONE, shape };
  const quote = part.name.includes("'") ? '"' : "'";
  const name = PLAIN.test(part.name) ? part.name : `${quote}${part.name}${quote}`;
  return part.shape.length > 0 ? `${name}[${["0", ...part.shape.slice(1).map(() => ":")].join(", ")}]` : name;
}
