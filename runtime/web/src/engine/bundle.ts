/** The bundle: the folder that `ortcam export` writes, its manifest, and the checks before a file is used. */
import type { Cut } from "./cut";
import { OrtcamError } from "../errors";
import type { Preprocessing } from "../images/preprocessing";

const NEWEST_SCHEMA = 4;
const REMEDY = "copy or export the bundle again";
const TOO_OLD = "it was exported before gradients were part of a bundle; export the model again";

/** What of `bundle.json` the page uses, an older schema brought up to the newest. */
export interface Manifest {
  readonly schema: number;
  readonly model: { readonly name: string };
  readonly labels: readonly string[];
  readonly activation: "softmax" | "sigmoid";
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
  };
  readonly precision: string;
  readonly files: Readonly<Record<string, { readonly size: number; readonly sha256: string }>>;
}

/** A bundle whose manifest has been checked; its files are when they are fetched. */
export interface Bundle {
  readonly address: string; // of the folder, with a slash at its end
  readonly name: string;
  readonly manifest: Manifest;
  readonly sha256: string | null; // of bundle.json; null where the browser has no cryptography (no secure context)
}

type Bytes = Uint8Array<ArrayBuffer>;

/**
 * The address of the bundle that the page's own address asks for.
 *
 * @throws OrtcamError it is not a relative path on this site
 */
export function bundleAddress(page: URL, shipped: string): string {
  const path = page.searchParams.get("bundle") ?? shipped;
  const address = URL.canParse(path, page.href) ? new URL(`${path.replace(/\/+$/, "")}/`, page.href) : null;
  if (address === null || /^([a-z][a-z0-9+.-]*:|[/\\]{2})/i.test(path.trim()) || address.origin !== page.origin) {
    throw new OrtcamError(`?bundle=${path}: accepted is a relative path on this site, say ?bundle=${shipped}`);
  }
  return new URL(address.pathname, page.origin).href;
}

/**
 * Fetch and check a manifest.
 *
 * @throws OrtcamError there is none, it is of a newer schema, or it has an entry that is not accepted
 */
export async function openBundle(address: string): Promise<Bundle> {
  return checkBundle(address, await download(`${address}bundle.json`, `${bundleName(address)}/bundle.json`));
}

/** The name of the folder at an address. */
export function bundleName(address: string): string {
  return decodeURIComponent(address.replace(/\/$/, "").split("/").pop() ?? "");
}

/**
 * Check a manifest.
 *
 * @param bytes the content of bundle.json
 * @throws OrtcamError it is of a newer schema, or has an entry that is not accepted
 */
export async function checkBundle(address: string, bytes: Bytes): Promise<Bundle> {
  const name = bundleName(address);
  const where = `${name}/bundle.json`;
  let raw: unknown;
  try {
    raw = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new OrtcamError(`${where}: not JSON: ${(error as Error).message}`);
  }
  return { address, name, manifest: parseManifest(raw, where), sha256: await sha256(bytes) };
}

/**
 * Fetch a file of a bundle and compare its size and SHA-256 with the manifest's.
 *
 * @throws OrtcamError it is missing, truncated or altered
 */
export async function fetchFile(bundle: Bundle, file: string): Promise<Bytes> {
  const where = `${bundle.name}/${file}`;
  const record = bundle.manifest.files[file];
  const bytes = await download(`${bundle.address}${encodeURIComponent(file)}`, where);
  if (bytes.length !== record.size) {
    const what = bytes.length < record.size ? "truncated" : "altered";
    throw new OrtcamError(`${where}: ${what}, ${bytes.length} bytes instead of ${record.size}; ${REMEDY}`);
  }
  const digest = await sha256(bytes);
  if (digest !== null && digest !== record.sha256) {
    throw new OrtcamError(`${where}: altered, its SHA-256 is not the one in bundle.json; ${REMEDY}`);
  }
  return bytes;
}

/** The files of weights that a graph points into: those whose names are written in it. */
export function weightsOf(bundle: Bundle, graph: Bytes): string[] {
  const text = new TextDecoder("latin1").decode(graph);
  return Object.keys(bundle.manifest.files).filter((name) => !/\.(onnx|npy)$/.test(name) && text.includes(name));
}

/** SHA-256 in hexadecimal; null where the browser has no cryptography. */
export async function sha256(bytes: Bytes): Promise<string | null> {
  if (!("subtle" in crypto)) return null;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function download(address: string, where: string): Promise<Bytes> {
  let answer: Response;
  try {
    answer = await fetch(address, { cache: "no-cache" });
    if (answer.ok) return new Uint8Array(await answer.arrayBuffer());
  } catch (error) {
    throw new OrtcamError(`${where}: cannot be fetched from where this page comes from: ${(error as Error).message}`);
  }
  throw new OrtcamError(`${where}: missing, the server answers ${answer.status}; ${REMEDY}`);
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
  triple = (key: string): number[] =>
    this.read(key, (v): v is number[] => Array.isArray(v) && v.length === 3 && v.every(isNumber), "three numbers");
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

function parseManifest(raw: unknown, where: string): Manifest {
  const entries = new Entries(migrate(raw, where), where);
  const preprocessing = entries.object("preprocessing");
  const gradient = entries.isNull("gradient") ? null : entries.object("gradient");
  const graphs = entries.object("graphs");
  const scorers = graphs.object("scorers");
  const files = entries.object("files");
  const isTexts = (v: unknown): v is string[] => Array.isArray(v) && v.every(isText);
  const isLabels = (v: unknown): v is string[] => isTexts(v) && v.length > 0;
  const manifest: Manifest = {
    schema: entries.whole("schema", 1),
    model: { name: entries.object("model").text("name") },
    labels: entries.read("labels", isLabels, "a list of texts"),
    activation: entries.choice("activation", "softmax", "sigmoid"),
    preprocessing: {
      height: preprocessing.whole("height", 1),
      width: preprocessing.whole("width", 1),
      resize: preprocessing.read(
        "resize",
        (v): v is number | null => v === null || (Number.isInteger(v) && (v as number) >= 1),
        "a whole number from 1 or null",
      ),
      mean: preprocessing.triple("mean"),
      std: preprocessing.triple("std"),
      interpolation: preprocessing.choice("interpolation", "bilinear", "bicubic"),
      antialias: preprocessing.flag("antialias"),
      channel_order: preprocessing.choice("channel_order", "rgb", "bgr"),
      scale: preprocessing.positive("scale"),
      keep_aspect: preprocessing.flag("keep_aspect"),
      crop_rounding: preprocessing.choice("crop_rounding", "half-even", "down"),
    },
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
  if (schema === NEWEST_SCHEMA) return raw;
  const third = schema === 1 ? fromFirst(raw) : raw;
  return { ...third, layers: [], gradient: null, no_gradient: TOO_OLD };
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
