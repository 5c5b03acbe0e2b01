/** What the page and its worker say to each other. */
import type { Limits } from "./scoring/budget";
import type { Choice } from "./scoring/methods";
import type { CropGeometry } from "./images/preprocessing";
import type { Look, SaliencyMap } from "./images/rendering";
import type { Provider } from "./engine/session";

/** What can be asked of the worker, by name, and what it answers; `id` tells the answers apart. */
export interface Requests {
  open: { asks: { readonly address: string; readonly provider: Provider | "auto"; readonly version: string | null }; answers: Opened };
  read: { asks: { readonly file: Blob; readonly name: string }; answers: ShownImage };
  explain: { asks: Task; answers: Explained | null }; // null where it was stopped before there was a map
  overlay: { asks: Look; answers: Blob };
}

export type Request = {
  [Kind in keyof Requests]: { readonly id: number; readonly kind: Kind; readonly asks: Requests[Kind]["asks"] };
}[keyof Requests];

/** Stops the explanation that runs, if one does; it answers with what it has. */
export interface Cancel {
  readonly kind: "cancel";
}

export type FromWorker =
  | { readonly kind: "answer"; readonly id: number; readonly answer: unknown }
  | { readonly kind: "error"; readonly id: number; readonly message: string; readonly expected: boolean }
  | { readonly kind: "preview"; readonly id: number; readonly preview: Preview };

/** A bundle that is ready. */
export interface Opened {
  readonly model: string;
  readonly labels: readonly string[];
  readonly channels: number;
  readonly scorers: readonly string[];
  readonly mapSize: readonly [number, number];
  readonly cells: { readonly height: number; readonly width: number }; // of the layer
  readonly provider: Provider;
  readonly threads: number;
  readonly notes: readonly string[]; // what the reader should know of how it runs
}

/** A picture that has been read. */
export interface ShownImage {
  readonly height: number;
  readonly width: number;
  readonly geometry: CropGeometry;
  readonly display: ImageBitmap; // upright, no larger than a screen
  readonly probabilities: Float32Array; // [classes]
}

export interface Task {
  readonly choice: Choice;
  readonly target: number;
  readonly limits: Limits;
}

/** A map on its way. */
export interface Preview {
  readonly passes: number;
  readonly total: number; // passes of an exact map, or of the budget
  readonly error: number | null; // of the map, estimated; null: not known yet
  readonly map: SaliencyMap | null; // null before the first pass
}

export interface Explained {
  readonly map: SaliencyMap;
  readonly flat: boolean;
  readonly error: number | null; // 0: exact
  readonly passes: number;
  readonly total: number; // passes of an exact map
  readonly manifest: Manifest;
}

/** Everything needed to reproduce the explanation: the entries of `Explanation.summary()` in Python. */
export type Manifest = Readonly<Record<string, unknown>>;
