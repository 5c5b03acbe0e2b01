/** Which method "auto" takes for a bundle, and why: the table of `ortcam/methods/auto.py`, as data, and what reads it. */
import type { Manifest } from "../engine/manifest";
import table from "./auto.json";
import { choiceOf, type Choice, isMasked, type MethodName } from "./methods";

/** A method that was chosen for the reader. */
export interface Automatic {
  readonly choice: Choice;
  readonly reason: string; // in one line that follows "because"
  readonly line: string; // what a result says
}

type Facts = Pick<Manifest, "gradient" | "graphs" | "cut">;

/** The kind of a bundle. @param limited whether only a method that masks the image will do */
export function kindOf({ gradient, graphs, cut }: Facts, limited: boolean): string {
  const tokens = cut.layout === "tokens";
  const hasHead = graphs.head !== null;
  if (limited) return tokens ? "limited-tokens" : "limited";
  if (tokens && gradient !== null && gradient.attention_heads !== null) return "attention";
  if (!hasHead && (tokens || gradient === null)) return tokens ? "tokens-without-head" : "without-head";
  if (gradient === null) return tokens ? "tokens-without-gradient" : "without-gradient";
  if (tokens) return "tokens";
  return gradient.inputs.length > 0 ? "convolutional" : "affine";
}

/** The method for a bundle. Here maps of masks always have limits, since they get better while the reader watches. */
export function chooseMethod(facts: Facts): Automatic {
  const first = rowOf(kindOf(facts, false));
  const row = isMasked({ method: first.method as MethodName }) ? rowOf(kindOf(facts, true)) : first;
  const given = Object.entries(row.arguments).map(([name, value]) => `${name} ${String(value)}`);
  const options = given.length > 0 ? ` with ${given.join(" and ")}` : "";
  const choice = choiceOf(row.method as MethodName, row.arguments);
  return { choice, reason: row.reason, line: `${row.method}${options}, because ${row.reason}` };
}

function rowOf(kind: string): (typeof table)[number] {
  const row = table.find((item) => item.kind === kind);
  if (row === undefined) throw new Error(`no row for bundles of the kind ${kind}`);
  return row;
}
