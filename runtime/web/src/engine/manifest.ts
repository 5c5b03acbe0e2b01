/** The manifest of a bundle, `bundle.json`: its entries are checked, and an older schema is brought up to the newest. */
import type { Cut } from "./cut";
import { OrtcamError } from "../errors";
import { CHANNEL_ORDERS, type Preprocessing } from "../images/preprocessing";

const NEWEST_SCHEMA = 5;
const MOST_CHANNELS = 64;
const TOO_OLD = "it was exported before gradients were part of a bundle; export the model again";
/** The blocks of the scorers' input `score`, and whether one has an entry per output (else it has one in all). */
const SCORE_TERMS: Readonly<Record<string, boolean>> = {
  logits: true,
  probabilities: true,
  direction: true,
  entropy: false,
  one: false,
};

/** One of several outputs of the original, which the graphs give one behind the other. */
export interface OutputPart {
  readonly name: string;
  readonly shape: readonly number[]; // for one image; empty for a single number
}

/** What of `bundle.json` the page uses, an older schema brought up to the newest. */
export interface Manifest {
  readonly schema: number;
  readonly model: { readonly name: string };
  readonly labels: readonly string[]; // of the outputs; none where they are a tensor
  readonly output_shape: readonly number[]; // of one image: [classes], or that of a tensor
  readonly output_parts: readonly OutputPart[]; // where there are several outputs
  readonly activation: "softmax" | "sigmoid" | "identity"; // the last: the outputs are values, not probabilities
  readonly preprocessing: Preprocessing;
  readonly cut: Cut; // of the deepest layer, which the head begins at
  readonly layers: readonly Cut[]; // further ones, in the order of the data flow
  readonly gradient: {
    readonly graph: string;
    readonly inputs: readonly string[]; // beside the seed
    readonly attention_heads: number | null; // of the output `attention_relevance`; null where there is none
  } | null;
  readonly no_gradient: string | null; // why there is none, as part of a sentence
  readonly graphs: {
    readonly features: string;
    readonly head: string | null;
    readonly classifier: string | null;
    readonly scorers: Readonly<Record<string, string>>;
    readonly score_terms: readonly string[]; // blocks of the scorers' input `score`; none where they have no such input
    readonly static_batch: number | null; // rows that every run has; null where it may have any number
  };
  readonly precision: string;
  readonly files: Readonly<Record<string, { readonly size: number; readonly sha256: string }>>;
}

/** Whether the outputs are probabilities, and not values of any range. */
export function areProbabilities({ activation }: Pick<Manifest, "activation">): boolean {
  return activation !== "identity";
}

/** How many numbers the graphs give for one image: the classes, or the elements of a tensor. */
export function outputsOf({ output_shape: shape }: Pick<Manifest, "output_shape">): number {
  return shape.reduce((product, side) => product * side, 1);
}

/** How many numbers each term has in a row of the scorers' input `score`. */
export function termSizes({ graphs, output_shape }: Pick<Manifest, "graphs" | "output_shape">): number[] {
  return graphs.score_terms.map((term) => (SCORE_TERMS[term] ? outputsOf({ output_shape }) : 1));
}

/** How many numbers there are in such a row. */
export function scoreLength(manifest: Pick<Manifest, "graphs" | "output_shape">): number {
  return termSizes(manifest).reduce((total, size) => total + size, 0);
}

type Json = Readonly<Record<string, unknown>>;

/** Reads the entries of an object of the manifest; what is missing or not accepted is named. */
class Entries {
  constructor(
    private readonly raw: unknown,
    private readonly where: string,
  ) {
    if (!isObject(raw)) throw new OrtcamError(`${where} is ${JSON.stringify(raw)}: accepted is an object`);
  }

  read<T>(key: string, accepts: (value: unknown) => value is T, accepted: string): T {
    const value = (this.raw as Json)[key];
    if (!accepts(value)) {
      throw new OrtcamError(`${this.where}.${key} is ${JSON.stringify(value)}: accepted is ${accepted}`);
    }
    return value;
  }

  object = (key: string): Entries => new Entries((this.raw as Json)[key], `${this.where}.${key}`);
  objects = (key: string): Entries[] =>
    this.read(key, (v): v is unknown[] => Array.isArray(v), "a list").map((v, i) => new Entries(v, `${this.where}.${key}[${i}]`));
  isNull = (key: string): boolean => (this.raw as Json)[key] === null;
  keys = (): string[] => Object.keys(this.raw as Json);
  text = (key: string): string => this.read(key, isText, "a text");
  textOrNull = (key: string): string | null => this.read(key, (v) => v === null || isText(v), "a text or null");
  flag = (key: string): boolean => this.read(key, (v) => typeof v === "boolean", "true or false");
  whole = (key: string, least: number): number =>
    this.read(key, (v): v is number => Number.isInteger(v) && (v as number) >= least, `a whole number from ${least}`);
  positive = (key: string): number => this.read(key, (v): v is number => isNumber(v) && v > 0, "a positive number");
  choice = <T extends string>(key: string, ...values: T[]): T =>
    this.read(key, (v): v is T => values.includes(v as T), values.join(" or "));
  wholes = (key: string, least: number): number[] =>
    this.read(key, (v): v is number[] => isList(v) && v.every((n) => Number.isInteger(n) && n >= least), `whole numbers from ${least}`);
  wholesOrNone = (key: string, least: number): number[] =>
    Array.isArray((this.raw as Json)[key]) && ((this.raw as Json)[key] as unknown[]).length === 0 ? [] : this.wholes(key, least);
  numbers = (key: string, count: number): number[] =>
    this.read(key, (v): v is number[] => isList(v) && v.length === count && v.every(isNumber), `${count} numbers`);
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function isList(value: unknown): value is number[] {
  return Array.isArray(value) && value.length > 0;
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

/**
 * Check what `bundle.json` says.
 *
 * @param where it lies, for messages
 * @throws OrtcamError it is of a newer schema, or an entry is missing or not accepted
 */
export function parseManifest(raw: unknown, where: string): Manifest {
  const entries = new Entries(migrate(raw, where), where);
  const gradient = entries.isNull("gradient") ? null : entries.object("gradient");
  const graphs = entries.object("graphs");
  const scorers = graphs.object("scorers");
  const files = entries.object("files");
  const isTerms = (v: unknown): v is string[] => isTexts(v) && v.every((term) => Object.hasOwn(SCORE_TERMS, term));
  const isTexts = (v: unknown): v is string[] => Array.isArray(v) && v.every(isText);
  const shape = entries.wholes("output_shape", 1);
  const parts = entries.keys().includes("output_parts") ? entries.objects("output_parts") : [];
  const named = shape.length === 1 && parts.length === 0; // several outputs have no labels, as a tensor has none
  const isLabels = (v: unknown): v is string[] => isTexts(v) && v.length === (named ? shape[0] : 0);
  const manifest: Manifest = {
    schema: entries.whole("schema", 1),
    model: { name: entries.object("model").text("name") },
    labels: entries.read("labels", isLabels, named ? `a list of texts, ${shape[0]} of them` : "an empty list"),
    output_shape: shape,
    output_parts: parts.map((part) => ({ name: part.text("name"), shape: part.wholesOrNone("shape", 1) })),
    activation: entries.choice("activation", "softmax", "sigmoid", "identity"),
    preprocessing: parsePreprocessing(entries.object("preprocessing")),
    cut: parseCut(entries.object("cut")),
    layers: entries.objects("layers").map(parseCut),
    gradient: gradient && {
      graph: gradient.text("graph"),
      inputs: gradient.read("inputs", isTexts, "a list of texts"),
      attention_heads: gradient.isNull("attention_heads") ? null : gradient.whole("attention_heads", 1),
    },
    no_gradient: entries.textOrNull("no_gradient"),
    graphs: {
      features: graphs.text("features"),
      head: graphs.textOrNull("head"),
      classifier: graphs.textOrNull("classifier"),
      scorers: Object.fromEntries(scorers.keys().map((kind) => [kind, scorers.text(kind)])),
      score_terms: graphs.read("score_terms", isTerms, `some of ${Object.keys(SCORE_TERMS).join(", ")}`),
      static_batch: !graphs.keys().includes("static_batch") || graphs.isNull("static_batch") ? null : graphs.whole("static_batch", 1),
    },
    precision: entries.text("precision"),
    files: Object.fromEntries(
      files.keys().map((name) => {
        const record = files.object(name);
        return [name, { size: record.whole("size", 0), sha256: record.text("sha256") }];
      }),
    ),
  };
  checkNames(manifest, where);
  return manifest;
}

function parsePreprocessing(entries: Entries): Preprocessing {
  const isSize = (v: unknown): v is number | null => v === null || (Number.isInteger(v) && (v as number) >= 1);
  const isMean = (v: unknown): v is number[] => isList(v) && v.length <= MOST_CHANNELS && v.every(isNumber);
  const mean = entries.read("mean", isMean, `1 to ${MOST_CHANNELS} numbers`);
  return {
    height: entries.whole("height", 1),
    width: entries.whole("width", 1),
    resize: entries.read("resize", isSize, "a whole number from 1 or null"),
    mean,
    std: entries.numbers("std", mean.length),
    interpolation: entries.choice("interpolation", "bilinear", "bicubic"),
    antialias: entries.flag("antialias"),
    channel_order: entries.choice("channel_order", ...CHANNEL_ORDERS),
    scale: entries.positive("scale"),
    keep_aspect: entries.flag("keep_aspect"),
    crop_rounding: entries.choice("crop_rounding", "half-even", "down"),
    value_range: entries.isNull("value_range") ? null : (entries.numbers("value_range", 2) as [number, number]),
    display: entries.isNull("display") ? null : entries.wholes("display", 0),
  };
}

function parseCut(cut: Entries): Cut {
  return {
    tensor: cut.text("tensor"),
    module: cut.textOrNull("module"),
    layout: cut.choice("layout", "nchw", "nhwc", "tokens"),
    channels: cut.whole("channels", 1),
    height: cut.whole("height", 1),
    width: cut.whole("width", 1),
    prefix_tokens: cut.whole("prefix_tokens", 0),
  };
}

/** Bring an older schema up to the newest, as `ortcam.bundle.migration` does. */
function migrate(raw: unknown, where: string): Json {
  const schema = isObject(raw) ? raw["schema"] : undefined;
  if (!isObject(raw) || !Number.isInteger(schema) || (schema as number) < 1) {
    throw new OrtcamError(`${where}: not the manifest of an ortcam bundle (schema is ${JSON.stringify(schema)})`);
  }
  if ((schema as number) > NEWEST_SCHEMA) {
    throw new OrtcamError(
      `${where}: schema ${schema} is newer than this page reads (${NEWEST_SCHEMA}); upgrade it or export again`,
    );
  }
  let entries = raw;
  if ((schema as number) < 2) entries = fromFirst(entries);
  if ((schema as number) < 4) entries = { ...entries, layers: [], gradient: null, no_gradient: TOO_OLD };
  return (schema as number) < 5 ? fromFourth(entries) : entries;
}

function fromFirst(raw: Json): Json {
  const { preprocessing, graphs } = raw;
  const added = { channel_order: "rgb", scale: 1, keep_aspect: true, crop_rounding: "half-even" };
  return {
    ...raw,
    activation: "softmax",
    preprocessing: isObject(preprocessing) ? { ...preprocessing, ...added } : preprocessing,
    graphs: isObject(graphs) ? { ...graphs, classifier: null } : graphs,
  };
}

function fromFourth(raw: Json): Json {
  const { preprocessing, graphs, labels } = raw;
  const added = { value_range: null, display: null };
  return {
    ...raw,
    output_shape: [Array.isArray(labels) ? labels.length || 1 : 1],
    preprocessing: isObject(preprocessing) ? { ...preprocessing, ...added } : preprocessing,
    graphs: isObject(graphs) ? { ...graphs, score_terms: [] } : graphs,
  };
}

function checkNames({ graphs, files, gradient, no_gradient: why, layers }: Manifest, where: string): void {
  for (const name of Object.keys(files)) {
    if (["", ".", "..", "bundle.json"].includes(name) || /[/\\:\0]/.test(name)) {
      throw new OrtcamError(`${where}: the file name ${JSON.stringify(name)} leaves the bundle's folder`);
    }
  }
  if ((graphs.head === null) === (graphs.classifier === null)) {
    throw new OrtcamError(`${where}: accepted is exactly one of graphs.head and graphs.classifier`);
  }
  if ((gradient === null) === (why === null)) {
    throw new OrtcamError(`${where}: accepted is exactly one of gradient and no_gradient`);
  }
  const accepted = [...layerNames(layers.length, "features"), "image"];
  const strange = gradient?.inputs.find((name) => !accepted.includes(name));
  if (strange !== undefined) {
    throw new OrtcamError(`${where}.gradient.inputs has ${JSON.stringify(strange)}: accepted are ${accepted.join(", ")}`);
  }
  const named = [graphs.features, graphs.head, graphs.classifier, gradient?.graph ?? null, ...Object.values(graphs.scorers)];
  for (const name of named) {
    if (name !== null && !Object.hasOwn(files, name)) {
      throw new OrtcamError(`${where}: the graph ${JSON.stringify(name)} is not among the bundle's files`);
    }
  }
}

/** What a graph calls something that there is for each layer: "features", "features_1", ... */
export function layerNames(further: number, name: string): string[] {
  return Array.from({ length: further + 1 }, (_, i) => (i === 0 ? name : `${name}_${i}`));
}
