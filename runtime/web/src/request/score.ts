/** What a map is to explain: a text, read for a model, as `ortcam/request/score.py` has it. */
import { areProbabilities, type Manifest, outputsOf, scoreLength } from "../engine/manifest";
import { exactProbabilities, ScoreMatrix, type Term } from "../engine/score";
import { OrtcamError } from "../errors";
import { type Choice, isMasked, type MethodName, TITLES } from "../methods/methods";
import { type Arrays, directionOf, maskOf } from "./arrays";
import { findOutput, outputExample, outputsInWords } from "./outputs";
import { type Item, parseScore, VALUES, type Word, WORDS, wordOf } from "./score_text";
import { listed, shown } from "./shown";
import { didYouMean } from "./suggestions";
import { classIndex } from "./targets";

/** What a scorer graph is asked for. */
export interface Columns {
  readonly targets: readonly number[]; // its input of this name
  readonly row: Float32Array; // its input `score`, [U]
}

/** What is explained of a model: its classes as the method takes them, a word for a score of each, or an expression. */
export class Score {
  private constructor(
    readonly text: string | null, // null: classes as the method takes them
    readonly word: Word | null,
    readonly expression: ScoreMatrix | null,
    private readonly manifest: Manifest,
    readonly key: string, // the same for the same score
    readonly arrays: Readonly<Record<string, string | null>> = {}, // SHA-256 of those that it names, by name
  ) {}

  /**
   * Read what is asked of a model.
   *
   * @param text empty or null: classes as the method takes them
   * @param arrays that it may name
   * @param key tells it from others, where its arrays are others, too
   * @throws OrtcamError it is not accepted, or the model has no such class or output; as Python says it
   */
  static of(text: string | null, manifest: Manifest, arrays: Arrays = new Map(), key = text ?? ""): Score {
    const asked = text?.trim() ?? "";
    const word = wordOf(asked);
    if (asked !== "" && word === null) {
      const matrix = matrixOf(asked, manifest, arrays);
      const named = parseScore(asked).filter(({ kind }) => kind === "cosine" || kind === "output");
      const used = [...arrays].filter(([name]) => named.some((item) => item.name === name));
      return new Score(asked, null, matrix, manifest, key, Object.fromEntries(used.map(([name, { sha256 }]) => [name, sha256])));
    }
    if (manifest.labels.length === 0) {
      const example = shown(outputExample(manifest));
      throw new OrtcamError(`${outputsInWords(manifest)} without classes: say what to explain, such as score ${example}`);
    }
    if (word === "probability" && !areProbabilities(manifest)) throw new OrtcamError(`score='probability': ${VALUES}`);
    return new Score(word, word, null, manifest, key);
  }

  /** Whether 0 is the least value of what is explained, and means nothing: so of probabilities and their sums. */
  get hasZero(): boolean {
    return this.expression?.isPositive ?? (areProbabilities(this.manifest) && this.word !== "logit");
  }

  /** Whether the number beside a map is a probability. */
  get isProbability(): boolean {
    return this.expression?.isProbability ?? areProbabilities(this.manifest);
  }

  /** The place of a class among what is scored: an expression is all there is. */
  placeOf(target: number): number {
    return this.expression === null ? target : 0;
  }

  /** A class as numbers, or the expression; null: what the method itself takes of a class. */
  matrix(target: number): ScoreMatrix | null {
    if (this.expression !== null) return this.expression;
    if (this.word === null && areProbabilities(this.manifest)) return null;
    return ScoreMatrix.ofClass(this.word === "probability" ? "probabilities" : "logits", target, this.manifest);
  }

  /** What the scorers are asked for: all classes at once, or the expression. */
  columns(): Columns {
    const outputs = outputsOf(this.manifest);
    if (this.expression !== null) return { targets: [outputs], row: this.expression.row(this.manifest) };
    const first = this.word === "logit" && areProbabilities(this.manifest) ? outputs + 1 : 0;
    const row = new Float32Array(scoreLength(this.manifest));
    return { targets: Array.from({ length: outputs }, (_, i) => first + i), row };
  }

  /** The same that a scorer gives, of logits: float64 [columns]. */
  read(logits: Float32Array): Float64Array {
    if (this.expression !== null) return Float64Array.of(this.expression.value(logits));
    return this.word === "logit" ? Float64Array.from(logits) : exactProbabilities(logits, this.manifest.activation);
  }

  /**
   * Refuse a method that cannot explain this.
   *
   * @throws OrtcamError it explains classes alone, or the scorers are from before scores
   */
  check({ method }: Choice): void {
    if (this.text === null) return;
    if (method === "finer-cam" && this.word !== "logit") {
      const names = (Object.keys(TITLES) as MethodName[]).filter((name) => name !== method);
      throw new OrtcamError(`score with ${method}: it explains classes alone; accepted: ${names.join(", ")}`);
    }
    if (!isMasked({ method }) || this.word === "probability") return;
    const { gradient, graphs } = this.manifest;
    const terms: Term[] = this.expression === null ? ["logits"] : [...this.expression.weights.keys()];
    if (terms.every((term) => graphs.score_terms.includes(term))) return;
    throw new OrtcamError(
      `score=${shown(this.text)} with ${method}: the graphs of this bundle were made before there were scores: export the ` +
        `model again, or take a method that masks no image, such as ${gradient === null ? "recipro-cam" : "grad-cam"}`,
    );
  }
}

/** An expression as a row of numbers over the terms of a model's outputs. */
function matrixOf(text: string, manifest: Manifest, arrays: Arrays): ScoreMatrix {
  const weights = new Map<Term, Float64Array>();
  const reader = new Reader(text, manifest, arrays);
  for (const item of parseScore(text)) {
    const { term, row } = reader.read(item);
    const total = weights.get(term) ?? new Float64Array(row.length);
    weights.set(term, total.map((value, i) => value + item.factor * row[i]));
  }
  if (![...weights.values()].every((row) => row.every((value) => Number.isFinite(Math.fround(value))))) {
    throw new OrtcamError(`score=${shown(text)}: a factor is too large`);
  }
  if (![...weights].some(([term, row]) => term !== "one" && row.some((value) => value !== 0))) {
    throw new OrtcamError(`score=${shown(text)}: its terms cancel, so that it is the same for every image`);
  }
  return new ScoreMatrix(weights, manifest.activation);
}

interface Read {
  readonly term: Term;
  readonly row: Float64Array; // [size of the term]
}

/** Reads the items of an expression for a model. */
class Reader {
  private readonly score: string; // as messages begin

  constructor(
    private readonly text: string,
    private readonly manifest: Manifest,
    private readonly arrays: Arrays,
  ) {
    this.score = `score=${shown(text)}`;
  }

  /** A term, and the weights of its values. */
  read(item: Item): Read {
    const { manifest } = this;
    const severalOutputs = manifest.output_parts.length > 0;
    if (item.kind === "one") return { term: "one", row: Float64Array.of(1) };
    if (item.kind === "output" || (severalOutputs && item.kind === "logit")) return { term: "logits", row: this.ofOutput(item) };
    if (manifest.labels.length === 0) {
      const accepted = severalOutputs ? "NAME[...]" : "output[...]";
      throw new OrtcamError(
        `${this.said(item)}: ${outputsInWords(manifest)}; accepted is ${accepted}, such as ${shown(outputExample(manifest))}`,
      );
    }
    if (!areProbabilities(manifest) && (item.kind === "probability" || item.kind === "entropy")) {
      throw new OrtcamError(`${this.said(item)}: ${VALUES}`);
    }
    if (item.kind === "entropy") return { term: "entropy", row: Float64Array.of(1) };
    const name = item.name ?? "";
    if (item.kind === "cosine") {
      return { term: "direction", row: directionOf(this.arrays, name, manifest.labels.length, this.score) };
    }
    const row = new Float64Array(manifest.labels.length);
    row[this.ofClass(name, item)] = 1;
    return { term: item.kind === "logit" ? "logits" : "probabilities", row };
  }

  private ofClass(name: string, item: Item): number {
    try {
      return classIndex(name, this.manifest.labels);
    } catch (error) {
      throw new OrtcamError(`${this.score}: ${(error as Error).message}${hintOf(item)}`);
    }
  }

  /** A term as messages name it, once where it is the whole score. */
  private said(item: Item): string {
    return item.text === this.text ? this.score : `${this.score}: ${shown(item.text)}`;
  }

  private ofOutput(item: Item): Float64Array {
    const { shape, first } = this.outputOf(item);
    const { index } = item;
    if (index.length !== shape.length && !(shape.length === 1 && shape[0] === 1 && index.length === 0)) {
      const axes = `${index.length} ${index.length === 1 ? "axis" : "axes"}`;
      throw new OrtcamError(
        `${this.score}: ${item.text} has ${axes}; accepted is one index or : for each axis of the output ${listed(shape)}`,
      );
    }
    const places = index.length === 0 ? shape.map(() => 0) : index;
    for (const [axis, place] of places.entries()) {
      if (place === null || place < shape[axis]) continue;
      throw new OrtcamError(`${this.score}: ${item.text}: axis ${axis} accepts 0 to ${shape[axis] - 1}, or :`);
    }
    const free = shape.filter((_, axis) => places[axis] === null);
    const count = free.reduce((product, side) => product * side, 1);
    const { height, width } = this.manifest.preprocessing;
    const mask = item.kind === "output" ? item.name : null;
    const weights = mask === null ? null : maskOf(this.arrays, mask, free, { height, width }, this.score);
    const row = new Float64Array(outputsOf(this.manifest));
    for (let i = 0; i < count; i++) row[first + placeIn(shape, places, i)] = weights?.[i] ?? 1 / count;
    return row;
  }

  private outputOf(item: Item): ReturnType<typeof findOutput> {
    try {
      return findOutput(item.output ?? "", this.manifest);
    } catch (error) {
      throw new OrtcamError(`${this.score}: ${(error as Error).message}`);
    }
  }
}

/** Where in a tensor, row by row, the i-th of those elements lies that some axes leave free. */
function placeIn(shape: readonly number[], places: readonly (number | null)[], i: number): number {
  let [at, stride, rest] = [0, 1, i];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const place = places[axis];
    at += stride * (place ?? rest % shape[axis]);
    if (place === null) rest = Math.floor(rest / shape[axis]);
    stride *= shape[axis];
  }
  return at;
}

/** How the grammar is written, where a name that is no class looks like more than a name. */
function hintOf({ name, text }: Item): string {
  const own = name ?? "";
  if (/[+\-*/]/.test(own)) return "; + and - stand between spaces, and a number in front of its class, as in 'mug - 2*key'";
  if (text !== own) return "";
  return own.includes(":")
    ? "; accepted in front of : are logit, probability, cosine and index"
    : didYouMean(own, ["entropy", ...WORDS]);
}
