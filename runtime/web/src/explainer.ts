/** The way of the data: photograph, features and probabilities, masks, scores, map, manifest. */
import { type Known, Run } from "./scoring/budget";
import { type Bundle, openBundle, sha256 } from "./engine/bundle";
import { classify, type CleanPass } from "./engine/classifier";
import { OrtcamError } from "./errors";
import { decodeImage } from "./images/image";
import { prepareMasks } from "./scoring/masks";
import type { Explained, Manifest, Opened, ShownImage, Preview, Requests, Task } from "./messages";
import { allOptions, type Choice, resolvePlan } from "./scoring/methods";
import { cropGeometry, type Pixels, preprocess } from "./images/preprocessing";
import { type Look, overlay, type SaliencyMap } from "./images/rendering";
import { finish, rawMap, Scoring, type Work } from "./scoring/scoring";
import { hasGpu, loadRuntime, type Provider, reason, Sessions } from "./engine/session";

const MOST_RUNS = 3; // methods whose scores are kept
const STEP_OF_PREVIEWS = 4; // pixels
const BATCH_SIZE: Readonly<Record<Provider, number>> = { wasm: 8, webgpu: 32 };
const MILLISECONDS_BETWEEN_PREVIEWS = 200;
const DISPLAY_SIDE = 1024; // pixels

/** A picture as it is worked on. */
interface Photograph {
  readonly name: string;
  readonly sha256: string | null; // of the file
  readonly pixels: Pixels;
  readonly input: Float32Array; // [3, H, W]
  readonly clean: CleanPass;
}

/** A bundle with the picture and the map that were made last. */
export class Explainer {
  private photograph: Photograph | null = null;
  private map: SaliencyMap | null = null;
  private readonly kept = new Map<string, Run>(); // by method and its options, the last one asked for last

  private constructor(
    private readonly bundle: Bundle,
    private readonly sessions: Sessions,
    private readonly notes: readonly string[],
    private readonly version: string | null, // of ortcam
  ) {}

  /**
   * Open a bundle; what can only be seen by running its features is seen here, and not when a picture is waiting.
   *
   * @throws OrtcamError the bundle cannot be fetched or trusted
   */
  static async open({ address, provider: wanted, version }: Requests["open"]["asks"]): Promise<Explainer> {
    const bundle = await openBundle(address);
    const notes: string[] = [];
    if (bundle.sha256 === null)
      notes.push("This address is not a secure one, so the bundle's hashes were not checked.");
    if (__WEBGPU__ && (wanted === "webgpu" || (wanted === "auto" && (await hasGpu())))) {
      try {
        const sessions = new Sessions(await loadRuntime("webgpu"), bundle);
        await sessions.open(bundle.manifest.graphs.features);
        return new Explainer(bundle, sessions, notes, version);
      } catch (error) {
        notes.push(`WebGPU did not start, WebAssembly runs instead: ${reason(error)}`);
      }
    }
    const runtime = await loadRuntime("wasm");
    if (runtime.threads === 1 && !globalThis.crossOriginIsolated) {
      notes.push("One thread only: the server does not send the headers that isolate the page.");
    }
    const sessions = new Sessions(runtime, bundle);
    await sessions.open(bundle.manifest.graphs.features);
    return new Explainer(bundle, sessions, notes, version);
  }

  get opened(): Opened {
    const { manifest } = this.bundle;
    const { provider, threads } = this.sessions.runtime;
    return {
      model: manifest.model.name,
      labels: manifest.labels,
      channels: manifest.cut.channels,
      scorers: Object.keys(manifest.graphs.scorers),
      mapSize: [manifest.preprocessing.height, manifest.preprocessing.width],
      cells: { height: manifest.cut.height, width: manifest.cut.width },
      provider,
      threads,
      notes: this.notes,
    };
  }

  /**
   * Decode, preprocess and classify a picture.
   *
   * @throws OrtcamError it is no picture, too large, or the model does not run
   */
  async read(file: Blob, name: string): Promise<ShownImage> {
    const { manifest } = this.bundle;
    const pixels = await decodeImage(file, name);
    const input = preprocess(manifest.preprocessing, pixels);
    const clean = await classify(manifest, this.sessions, input);
    const digest = await sha256(new Uint8Array(await file.arrayBuffer()));
    this.photograph = { name, sha256: digest, pixels, input, clean };
    this.map = null;
    this.kept.clear();
    const { height, width } = pixels;
    return {
      height,
      width,
      geometry: cropGeometry(manifest.preprocessing, height, width),
      display: await forDisplay(pixels),
      probabilities: clean.probabilities,
    };
  }

  /**
   * Explain the picture, from what is known of it for this method on.
   *
   * @param show called with previews
   * @param stopped asked after every run of the scorer
   * @returns null where it was stopped before there was a map
   * @throws OrtcamError no picture was read, or the scorer does not run
   */
  async explain(task: Task, show: (preview: Preview) => void, stopped: () => boolean): Promise<Explained | null> {
    const started = performance.now();
    const { photograph } = this;
    if (photograph === null) throw new OrtcamError("there is no image to explain: choose one first");
    const run = await this.runOf(task.choice, photograph);
    const { scoring } = run;
    const { work } = scoring;
    const { height, width } = work;
    const total = run.limit(task.limits) * work.plan.coefficients.length;
    let known: Known | null = null;
    let shown = -Infinity;
    show({ passes: scoring.passes, total, error: null, map: null });
    for await (const step of run.explain(task.target, task.limits)) {
      if (step.whole) known = step; // where it is stopped, what is half done is not in the map
      await otherTasks();
      if (stopped()) break;
      if (performance.now() - shown < MILLISECONDS_BETWEEN_PREVIEWS) continue;
      const { data } = finish(rawMap(work, step.weights, STEP_OF_PREVIEWS), work);
      show({ passes: scoring.passes, total, error: step.error, map: { data, height, width } });
      shown = performance.now();
    }
    if (known === null && stopped()) return null;
    const weights = known?.weights ?? scoring.weights(task.target);
    const error = known?.error ?? null;
    if (work.plan.gate !== null) {
      const { data } = finish(rawMap(work, weights, STEP_OF_PREVIEWS), work); // the map itself takes a moment
      show({ passes: scoring.passes, total, error, map: { data, height, width } });
    }
    const { data, flat } = finish(rawMap(work, weights, 1), work);
    this.map = { data, height, width };
    const seconds = (performance.now() - started) / 1000;
    return {
      map: this.map,
      flat,
      error,
      passes: scoring.passes,
      total: scoring.order.length * work.plan.coefficients.length,
      manifest: this.manifest(task, photograph, { run, error, flat, seconds }),
    };
  }

  /** The run of a method on a picture: one that is there, or a new one. */
  private async runOf(choice: Choice, { input, clean }: Photograph): Promise<Run> {
    const key = JSON.stringify(choice);
    const { preprocessing, graphs, labels } = this.bundle.manifest;
    let run = this.kept.get(key);
    this.kept.delete(key);
    if (run === undefined) {
      const plan = resolvePlan(choice);
      if (!Object.hasOwn(graphs.scorers, plan.scorer)) {
        const known = Object.keys(graphs.scorers).join(", ");
        throw new OrtcamError(`${this.bundle.name}: no scorer for ${plan.scorer} in this bundle; it has ${known}`);
      }
      const scorer = await this.sessions.open(graphs.scorers[plan.scorer], "partial_maps");
      const { height, width } = preprocessing;
      const { features } = clean;
      const masks = prepareMasks(features, plan, height, width);
      const work: Work = { input, height, width, features, masks, plan, classes: labels.length };
      const { runtime } = this.sessions;
      run = new Run(new Scoring(runtime, scorer, work, BATCH_SIZE[runtime.provider]));
    }
    this.kept.set(key, run); // behind those that were asked for earlier
    for (const oldest of this.kept.keys()) {
      if (this.kept.size > MOST_RUNS) this.kept.delete(oldest);
    }
    return run;
  }

  /**
   * The photograph with the map that was made last, as PNG at the photograph's size.
   *
   * @throws OrtcamError there is no map
   */
  async overlay(look: Look): Promise<Blob> {
    const { photograph, map } = this;
    if (photograph === null || map === null) throw new OrtcamError("there is no map to lay over the image");
    const { pixels } = photograph;
    const { preprocessing, cut } = this.bundle.manifest;
    const geometry = cropGeometry(preprocessing, pixels.height, pixels.width);
    const drawn = overlay(pixels, map, geometry, { ...look, cells: cut });
    return canvasOf({ ...pixels, data: drawn }).convertToBlob({ type: "image/png" });
  }

  private manifest(
    { choice, target, limits }: Task,
    { name, sha256: digest, pixels, clean }: Photograph,
    { run, error, flat, seconds }: { run: Run; error: number | null; flat: boolean; seconds: number },
  ): Manifest {
    const { manifest, name: folder, sha256: bundleDigest } = this.bundle;
    const { runtime } = this.sessions;
    const { scoring, chosenFor } = run;
    const { scored, order, work } = scoring;
    const { energy } = work.masks;
    const sum = (channels: readonly number[]): number => channels.reduce((total, k) => total + energy[k], 0);
    return {
      method: choice.method,
      options: allOptions(choice),
      targets: [{ index: target, label: manifest.labels[target], probability: clean.probabilities[target], flat }],
      map_size: [work.height, work.width],
      photograph_size: [pixels.height, pixels.width],
      stats: {
        providers: [runtime.provider],
        threads: runtime.threads,
        precision: manifest.precision,
        batch_size: scoring.size,
        channels: work.features.count,
        live_channels: order.length,
        scored_channels: scored.length,
        chosen_for: chosenFor,
        passes: scoring.passes,
        runs: scoring.runs,
        seconds,
        energy_covered: sum(order) > 0 ? sum(scored.map((place) => order[place])) / sum(order) : 1,
        estimated_error: [error ?? 1],
      },
      limits: { ...limits, deadline: null, completion: "gaussian-process", sampling_error: null },
      image: { path: name, sha256: digest },
      probabilities: manifest.labels.map((label, index) => ({ index, label, probability: clean.probabilities[index] })),
      bundle: { name: folder, sha256: bundleDigest },
      model: manifest.model,
      cut: manifest.cut,
      activation: manifest.activation,
      preprocessing: manifest.preprocessing,
      versions: { ortcam: this.version, "onnxruntime-web": runtime.version, browser: navigator.userAgent },
    };
  }
}

function canvasOf({ data, height, width }: Pixels): OffscreenCanvas {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d")?.putImageData(new ImageData(data, width, height), 0, 0);
  return canvas;
}

/** The picture no larger than a screen. */
async function forDisplay(pixels: Pixels): Promise<ImageBitmap> {
  const scale = Math.min(DISPLAY_SIDE / Math.max(pixels.height, pixels.width), 1);
  return createImageBitmap(canvasOf(pixels), {
    resizeWidth: Math.max(Math.round(pixels.width * scale), 1),
    resizeHeight: Math.max(Math.round(pixels.height * scale), 1),
    resizeQuality: "high",
  });
}

/** Let the worker take what has been sent to it meanwhile: a cancellation. */
function otherTasks(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
