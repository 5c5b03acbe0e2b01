/** What the server answers, as `ortcam.serve.protocols.answers` makes it, and the page's own forms of it. */
import { OrtcamError } from "../errors";
import type { Explained, Manifest, Preview, Task } from "../messages";
import { allOptions, type Choice, isMasked, resolvePlan } from "../methods/methods";
import type { Limits } from "../scoring/budget";
import { wordOf } from "../request/score_text";
import type { SaliencyMap } from "../images/rendering";
import type { Cost } from "../methods/unmasked";

/** An explanation of one class, or a map on the way to it. */
export interface ExplanationRecord {
  readonly targets: readonly [
    {
      readonly index: number; // of a class; -1: of a score
      readonly label: string;
      readonly probability?: number;
      readonly value?: number; // in its place, where it is none
      readonly flat: boolean;
      readonly estimated_error: number | null;
      readonly map: { readonly shape: readonly [number, number]; readonly b64: string };
    },
  ];
  readonly stats: {
    readonly seconds: number;
    readonly passes: number;
    readonly head_passes: number;
    readonly gradient_passes: number;
    readonly live_channels: number;
    readonly simplified: readonly string[];
  };
  readonly bundle: { readonly sha256: string };
  readonly notes?: readonly string[]; // what is wrong with the image, of a result
}

/**
 * The parameters of a request for a class or a score, which the server reads.
 *
 * @param channels of the model
 * @param passes that the server makes at most: a map that may end early is held to as many channels as they are enough for
 */
export function parametersOf(
  { choice, score, target, limits: { budget, tolerance } }: Pick<Task, "choice" | "score" | "target" | "limits">,
  { channels, passes }: { readonly channels: number; readonly passes: number },
): URLSearchParams {
  const { method, ...own } = { ...allOptions(choice), method: choice.method };
  const parameters = new URLSearchParams({ method, ...changeable(choice, own), map: "full" });
  if (score === null || wordOf(score) !== null) parameters.set("target", `index:${target}`);
  if (score !== null) parameters.set("score", score);
  if (!isMasked(choice)) return parameters;
  if (budget !== null) parameters.set("budget", String(budget));
  if (tolerance === null) return parameters;
  parameters.set("tolerance", String(tolerance));
  const enough = Math.floor(passes / resolvePlan(choice).coefficients.length);
  if (enough < channels) parameters.set("budget", String(Math.max(enough, 1)));
  return parameters;
}

/** The options that the page lets its reader change; of the others the server has the same defaults. */
function changeable(choice: Choice, options: Readonly<Record<string, unknown>>): Record<string, string> {
  const names = Object.keys(choice).map((name) => (name === "samples" ? "num_samples" : name));
  return Object.fromEntries(names.flatMap((name) => (name in options ? [[name, String(options[name])]] : [])));
}

/** The value of a score for the image as it is; null: a class is explained. */
export function valueOf({ targets: [{ index, label, probability, value }] }: ExplanationRecord): Explained["value"] {
  return index >= 0 ? null : { of: label, is: value ?? probability ?? NaN };
}

/** The map of a record: float32, little-endian as every browser's memory is. */
export function mapOf({ targets: [{ map }] }: ExplanationRecord): SaliencyMap {
  const [height, width] = map.shape;
  const bytes = Uint8Array.from(atob(map.b64), (character) => character.charCodeAt(0));
  if (bytes.length !== 4 * height * width) throw new OrtcamError("The server sent a map of another size than it says.");
  return { data: new Float32Array(bytes.buffer), height, width };
}

/** How sure a map is: 0 is exact, null is not known yet. An estimate of 1 tells nothing. */
export function errorOf({ targets: [{ estimated_error: error }] }: ExplanationRecord): number | null {
  return error === 1 ? null : (error ?? 0);
}

/** How many passes an exact map takes. */
export function passesOfExact(choice: Choice, { stats }: ExplanationRecord): number {
  return isMasked(choice) ? stats.live_channels * resolvePlan(choice).coefficients.length : 0;
}

/** A map on the way. */
export function previewOf(record: ExplanationRecord, choice: Choice, { budget }: Limits): Preview {
  const exact = passesOfExact(choice, record);
  const total = budget === null ? exact : Math.ceil(budget * exact);
  return { passes: record.stats.passes, total, error: errorOf(record), map: mapOf(record) };
}

/** What the reader should know of a map. @param seconds that the server takes for a request at most */
export function notesOf({ stats, notes }: ExplanationRecord, seconds: number): string[] {
  const simplified = stats.simplified.map((note) =>
    // How many passes were made is said anyhow, but not why.
    note.startsWith("stopped after") ? `stopped by the server (its limit is ${seconds} s)` : note,
  );
  return [...simplified, ...(notes ?? [])];
}

/** What a map took that masks no image. */
export function costOf({ stats }: ExplanationRecord): Cost {
  return {
    forwardPasses: stats.passes,
    gradientPasses: stats.gradient_passes,
    headPasses: stats.head_passes,
    runs: 0,
  };
}

/** A record without its map, which is saved apart. */
export function withoutMap(record: ExplanationRecord): Manifest {
  const targets = record.targets.map(({ map: _, ...target }) => target);
  return { ...record, targets };
}
