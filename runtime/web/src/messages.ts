/** What the page and its worker say to each other. */
import type { Limits } from "./scoring/budget";
import type { Automatic } from "./methods/auto";
import type { Choice } from "./methods/methods";
import type { Cost } from "./methods/unmasked";
import type { AskedScore } from "./request/scores";
import type { CropGeometry } from "./images/preprocessing";
import type { Look, SaliencyMap } from "./images/rendering";
import type { Provider } from "./engine/session";

/** What can be asked of the worker, by name, and what it answers; `id` tells the answers apart. */
export interface Requests {
  open: { asks: Wanted; answers: Opened };
  read: { asks: { readonly file: Blob; readonly name: string }; answers: ShownImage };
  explain: { asks: Task; answers: Explained | null }; // null where it was stopped before there was a map
  frame: { asks: FrameTask; answers: ExplainedFrame | null }; // null where it was stopped before there was a map
  overlay: { asks: Look; answers: Blob };
}

/** What explains: a bundle in this browser, or the server that has opened it. */
export interface Engine {
  readonly opened: Opened;

  /**
   * Decode and classify a picture.
   *
   * @throws OrtcamError it is no picture, too large, or the model does not run
   */
  read(file: Blob, name: string): Promise<ShownImage>;

  /**
   * Explain the picture that was read last.
   *
   * @param show called with previews
   * @param signal stops it
   * @returns null where it was stopped before there was a map
   * @throws OrtcamError no picture was read, or the model does not run
   */
  explain(task: Task, show: (preview: Preview) => void, signal: AbortSignal): Promise<Explained | null>;

  /**
   * Classify and explain a frame of a camera.
   *
   * @param signal stops it
   * @returns null where it was stopped before there was a map
   * @throws OrtcamError the model runs elsewhere, takes no such pixels, or does not run
   */
  explainFrame(task: FrameTask, signal: AbortSignal): Promise<ExplainedFrame | null>;

  /**
   * The picture with the map that was made last, as PNG at the picture's size.
   *
   * @throws OrtcamError there is no map
   */
  overlay(look: Look): Promise<Blob>;
}

/** A bundle to open. */
export interface Wanted {
  readonly address: string; // of its folder, with a slash at its end
  readonly provider: Provider | "auto";
  readonly version: string | null; // of ortcam
  readonly server: Access | null; // that explains; null: this browser does
}

/** How the server of `ortcam serve` is asked. */
export interface Access {
  readonly address: string; // of its root, with a slash at its end
  readonly token: string | null;
  readonly limits: ServerLimits;
  readonly runs: string; // how it runs the bundle, as part of a sentence
}

/** What a server takes of one request, those limits that the page sees to. */
export interface ServerLimits {
  readonly body_bytes: number;
  readonly pixels: number;
  readonly samples: number;
  readonly passes: number; // masked forward passes
  readonly seconds: number; // then its best map is the answer
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
  | { readonly kind: "error"; readonly id: number; readonly message: string; readonly sort: "expected" | "token" | "unforeseen" }
  | { readonly kind: "preview"; readonly id: number; readonly preview: Preview };

/** A bundle that is ready. */
export interface Opened {
  readonly model: string;
  readonly labels: readonly string[]; // none where the outputs are tensors
  readonly outputs: string; // what it gives for an image, where it has no classes
  readonly score: string; // an example
  readonly areProbabilities: boolean; // what the outputs are; else they are values
  readonly takesCamera: boolean; // whether frames of a camera can be explained, and here
  readonly takesArrays: boolean; // whether images come at a depth of their own, as `.npy` files
  readonly channels: number;
  readonly scorers: readonly string[];
  readonly layers: readonly string[]; // by name, that of the head first
  readonly noGradient: string | null; // why no method can take gradients; null where they can
  readonly hasAttention: boolean; // in the head, over the tokens of the layer
  readonly hasHead: boolean;
  readonly auto: Automatic;
  readonly mapSize: readonly [number, number];
  readonly cells: { readonly height: number; readonly width: number }; // of the layer
  readonly provider: Provider | null; // null: not in this browser
  readonly runs: string; // where and how, as part of a sentence
  readonly mostSamples: number; // of a method that draws some
  readonly notes: readonly string[]; // what the reader should know of how it runs
}

/** A picture that has been read. */
export interface ShownImage {
  readonly height: number;
  readonly width: number;
  readonly geometry: CropGeometry;
  readonly display: ImageBitmap; // upright, no larger than a screen
  readonly probabilities: Float32Array; // [classes], or the values that the model gives; none of tensors
}

export interface Task extends AskedScore {
  readonly choice: Choice;
  readonly chosen: string | null; // which and why, where the method was chosen for the reader
  readonly target: number; // which an expression does not look at
  readonly limits: Limits;
}

/** A frame of a camera, and what is wanted of it. */
export interface FrameTask extends AskedScore {
  readonly frame: ImageBitmap; // of which nothing is left afterwards
  readonly choice: Choice;
  readonly target: number | null; // null: the likeliest class
  readonly limits: Limits;
  readonly milliseconds: number; // after which the best map of a masked method is the answer
}

export interface ExplainedFrame {
  readonly picture: ShownImage;
  readonly target: number; // -1: an expression
  readonly map: SaliencyMap;
  readonly flat: boolean;
  readonly error: number | null; // 0: exact
  readonly passes: number; // with masks
  readonly total: number; // the same of an exact map
  readonly warm: boolean; // whether the frame before said which channels matter
  readonly cells: { readonly height: number; readonly width: number }; // of the finest layer that it is of
}

/** A map on its way. */
export interface Preview {
  readonly passes: number;
  readonly total: number; // passes of an exact map, or of the budget
  readonly error: number | null; // of the map, estimated; null: not known yet
  readonly map: SaliencyMap | null; // null before the first pass
}

export interface Explained {
  readonly value: { readonly of: string; readonly is: number } | null; // of a score, for the image as it is
  readonly map: SaliencyMap;
  readonly flat: boolean;
  readonly error: number | null; // 0: exact
  readonly passes: number;
  readonly total: number; // passes of an exact map
  readonly cells: { readonly height: number; readonly width: number }; // of the finest layer that it is of
  readonly cost: Cost | null; // of a method that masks no image
  readonly seconds: number;
  readonly notes: readonly string[]; // what the reader should know of this map
  readonly manifest: Manifest;
}

/** Everything needed to reproduce the explanation: the entries of `Explanation.summary()` in Python. */
export type Manifest = Readonly<Record<string, unknown>>;
