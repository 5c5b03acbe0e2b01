/** Which class a text names: an index or a label, by the rule of `ortcam/request/targets.py`. */
import { OrtcamError } from "../errors";
import { quoted, shown } from "./shown";
import { didYouMean, plain } from "./suggestions";

const [INDEX, LABEL] = ["index:", "label:"];
const NUMBER = /^-?[0-9]{1,18}$/;
const [MOST_LISTED, MOST_LETTERS] = [10, 200]; // labels that a message lists, in at most so many letters

/**
 * The index of one class.
 *
 * @throws OrtcamError no such class, several of this label, or a number that may mean two classes
 */
export function classIndex(text: string, labels: readonly string[]): number {
  const item = text.trim();
  if (item === "") {
    throw new OrtcamError(
      `target ${quoted(text)}: is empty; accepted is a class index or a label, and ${LABEL} alone for a label of no text`,
    );
  }
  const lower = item.toLowerCase();
  if (lower.startsWith(INDEX)) return ofIndex(item, labels);
  if (lower.startsWith(LABEL)) return ofLabel(item, labels);
  const found = find(item, labels);
  if (!NUMBER.test(item)) return only(found, item, labels);
  const number = Number(item);
  if (number < 0 || number >= labels.length) {
    if (found.length > 0) return only(found, item, labels);
    throw new OrtcamError(`target ${item}: the model has classes 0 to ${labels.length - 1}`);
  }
  if (found.length === 0 || (found.length === 1 && found[0] === number)) return number;
  throw new OrtcamError(
    `target ${quoted(item)}: is the index of class ${number} (${quoted(labels[number])}) and the label of class ` +
      `${found.join(", ")}; accepted is ${INDEX}${item} or ${LABEL}${item}`,
  );
}

function ofIndex(item: string, labels: readonly string[]): number {
  const number = item.slice(INDEX.length).trim();
  if (NUMBER.test(number) && Number(number) >= 0 && Number(number) < labels.length) return Number(number);
  const found = find(item, labels);
  if (found.length > 0) return only(found, item, labels);
  throw new OrtcamError(`target ${quoted(item)}: accepted is ${INDEX} and a number from 0 to ${labels.length - 1}`);
}

/** A label behind `label:`, or one that itself begins so. */
function ofLabel(item: string, labels: readonly string[]): number {
  const [behind, whole] = [find(item.slice(LABEL.length), labels), find(item, labels)];
  if (behind.length > 0 && whole.length > 0) {
    throw new OrtcamError(
      `target ${quoted(item)}: is the label of class ${whole.join(", ")}, and says the label of class ` +
        `${behind.join(", ")}; accepted is ${INDEX} and the number`,
    );
  }
  return only(behind.length > 0 ? behind : whole, item, labels);
}

function only(found: readonly number[], item: string, labels: readonly string[]): number {
  if (found.length === 1) return found[0];
  if (found.length > 1) {
    throw new OrtcamError(
      `target ${quoted(item)} names the classes ${found.join(", ")}: give the index, say ${INDEX}${found[0]}`,
    );
  }
  const text = item.toLowerCase().startsWith(LABEL) ? item.slice(LABEL.length) : item;
  throw new OrtcamError(
    `target ${shown(item)}: no class of the model has this label (0 to ${labels.length - 1})` +
      (didYouMean(text, labels) || allOfFew(labels)),
  );
}

/** The labels themselves, for the end of a message, where they are few and short. */
function allOfFew(labels: readonly string[]): string {
  const listed = labels.length > MOST_LISTED ? "" : `; accepted: ${labels.map(quoted).join(", ")}`;
  return [...listed].length <= MOST_LETTERS ? listed : "";
}

/** The classes of a label, or of what is in quotes: written exactly so, else in any case. */
function find(text: string, labels: readonly string[]): readonly number[] {
  const inner = text.trim();
  const own = named(text, labels);
  if (own.length > 0 || inner.length < 2 || inner[0] !== inner.at(-1) || !`"'`.includes(inner[0])) return own;
  return named(inner.slice(1, -1), labels);
}

function named(text: string, labels: readonly string[]): readonly number[] {
  const those = (is: (label: string) => boolean): number[] => [...labels.keys()].filter((index) => is(labels[index]));
  for (const exact of [text, text.trim()]) {
    const found = those((label) => label === exact);
    if (found.length > 0) return found;
  }
  const wanted = plain(text);
  return those((label) => plain(label) === wanted);
}
