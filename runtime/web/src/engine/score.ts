/** The score that a map explains, as numbers: a weighted sum of terms of the outputs, as `ortcam/engine/score.py` has it. */
import { OrtcamError } from "../errors";
import { type Manifest, outputsOf, scoreLength, termSizes } from "./manifest";

export type Term = "logits" | "probabilities" | "direction" | "entropy" | "one";
type Activation = Manifest["activation"];

const LEAST_LENGTH = 1e-12;

/** One score: term -> weights, float64 [size]. */
export class ScoreMatrix {
  constructor(
    readonly weights: ReadonlyMap<Term, Float64Array>,
    private readonly activation: Activation,
  ) {}

  /** The logit, or the probability, of a class. */
  static ofClass(term: "logits" | "probabilities", target: number, manifest: Manifest): ScoreMatrix {
    const row = new Float64Array(outputsOf(manifest));
    row[target] = 1;
    return new ScoreMatrix(new Map([[term, row]]), manifest.activation);
  }

  /** Whether all values are in [0, 1]: a probability, or a sum of some of those that add up to 1. */
  get isProbability(): boolean {
    const row = this.weights.get("probabilities");
    if (row === undefined || this.weights.size > 1 || row.some((weight) => weight < 0)) return false;
    return (this.activation === "softmax" ? row.reduce((a, b) => Math.max(a, b)) : row.reduce((a, b) => a + b)) <= 1;
  }

  /** Whether it is an affine function of the outputs, so that its derivative is the same everywhere. */
  get isAffine(): boolean {
    return [...this.weights].every(([term, row]) => term === "logits" || term === "one" || row.every((weight) => weight === 0));
  }

  /** Whether no value is below 0, and 0 means nothing: probabilities, the entropy, and sums of them. */
  get isPositive(): boolean {
    return [...this.weights].every(
      ([term, row]) => (term === "probabilities" || term === "entropy") && row.every((weight) => weight >= 0),
    );
  }

  /** The score of the logits of an image. */
  value(logits: Float32Array): number {
    let total = 0;
    for (const [term, row] of this.weights) {
      if (row.some((weight) => weight !== 0)) total += dot(row, this.term(term, logits));
    }
    return total;
  }

  /** The derivative with respect to the logits of an image, the seed of the gradient graph: float32 [outputs]. */
  derivative(logits: Float32Array): Float32Array {
    const z = Float64Array.from(logits);
    const total = new Float64Array(z.length);
    const add = (part: Float64Array): void => part.forEach((value, i) => (total[i] += value));
    for (const [term, row] of this.weights) {
      if (term === "logits") add(row);
      else if (term === "probabilities") add(ofProbabilities(row, z, this.activation));
      else if (term === "direction") {
        const length = Math.max(lengthOf(z), LEAST_LENGTH);
        const unit = z.map((value) => value / length);
        const along = dot(row, unit);
        add(row.map((weight, i) => (weight - along * unit[i]) / length));
      } else if (term === "entropy") add(entropyDerivative(z, this.activation).map((value) => row[0] * value));
    }
    return Float32Array.from(total);
  }

  /**
   * What the scorers take as input `score`: float32 [U].
   *
   * @throws OrtcamError they lack a term
   */
  row(manifest: Manifest): Float32Array {
    const { score_terms: terms } = manifest.graphs;
    const missing = [...this.weights.keys()].filter((term) => !terms.includes(term));
    if (missing.length > 0) {
      throw new OrtcamError(`the scorers of this bundle cannot compute ${missing.join(", ")}: export it again`);
    }
    const row = new Float32Array(scoreLength(manifest));
    let first = 0;
    for (const [i, size] of termSizes(manifest).entries()) {
      row.set(this.weights.get(terms[i] as Term) ?? [], first);
      first += size;
    }
    return row;
  }

  private term(term: Term, logits: Float32Array): ArrayLike<number> {
    if (term === "logits") return logits;
    if (term === "one") return [1];
    const z = Float64Array.from(logits);
    if (term === "probabilities") return exactProbabilities(z, this.activation);
    if (term === "direction") {
      const length = Math.max(lengthOf(z), LEAST_LENGTH);
      return z.map((value) => value / length);
    }
    return [entropy(z, this.activation)];
  }
}

/** Softmax over the classes, the sigmoid of each logit, or the values as they are, in float64. */
export function exactProbabilities(logits: ArrayLike<number>, activation: Activation): Float64Array {
  if (activation === "identity") return Float64Array.from(logits);
  if (activation === "sigmoid") return Float64Array.from(logits, sigmoid);
  return logSoftmax(Float64Array.from(logits)).map(Math.exp);
}

function sigmoid(z: number): number {
  return 1 / (1 + Math.exp(-z));
}

/** The derivative of a sum of probabilities with respect to the logits, without 1 - p. */
function ofProbabilities(row: Float64Array, z: Float64Array, activation: Activation): Float64Array {
  if (activation === "sigmoid") return row.map((weight, i) => weight * sigmoid(z[i]) * sigmoid(-z[i]));
  const p = exactProbabilities(z, activation);
  const most = z.reduce((best, value, i) => (value > z[best] ? i : best), 0);
  const apart = row.map((weight) => weight - row[most]); // the same for all probabilities changes no sum of them
  const mean = dot(apart, p);
  return p.map((value, i) => value * (apart[i] - mean));
}

/** In nats. */
function entropy(z: Float64Array, activation: Activation): number {
  if (activation === "sigmoid") {
    return z.reduce((total, value) => total + Math.log1p(Math.exp(-Math.abs(value))) + Math.abs(value) * sigmoid(-Math.abs(value)), 0);
  }
  return -logSoftmax(z).reduce((total, log) => total + Math.exp(log) * log, 0);
}

function entropyDerivative(z: Float64Array, activation: Activation): Float64Array {
  if (activation === "sigmoid") return z.map((value) => -value * sigmoid(value) * sigmoid(-value));
  const all = entropy(z, activation);
  return logSoftmax(z).map((log) => -Math.exp(log) * (log + all));
}

function logSoftmax(z: Float64Array): Float64Array {
  const most = z.reduce((a, b) => Math.max(a, b));
  const log = Math.log(z.reduce((total, value) => total + Math.exp(value - most), 0));
  return z.map((value) => value - most - log);
}

function lengthOf(z: Float64Array): number {
  return Math.sqrt(dot(z, z));
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) if (a[i] !== 0) total += a[i] * b[i];
  return total;
}
