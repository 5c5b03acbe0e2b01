/** The way of the data: photograph, features and probabilities, masks, scores, map, manifest. */
import { type Bundle, openBundle, sha256 } from "./bundle";
import { classify, type CleanPass } from "./classifier";
import { OrtcamError } from "./errors";
import { decodeImage } from "./image";
import { prepareMasks } from "./masks";
import type { Explained, Manifest, Opened, Picture, Preview, Task } from "./messages";
import { allOptions, resolvePlan } from "./methods";
import { cropGeometry, type Pixels, preprocess } from "./preprocessing";
import { overlay, type SaliencyMap } from "./rendering";
import type { Colormap } from "./colormaps";
import { finish, rawMap, score, type Scores, type Work } from "./scoring";
import { hasGpu, loadRuntime, type Provider, reason, Sessions } from "./session";

const BATCH_SIZE: Readonly<Record<Provider, number>> = { wasm: 8, webgpu: 32 };
const MILLISECONDS_BETWEEN_PREVIEWS = 100;
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

  private constructor(
    private readonly bundle: Bundle,
    private readonly sessions: Sessions,
    private readonly notes: readonly string[],
  ) {}

  /**
   * Open a bundle; what can only be seen by running its features is seen here, and not when a picture is waiting.
   *
   * @throws OrtcamError the bundle cannot be fetched or trusted
   */
  static async open(address: string, wanted: Provider | "auto"): Promise<Explainer> {
    const bundle = await openBundle(address);
    const notes: string[] = [];
    if (bundle.sha256 === null)
      notes.push("This address is not a secure one, so the bundle's hashes were not checked.");
    if (wanted === "webgpu" || (wanted === "auto" && (await hasGpu()))) {
      try {
        const sessions = new Sessions(await loadRuntime("webgpu"), bundle);
        await sessions.open(bundle.manifest.graphs.features);
        return new Explainer(bundle, sessions, notes);
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
    return new Explainer(bundle, sessions, notes);
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
  async read(file: Blob, name: string): Promise<Picture> {
    const { manifest } = this.bundle;
    const pixels = await decodeImage(file, name);
    const input = preprocess(manifest.preprocessing, pixels);
    const clean = await classify(manifest, this.sessions, input);
    const digest = await sha256(new Uint8Array(await file.arrayBuffer()));
    this.photograph = { name, sha256: digest, pixels, input, clean };
    this.map = null;
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
   * Explain the picture.
   *
   * @param show called with previews
   * @param cancelled asked after every run of the scorer
   * @returns null where it was cancelled
   * @throws OrtcamError no picture was read, or the scorer does not run
   */
  async explain(task: Task, show: (preview: Preview) => void, cancelled: () => boolean): Promise<Explained | null> {
    const started = performance.now();
    const { photograph, bundle } = this;
    if (photograph === null) throw new OrtcamError("there is no picture to explain: choose one first");
    const { preprocessing, graphs } = bundle.manifest;
    const { height, width } = preprocessing;
    const plan = resolvePlan(task.choice);
    if (!Object.hasOwn(graphs.scorers, plan.scorer)) {
      const known = Object.keys(graphs.scorers).join(", ");
      throw new OrtcamError(`${bundle.name}: no scorer for ${plan.scorer} in this bundle; it has ${known}`);
    }
    const scorer = await this.sessions.open(graphs.scorers[plan.scorer]);
    const { features } = photograph.clean;
    const masks = prepareMasks(features, plan, height, width);
    const live = masks.order.length;
    const limit = task.budget === null ? live : Math.min(Math.ceil(task.budget * live), live);
    const work: Work = { input: photograph.input, height, width, features, masks, plan, target: task.target, limit };
    const total = limit * plan.coefficients.length;
    const { runtime } = this.sessions;
    let scores: Scores | null = null;
    let shown = -Infinity;
    show({ passes: 0, total, map: null });
    for await (scores of score(runtime, scorer, work, BATCH_SIZE[runtime.provider])) {
      await otherTasks();
      if (cancelled()) return null;
      if (performance.now() - shown < MILLISECONDS_BETWEEN_PREVIEWS) continue;
      shown = performance.now();
      const { data } = finish(rawMap(work, scores), work);
      show({ passes: scores.passes, total, map: { data, height, width } });
    }
    const { data, flat } =
      scores === null ? { data: new Float32Array(height * width), flat: true } : finish(rawMap(work, scores), work);
    this.map = { data, height, width };
    const seconds = (performance.now() - started) / 1000;
    return { map: this.map, flat, manifest: this.manifest(task, photograph, { work, scores, flat, seconds }) };
  }

  /**
   * The photograph with the map that was made last, as PNG at the photograph's size.
   *
   * @throws OrtcamError there is no map
   */
  async overlay(colormap: Colormap, alpha: number): Promise<Blob> {
    const { photograph, map } = this;
    if (photograph === null || map === null) throw new OrtcamError("there is no map to lay over the picture");
    const { pixels } = photograph;
    const geometry = cropGeometry(this.bundle.manifest.preprocessing, pixels.height, pixels.width);
    const blend = overlay(pixels, map, geometry, { colormap, alpha });
    return canvasOf({ ...pixels, data: blend }).convertToBlob({ type: "image/png" });
  }

  private manifest(
    { choice, target, budget }: Task,
    { name, sha256: digest, pixels, clean }: Photograph,
    { work, scores, flat, seconds }: { work: Work; scores: Scores | null; flat: boolean; seconds: number },
  ): Manifest {
    const { manifest, name: folder, sha256: bundleDigest } = this.bundle;
    const { runtime } = this.sessions;
    const { order, energy } = work.masks;
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
        batch_size: BATCH_SIZE[runtime.provider],
        channels: work.features.count,
        live_channels: order.length,
        scored_channels: work.limit,
        passes: scores?.passes ?? 0,
        runs: scores?.runs ?? 0,
        seconds,
        energy_covered: sum(order) > 0 ? sum(order.slice(0, work.limit)) / sum(order) : 1,
      },
      limits: { budget, deadline: null, tolerance: null, completion: "none", sampling_error: null },
      image: { path: name, sha256: digest },
      probabilities: manifest.labels.map((label, index) => ({ index, label, probability: clean.probabilities[index] })),
      bundle: { name: folder, sha256: bundleDigest },
      model: manifest.model,
      cut: manifest.cut,
      activation: manifest.activation,
      preprocessing: manifest.preprocessing,
      versions: { ortcam: __VERSION__, "onnxruntime-web": runtime.version, browser: navigator.userAgent },
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
