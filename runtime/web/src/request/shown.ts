/** Values as messages repeat them: as Python writes them, so that the page says the same sentences. */

const LONGEST = 60; // characters of a value that a message repeats

/** A text in quotes, short whatever its length. */
export function shown(text: string): string {
  const letters = [...quoted(text)];
  return letters.length <= LONGEST ? letters.join("") : `${letters.slice(0, LONGEST - 3).join("")}...`;
}

/** A text in quotes. */
export function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const named: Readonly<Record<string, string>> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", [quote]: `\\${quote}` };
  const inside = [...text].map((letter) => named[letter] ?? (/[\p{C}\p{Z}]/u.test(letter) && letter !== " " ? escaped(letter) : letter));
  return `${quote}${inside.join("")}${quote}`;
}

/** Numbers as a list. */
export function listed(numbers: readonly number[]): string {
  return `[${numbers.join(", ")}]`;
}

function escaped(letter: string): string {
  const code = letter.codePointAt(0) ?? 0;
  const [sign, digits] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
  return `\\${sign}${code.toString(16).padStart(Number(digits), "0")}`;
}
