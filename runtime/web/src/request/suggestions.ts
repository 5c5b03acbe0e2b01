/** What somebody may have meant by a name that is not known, by the rules of `ortcam/support/suggestions.py`. */
import { quoted } from "./shown";

const MOST_TOLD = 3;
const LEAST_LETTERS = 3; // of a word that others may begin with
const ALIKE = 0.6; // the least likeness of similar letters

/** A name as it is compared: any case, underscores for spaces, any number of spaces, composed letters. */
export function plain(text: string): string {
  const folded = text.normalize("NFC").replace(/_/g, " ").toLowerCase().toUpperCase().toLowerCase();
  return folded.split(/\s+/).filter((word) => word !== "").join(" ").replace(/ ?, ?/g, ", ").trim();
}

/** The end of an error message: "; did you mean 'tiger cat', 'Persian cat'?", or nothing. */
export function didYouMean(text: string, known: readonly string[]): string {
  const letters = lettersOf(text);
  const names = [...new Set(known)];
  const likeness = new Map<string, number>();
  const found = letters === "" ? [] : alike(letters, wordsOf(text), names);
  for (const name of found) likeness.set(name, ratio(lettersOf(name), letters));
  const told = found.sort((a, b) => (likeness.get(b) ?? 0) - (likeness.get(a) ?? 0)).slice(0, MOST_TOLD);
  return told.length > 0 ? `; did you mean ${told.map(quoted).join(", ")}?` : "";
}

/** The names that the first rule finds that finds any: same letters, most words, family, beginnings, similar letters. */
function alike(letters: string, wanted: ReadonlySet<string>, names: readonly string[]): string[] {
  const same = names.filter((name) => lettersOf(name) === letters);
  if (same.length > 0) return same;
  const words = new Map(names.map((name) => [name, wordsOf(name)]));
  const long = [...wanted].filter((word) => [...word].length > 1 && !/^\p{Nd}+$/u.test(word));
  const telling = long.length > 0 ? long : [...wanted];
  const shared = (name: string): number => {
    const own = words.get(name) ?? new Set<string>();
    return telling.some((word) => own.has(word)) ? [...wanted].filter((word) => own.has(word)).length : 0;
  };
  const most = names.reduce((high, name) => Math.max(high, shared(name)), 0);
  if (most > 0) return names.filter((name) => shared(name) === most);
  if (letters.length >= LEAST_LETTERS && !names.some((name) => `${lettersOf(name)}s` === letters)) {
    const family = names.filter((name) => lettersOf(name).startsWith(letters));
    if (family.length > 0) return family;
  }
  const begun = names.filter((name) => [...(words.get(name) ?? [])].some((one) => [...wanted].some((other) => beginAlike(one, other))));
  return begun.length > 0 ? begun : closest(letters, names);
}

function closest(letters: string, names: readonly string[]): string[] {
  const byLetters = new Map([...names].reverse().map((name) => [lettersOf(name), name]));
  const scored = [...byLetters].map(([own, name]) => ({ own, name, likeness: ratio(own, letters) }));
  const close = scored.filter(({ likeness }) => likeness >= ALIKE);
  close.sort((a, b) => b.likeness - a.likeness || (a.own < b.own ? 1 : -1));
  return close.slice(0, MOST_TOLD).map(({ name }) => name);
}

function beginAlike(one: string, other: string): boolean {
  return Math.min(one.length, other.length) >= LEAST_LETTERS && (one.startsWith(other) || other.startsWith(one));
}

function wordsOf(text: string): Set<string> {
  return new Set(plain(text.replace(/(?<=[a-z])(?=[A-Z])/g, " ")).match(/[\p{L}\p{Nl}\p{No}]+|\p{Nd}+/gu) ?? []);
}

function lettersOf(text: string): string {
  return plain(text).replace(/[^\p{L}\p{N}+]/gu, "");
}

/** Twice the letters in common blocks over all letters, as `difflib.SequenceMatcher.ratio` counts them. */
function ratio(one: string, other: string): number {
  const [a, b] = [[...one], [...other]];
  return a.length + b.length === 0 ? 1 : (2 * common(a, b)) / (a.length + b.length);
}

/** The longest block that two texts have in common, and those before and behind it. */
function common(a: readonly string[], b: readonly string[]): number {
  let [size, i, j] = [0, 0, 0];
  let before = new Array<number>(b.length + 1).fill(0);
  for (let row = 0; row < a.length; row++) {
    const own = new Array<number>(b.length + 1).fill(0);
    for (let column = 0; column < b.length; column++) {
      if (a[row] !== b[column]) continue;
      own[column + 1] = before[column] + 1;
      if (own[column + 1] > size) [size, i, j] = [own[column + 1], row - own[column + 1] + 1, column - own[column + 1] + 1];
    }
    before = own;
  }
  return size === 0 ? 0 : size + common(a.slice(0, i), b.slice(0, j)) + common(a.slice(i + size), b.slice(j + size));
}
