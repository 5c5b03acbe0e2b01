/** A model of the server of `ortcam serve`: the server decodes, classifies and explains; only what is seen is drawn here. */
import { type Bundle, bundleName, checkBundle } from "../engine/bundle";
import { finestOf } from "../engine/classifier";
import { OrtcamError } from "../errors";
import { forDisplay, overlayFile } from "../images/display";
import { readPicture } from "../images/picture";
import { cropGeometry, type Pixels } from "../images/preprocessing";
import type { Look, SaliencyMap } from "../images/rendering";
import type { Access, Engine, Explained, Opened, Preview, ShownImage, Task } from "../messages";
import { isMasked, weighsByGradient } from "../methods/methods";
import { chosenLayers } from "../methods/unmasked";
import { offered } from "../offered";
import { eventsOf, type ServerEvent } from "./events";
import { Server } from "./http";
import {
  costOf,
  errorOf,
  type ExplanationRecord,
  mapOf,
  notesOf,
  parametersOf,
  passesOfExact,
  previewOf,
  valueOf,
  withoutMap,
} from "./records";

const OF_A_FILE = "application/octet-stream"; // the server sees for itself what kind of image it is

/** A picture as it is worked on. */
interface Photograph {
  readonly file: Blob;
  readonly name: string;
  readonly pixels: Pixels;
}

/** A model with the picture and the map that were made last. */
export class ServedModel implements Engine {
  private photograph: Photograph | null = null;
  private map: SaliencyMap | null = null;
  private cells: { readonly height: number; readonly width: number } = { height: 1, width: 1 }; // of its finest layer

  private constructor(
    private readonly bundle: Bundle,
    private readonly server: Server,
    private readonly access: Access,
  ) {}

  /**
   * Ask the server for the manifest of a model.
   *
   * @param address where the page has the model: a folder with the manifest, named as the server names the model
   * @throws OrtcamError the server refuses or does not answer, or the page cannot read the manifest
   */
  static async open(address: string, access: Access): Promise<ServedModel> {
    const server = new Server(access.address, access.token);
    const answer = await server.ask(`${address}bundle.json`);
    const bundle = await checkBundle(address, new Uint8Array(await answer.arrayBuffer()));
    // The server tags the manifest by what its explanations say of their bundle.
    const sha256 = /[0-9a-f]{64}/.exec(answer.headers.get("ETag") ?? "")?.[0] ?? null;
    return new ServedModel({ ...bundle, sha256 }, server, access);
  }

  get opened(): Opened {
    const { manifest } = this.bundle;
    return {
      ...offered(manifest),
      takesCamera: false, // frames stay on the machine of the camera
      provider: null,
      runs: this.access.runs,
      mostSamples: this.access.limits.samples,
      notes: [],
    };
  }

  async read(file: Blob, name: string): Promise<ShownImage> {
    const { limits } = this.access;
    checkSize(`${name} has ${file.size} bytes`, file.size, limits.body_bytes);
    const { pixels } = await readPicture(this.bundle.manifest.preprocessing, file, name);
    const { height, width } = pixels;
    checkSize(`${name} has ${width} x ${height} = ${width * height} pixels`, width * height, limits.pixels);
    const hasClasses = this.bundle.manifest.labels.length > 0; // else there may be millions of values, which nobody reads
    const answer = await this.ask("predict", file, new URLSearchParams(hasClasses ? { probabilities: "true" } : {}));
    const { predictions } = (await answer.json()) as { predictions: [{ probabilities?: number[]; values?: number[] }] };
    const { manifest } = this.bundle;
    const values = Float32Array.from(predictions[0].probabilities ?? predictions[0].values ?? []);
    this.checkModel(values.length === manifest.labels.length);
    this.photograph = { file, name, pixels };
    this.map = null;
    return {
      height,
      width,
      geometry: cropGeometry(manifest.preprocessing, height, width),
      display: await forDisplay(pixels),
      probabilities: values,
    };
  }

  async explain(task: Task, show: (preview: Preview) => void, signal: AbortSignal): Promise<Explained | null> {
    const { photograph } = this;
    if (photograph === null) throw new OrtcamError("there is no image to explain: choose one first");
    const { choice, limits } = task;
    const { channels } = this.bundle.manifest.cut;
    const parameters = parametersOf(task, { channels, passes: this.access.limits.passes });
    let last: ExplanationRecord | null = null;
    try {
      for await (const record of this.records(photograph.file, parameters, isMasked(choice), signal)) {
        this.checkModel(this.bundle.sha256 === null || this.bundle.sha256 === record.bundle.sha256);
        if (isMasked(choice)) show(previewOf(record, choice, limits));
        last = record;
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    if (last === null) return null;
    const { manifest } = this.bundle;
    const layers = weighsByGradient(choice) ? chosenLayers(choice, manifest) : [0];
    this.map = mapOf(last);
    this.cells = finestOf(manifest, layers);
    return {
      map: this.map,
      value: valueOf(last),
      flat: last.targets[0].flat,
      error: errorOf(last),
      passes: last.stats.passes,
      total: passesOfExact(choice, last),
      cells: this.cells,
      cost: isMasked(choice) ? null : costOf(last),
      seconds: last.stats.seconds,
      notes: notesOf(last, this.access.limits.seconds),
      manifest: { ...withoutMap(last), chosen: task.chosen, image: { path: photograph.name } },
    };
  }

  async explainFrame(): Promise<never> {
    throw new OrtcamError("frames of a camera are never sent to a server: `ortcam web` explains them in the browser");
  }

  async overlay(look: Look): Promise<Blob> {
    const { photograph, map } = this;
    if (photograph === null || map === null) throw new OrtcamError("there is no map to lay over the image");
    return overlayFile(photograph.pixels, map, this.bundle.manifest.preprocessing, { ...look, cells: this.cells });
  }

  /** The maps of the picture, the result last. A server that is left alone with a request stops it. */
  private async *records(
    file: Blob,
    parameters: URLSearchParams,
    streamed: boolean,
    signal: AbortSignal,
  ): AsyncGenerator<ExplanationRecord, void, void> {
    const accept = streamed ? "text/event-stream" : "application/json";
    const answer = await this.ask("explain", file, parameters, { headers: { Accept: accept }, signal });
    if (!streamed || answer.body === null) {
      yield firstOf(await answer.json());
      return;
    }
    let end: ServerEvent | null = null;
    for await (const event of eventsOf(answer.body)) {
      if (event.name === "map") yield JSON.parse(event.data) as ExplanationRecord;
      if (event.name === "result" || event.name === "error") end = event; // and read on: the answer is not cut off
    }
    if (end === null) throw new OrtcamError("The server ended its answer before there was a result. It may have been stopped.");
    if (end.name === "error") throw new OrtcamError((JSON.parse(end.data) as { error: string }).error);
    yield firstOf(JSON.parse(end.data));
  }

  private ask(verb: string, file: Blob, parameters: URLSearchParams, init: RequestInit = {}): Promise<Response> {
    const headers = { "Content-Type": OF_A_FILE, ...(init.headers as Record<string, string> | undefined) };
    const name = encodeURIComponent(bundleName(this.bundle.address));
    return this.server.ask(`v1/models/${name}:${verb}?${parameters}`, { ...init, method: "POST", body: file, headers });
  }

  private checkModel(same: boolean): void {
    if (!same) throw new OrtcamError("The server has another version of this model by now. Reload the page.");
  }
}

function checkSize(found: string, size: number, limit: number): void {
  if (size > limit) throw new OrtcamError(`${found}, and this server takes at most ${limit}; make it smaller.`);
}

function firstOf(body: unknown): ExplanationRecord {
  return (body as { readonly explanations: readonly [ExplanationRecord] }).explanations[0];
}
