/** The grammar of scores: from a text to terms, before a model is known, as `ortcam/request/score_text.py` has it. */
import { OrtcamError } from "../errors";
import { shown } from "./shown";

/** The scores of classes, one map for each. */
export const WORDS = ["logit", "probability"] as const;
export type Word = (typeof WORDS)[number];

/** Where probabilities are asked for and there are none. */
export const VALUES =
  "this model's outputs are values, not probabilities; accepted is logit, the name or the index of an output, " +
  "output[I] or cosine:FILE";

/** A term of a score. */
export interface Item {
  readonly kind: "logit" | "probability" | "entropy" | "cosine" | "output" | "one";
  readonly factor: number;
  readonly text: string; // as it was written, for messages
  readonly name: string | null; // CLASS of a logit or a probability; ARRAY of a cosine, or the mask of an output
  readonly index: readonly (number | null)[]; // of an output, per axis; null for all of an axis
  readonly output: string | null; // its name; a logit has one, too, since only the model says which of the two is meant
}

const LONGEST = 1 << 16; // characters
const NUMBER = "(?:[0-9]+\\.?[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?";
const FACTOR = new RegExp(`^(${NUMBER})\\s*\\*\\s*(.*)$`, "s");
const CONSTANT = new RegExp(`^${NUMBER}$`);
const OUTPUT = /^output\[([0-9:,\s]*)\]\s*(?:@\s*(.+))?$/s;
const NAMED =
  /^(?:"(?<double>[^"]+)"|'(?<single>[^']+)'|(?<plain>[^"'].*?))\s*\[(?<axes>[0-9:,\s]*)\]\s*(?:@\s*(?<mask>.+))?$/s;
const INDEX = /^[0-9]{1,15}$/;
const QUOTES = `"'`;
const EXAMPLES =
  "accepted is logit or probability, or an expression such as 'mug - key', '2*logit:mug', 'entropy', " +
  "'cosine:text.npy' or 'output[3]'";

/** The word that a text is; null: it is an expression. */
export function wordOf(text: string): Word | null {
  const lower = text.trim().toLowerCase();
  return WORDS.find((word) => word === lower) ?? null;
}

/**
 * The terms of an expression.
 *
 * @throws OrtcamError it is empty or too long, or a term is not accepted
 */
export function parseScore(text: string): Item[] {
  if (text.trim() === "" || [...text].length > LONGEST) throw new OrtcamError(`score=${shown(text)}: ${EXAMPLES}`);
  const items = split(text.trim()).map(([sign, part]) => itemOf(part, sign, text));
  if (items.every(({ kind }) => kind === "one")) {
    const number = text.trim().replace(/^-+/, "").trim();
    const hint = /^\p{Nd}+$/u.test(number) ? `; class ${number} is index:${number}` : "; a class is index:N";
    throw new OrtcamError(`score=${shown(text)}: is a number, the same for every image${hint}`);
  }
  return items;
}

/** Signs and terms: cut at + and - between spaces that lie in no quotes and no brackets. */
function split(whole: string): [number, string][] {
  let sign = whole.startsWith("-") ? -1 : 1;
  const text = sign < 0 ? whole.slice(1).trimStart() : whole;
  const parts: [number, string][] = [];
  let [start, quote, inside] = [0, "", false];
  for (let place = 0; place < text.length; place++) {
    const letter = text[place];
    const [before, behind] = [text.slice(Math.max(place - 1, 0), place), text.slice(place + 1, place + 2)];
    if (quote !== "") {
      if (letter === quote) quote = "";
    } else if (QUOTES.includes(letter) && (place === start || " :*@".includes(before))) {
      quote = text.includes(letter, place + 1) ? letter : "";
    } else if (letter === "[" || letter === "]") inside = letter === "[";
    else if ((letter === "+" || letter === "-") && !inside && before === " " && (behind === " " || behind === "")) {
      parts.push([sign, text.slice(start, place)]);
      [sign, start] = [letter === "+" ? 1 : -1, place + 1];
    }
  }
  return [...parts, [sign, text.slice(start)]];
}

/** One term. @param whole the text of the score, for messages */
function itemOf(raw: string, sign: number, whole: string): Item {
  let part = raw.trim();
  if (part === "") throw new OrtcamError(`score=${shown(whole)}: a term is empty; ${EXAMPLES}`);
  const plain = { name: null, index: [], output: null };
  if (CONSTANT.test(part)) return { ...plain, kind: "one", factor: sign * numberOf(part, whole), text: part };
  let factor = sign;
  const found = FACTOR.exec(part);
  if (found !== null) {
    factor = sign * numberOf(found[1], whole);
    part = found[2].trim();
    if (part === "") throw new OrtcamError(`score=${shown(whole)}: nothing to multiply; ${EXAMPLES}`);
  }
  const item = { ...plain, factor, text: part };
  if (part.toLowerCase() === "entropy") return { ...item, kind: "entropy" };
  if (part.toLowerCase().startsWith("output[")) return outputOf(item, whole);
  const colon = part.indexOf(":");
  const kind = part.slice(0, Math.max(colon, 0)).trim().toLowerCase();
  if (kind === "logit" || kind === "probability" || kind === "cosine") {
    const rest = part.slice(colon + 1).trim();
    if (rest === "") {
      const what = kind === "cosine" ? "a file or the name of an array" : "a class";
      throw new OrtcamError(`score=${shown(whole)}: ${kind}: needs ${what} behind it`);
    }
    return { ...item, kind, name: kind === "cosine" ? arrayName(rest, part, whole) : rest };
  }
  return namedOf(item, whole) ?? { ...item, kind: "logit", name: part, output: unquoted(part) };
}

/** An element of an output by name, or a class that is written as one. */
function namedOf(item: Omit<Item, "kind">, whole: string): Item | null {
  const groups = NAMED.exec(item.text)?.groups;
  if (groups === undefined) return null;
  const axes = groups["axes"].split(",").map((axis) => axis.trim());
  if (!areAxes(axes)) return null;
  const output = groups["double"] ?? groups["single"] ?? groups["plain"];
  if (groups["mask"] !== undefined) return elementsOf(item, output, axes, groups["mask"], whole);
  return { ...item, kind: "logit", name: item.text, index: indexOf(axes), output };
}

function outputOf(item: Omit<Item, "kind">, whole: string): Item {
  const found = OUTPUT.exec(item.text.slice(0, 6).toLowerCase() + item.text.slice(6));
  const axes = found === null ? [] : found[1].split(",").map((axis) => axis.trim());
  if (found === null || !areAxes(axes)) {
    throw new OrtcamError(
      `score=${shown(whole)}: ${shown(item.text)} is not accepted; accepted is output[I, J, ...] with an index from 0 ` +
        "or : for each axis, and @FILE behind it for a mask",
    );
  }
  return elementsOf(item, item.text.slice(0, 6), axes, found[2], whole);
}

/** Elements of an output, weighed by a mask if there is one. */
function elementsOf(
  item: Omit<Item, "kind">,
  output: string,
  axes: readonly string[],
  mask: string | undefined,
  whole: string,
): Item {
  const name = mask === undefined ? null : arrayName(mask, item.text, whole);
  const free = axes.filter((axis) => axis === ":").length;
  if (name !== null && free !== 2) {
    throw new OrtcamError(
      `score=${shown(whole)}: a mask has two axes, and ${shown(item.text)} leaves ${free}; accepted is : for two of them`,
    );
  }
  return { ...item, kind: "output", name, index: indexOf(axes), output };
}

function areAxes(axes: readonly string[]): boolean {
  return axes.every((axis) => axis === ":" || INDEX.test(axis));
}

function indexOf(axes: readonly string[]): (number | null)[] {
  return axes.map((axis) => (axis === ":" ? null : Number(axis)));
}

function numberOf(text: string, whole: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value > 1e30) {
    throw new OrtcamError(`score=${shown(whole)}: the number ${text} is too large`);
  }
  return value;
}

/** ARRAY without the quotes around it. */
function arrayName(name: string, part: string, whole: string): string {
  const own = unquoted(name.trim());
  if (own === "") {
    throw new OrtcamError(`score=${shown(whole)}: ${shown(part)} needs a file or the name of an array, not ''`);
  }
  return own;
}

function unquoted(name: string): string {
  return name.length > 1 && name[0] === name.at(-1) && QUOTES.includes(name[0]) ? name.slice(1, -1) : name;
}
