/** The way of the data: photograph, features and probabilities, masks, scores, map, manifest. */
import { type Known, Run } from "./scoring/budget";
import { type Bundle, openBundle, sha256 } from "./engine/bundle";
import { classesOf, classify, type CleanPass, cutsOf, finestOf } from "./engine/classifier";
import { layerName } from "./engine/cut";
import { openDerivative } from "./engine/derivative";
import { OrtcamError } from "./errors";
import { MaskedRuns } from "./masked";
import type {
  Engine,
  Explained,
  ExplainedFrame,
  FrameTask,
  Manifest,
  Opened,
  Preview,
  ShownImage,
  Task,
  Wanted,
} from "./messages";
import { chooseMethod } from "./methods/auto";
import { allOptions, type Choice, isMasked, type MaskedChoice, weighsByGradient } from "./methods/methods";
import { chosenLayers, explainUnmasked, type Found, type Scene } from "./methods/unmasked";
import { forDisplay, overlayFile } from "./images/display";
import { fitsCamera, readPicture } from "./images/picture";
import { cropGeometry, type Pixels } from "./images/preprocessing";
import type { Look, SaliencyMap } from "./images/rendering";
import type { Score } from "./request/score";
import { Scores } from "./request/scores";
import type { Maps } from "./scoring/upsampling";
import { finish, rawMap } from "./scoring/scoring";
import { offered } from "./offered";
import { otherTasks, Stream } from "./stream";
import { hasGpu, loadRuntime, reason, Sessions } from "./engine/session";

const MOST_RUNS = 3; // methods whose scores are kept
const MOST_SAMPLES = 100; // of a method that draws some
const STEP_OF_PREVIEWS = 4; // pixels
const MILLISECONDS_BETWEEN_PREVIEWS = 200;

/** A picture as it is worked on. */
interface Photograph {
  readonly name: string;
  readonly sha256: string | null; // of the file
  readonly pixels: Pixels; // as it is shown
  readonly input: Float32Array; // [channels, H, W]
  readonly clean: CleanPass;
  readonly kept: Scene["kept"];
}

/** A bundle with the picture and the map that were made last. */
export class Explainer implements Engine {
  private photograph: Photograph | null = null;
  private map: SaliencyMap | null = null;
  private cells: { readonly height: number; readonly width: number } = { height: 1, width: 1 }; // of its finest layer
  private readonly kept = new Map<string, Run>(); // by method and its options, the last one asked for last
  private readonly runs: MaskedRuns;
  private readonly scores: Scores;
  private readonly stream: Stream;

  private constructor(
    private readonly bundle: Bundle,
    private readonly sessions: Sessions,
    private readonly notes: readonly string[],
    private readonly version: string | null, // of ortcam
  ) {
    this.runs = new MaskedRuns(bundle, sessions);
    this.scores = new Scores(bundle.manifest);
    this.stream = new Stream(bundle.manifest, sessions, this.runs);
  }

  /**
   * Open a bundle; what can only be seen by running its features is seen here, and not when a picture is waiting.
   *
   * @throws OrtcamError the bundle cannot be fetched or trusted
   */
  static async open({ address, provider: wanted, version }: Wanted): Promise<Explainer> {
    const bundle = await openBundle(address);
    const { static_batch: rows } = bundle.manifest.graphs;
    if (rows !== null) {
      throw new OrtcamError(
        `this bundle's graphs are fixed at ${rows} rows per run, and the page runs other sizes, too: export it without --static-batch`,
      );
    }
    const notes: string[] = [];
    if (bundle.sha256 === null)
      notes.push("This address is not a secure one, so the bundle's hashes were not checked.");
    if (__WEBGPU__ && (wanted === "webgpu" || (wanted === "auto" && (await hasGpu())))) {
      try {
        const sessions = new Sessions(await loadRuntime("webgpu"), bundle);
        await sessions.open(bundle.manifest.graphs.features);
        await openQuickGraphs(bundle, sessions);
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
    await openQuickGraphs(bundle, sessions);
    return new Explainer(bundle, sessions, notes, version);
  }

  get opened(): Opened {
    const { manifest } = this.bundle;
    const { provider, threads } = this.sessions.runtime;
    return {
      ...offered(manifest),
      takesCamera: fitsCamera(manifest.preprocessing),
      provider,
      runs: provider === "webgpu" ? "as WebGPU" : `as WebAssembly in ${threads} ${threads === 1 ? "thread" : "threads"}`,
      mostSamples: MOST_SAMPLES,
      notes: this.notes,
    };
  }

  async read(file: Blob, name: string): Promise<ShownImage> {
    const { manifest } = this.bundle;
    const { pixels, input } = await readPicture(manifest.preprocessing, file, name);
    const clean = await classify(manifest, this.sessions, input);
    const digest = await sha256(new Uint8Array(await file.arrayBuffer()));
    this.photograph = { name, sha256: digest, pixels, input, clean, kept: new Map() };
    this.map = null;
    this.kept.clear();
    const { height, width } = pixels;
    return {
      height,
      width,
      geometry: cropGeometry(manifest.preprocessing, height, width),
      display: await forDisplay(pixels),
      probabilities: classesOf(manifest, clean.probabilities),
    };
  }

  /** Explain the picture, from what is known of it for this method on; a signal is seen after a run of the scorer. */
  async explain(task: Task, show: (preview: Preview) => void, signal: AbortSignal): Promise<Explained | null> {
    const started = performance.now();
    const { photograph } = this;
    if (photograph === null) throw new OrtcamError("there is no image to explain: choose one first");
    const { choice } = task;
    const asked = await this.scores.read(task);
    asked.check(choice);
    if (!isMasked(choice)) return this.explainUnmasked({ ...task, choice }, asked, photograph, show, signal);
    const run = await this.runOf(choice, asked, photograph);
    const target = asked.placeOf(task.target);
    const { scoring } = run;
    const { work } = scoring;
    const { height, width } = work;
    const total = run.limit(task.limits) * work.plan.coefficients.length;
    let known: Known | null = null;
    let shown = -Infinity;
    show({ passes: scoring.passes, total, error: null, map: null });
    for await (const step of run.explain(target, task.limits)) {
      if (step.whole) known = step; // where it is stopped, what is half done is not in the map
      await otherTasks();
      if (signal.aborted) break;
      if (performance.now() - shown < MILLISECONDS_BETWEEN_PREVIEWS) continue;
      const { data } = finish(rawMap(work, step.weights, STEP_OF_PREVIEWS), work);
      show({ passes: scoring.passes, total, error: step.error, map: { data, height, width } });
      shown = performance.now();
    }
    if (known === null && signal.aborted) return null;
    const weights = known?.weights ?? scoring.weights(target);
    const error = known?.error ?? null;
    if (work.plan.gate !== null) {
      const { data } = finish(rawMap(work, weights, STEP_OF_PREVIEWS), work); // the map itself takes a moment
      show({ passes: scoring.passes, total, error, map: { data, height, width } });
    }
    const { data, flat } = finish(rawMap(work, weights, 1), work);
    this.map = { data, height, width };
    this.cells = this.bundle.manifest.cut;
    const seconds = (performance.now() - started) / 1000;
    return {
      map: this.map,
      value: valueOf(asked, photograph.clean),
      flat,
      error,
      passes: scoring.passes,
      total: scoring.order.length * work.plan.coefficients.length,
      cells: this.bundle.manifest.cut,
      cost: null,
      seconds,
      notes: [],
      manifest: this.manifest(task, asked, photograph, flat, [0], this.statsOfRun(run, asked, error, seconds)),
    };
  }

  explainFrame(task: FrameTask, signal: AbortSignal): Promise<ExplainedFrame | null> {
    return this.stream.explain(task, signal);
  }

  /** By a method that masks no image: gradients of the head, or what the head says of altered features. */
  private async explainUnmasked(
    task: Task & { readonly choice: Scene["choice"] },
    score: Score,
    photograph: Photograph,
    show: (preview: Preview) => void,
    signal: AbortSignal,
  ): Promise<Explained | null> {
    const started = performance.now();
    const { bundle, sessions } = this;
    const { manifest } = bundle;
    const { height, width } = manifest.preprocessing;
    const scene: Scene = { ...photograph, choice: task.choice, manifest, sessions, score, target: task.target };
    const steps = explainUnmasked(scene);
    let step = await steps.next();
    for (; step.done !== true; step = await steps.next()) {
      await otherTasks();
      if (signal.aborted) return null;
      show({ passes: step.value.done, total: step.value.total, error: null, map: null });
    }
    const { data, flat, cost, layers } = step.value;
    this.map = { data, height, width };
    this.cells = finestOf(manifest, layers);
    const seconds = (performance.now() - started) / 1000;
    const stats = this.statsOfUnmasked(step.value, photograph.clean, seconds);
    return {
      value: valueOf(score, photograph.clean),
      ...{ map: this.map, flat, error: 0, passes: 0, total: 0, cells: this.cells, cost, seconds, notes: [] },
      manifest: this.manifest(task, score, photograph, flat, layers, stats),
    };
  }

  /** The run of a method on a picture: one that is there, or a new one. */
  private async runOf(choice: MaskedChoice, score: Score, photograph: Photograph): Promise<Run> {
    const key = JSON.stringify([choice, score.key]);
    const run = this.kept.get(key) ?? (await this.runs.open(choice, score, photograph));
    this.kept.delete(key);
    this.kept.set(key, run); // behind those that were asked for earlier
    for (const oldest of this.kept.keys()) {
      if (this.kept.size > MOST_RUNS) this.kept.delete(oldest);
    }
    return run;
  }

  async overlay(look: Look): Promise<Blob> {
    const { photograph, map } = this;
    if (photograph === null || map === null) throw new OrtcamError("there is no map to lay over the image");
    return overlayFile(photograph.pixels, map, this.bundle.manifest.preprocessing, { ...look, cells: this.cells });
  }

  private statsOfRun({ scoring, chosenFor }: Run, { expression }: Score, error: number | null, seconds: number): Manifest {
    const { scored, order, work } = scoring;
    const { energy } = work.masks;
    const sum = (channels: readonly number[]): number => channels.reduce((total, k) => total + energy[k], 0);
    return {
      ...this.engineStats(),
      batch_size: scoring.size,
      channels: work.features.count,
      live_channels: order.length,
      scored_channels: scored.length,
      chosen_for: expression === null ? chosenFor : [-1],
      passes: scoring.passes,
      runs: scoring.runs,
      seconds,
      energy_covered: sum(order) > 0 ? sum(scored.map((place) => order[place])) / sum(order) : 1,
      estimated_error: [error ?? 1],
    };
  }

  private statsOfUnmasked({ cost, layers }: Found, { maps }: CleanPass, seconds: number): Manifest {
    const active = layers.reduce((total, layer) => total + activeChannels(maps[layer]), 0);
    return {
      ...this.engineStats(),
      batch_size: 1,
      channels: layers.reduce((total, layer) => total + maps[layer].count, 0),
      live_channels: active,
      scored_channels: active,
      passes: 0,
      runs: cost.runs,
      seconds,
      head_passes: cost.headPasses,
      gradient_passes: cost.gradientPasses,
      forward_passes: cost.forwardPasses,
    };
  }

  private engineStats(): Manifest {
    const { provider, threads } = this.sessions.runtime;
    return { providers: [provider], threads, precision: this.bundle.manifest.precision };
  }

  private manifest(
    { choice, chosen, target, limits }: Task,
    score: Score,
    { name, sha256: digest, pixels, clean }: Photograph,
    flat: boolean,
    layers: readonly number[],
    stats: Manifest,
  ): Manifest {
    const { manifest, name: folder, sha256: bundleDigest } = this.bundle;
    const { height, width } = manifest.preprocessing;
    return {
      method: choice.method,
      chosen,
      options: optionsOf(choice, score),
      ...(byOption(choice, score) ? {} : { score: score.text }),
      ...(Object.keys(score.arrays).length > 0 ? { score_arrays: score.arrays } : {}),
      targets: [{ ...subjectOf(score, target, manifest.labels, clean), flat }],
      ...(score.isProbability ? {} : { are_probabilities: false }),
      map_size: [height, width],
      photograph_size: [pixels.height, pixels.width],
      stats,
      limits: isMasked(choice)
        ? { ...limits, deadline: null, completion: "gaussian-process", sampling_error: null }
        : null,
      image: { path: name, sha256: digest },
      probabilities: manifest.labels.map((label, index) => ({ index, label, probability: clean.probabilities[index] })),
      bundle: { name: folder, sha256: bundleDigest },
      model: manifest.model,
      cut: finestOf(manifest, layers),
      layers: layers.map((place) => layerName(cutsOf(manifest)[place])),
      activation: manifest.activation,
      preprocessing: manifest.preprocessing,
      versions: {
        ortcam: this.version,
        "onnxruntime-web": this.sessions.runtime.version,
        browser: navigator.userAgent,
      },
    };
  }
}

/** Whether an option of the method says what is explained, or nothing does. */
function byOption({ method }: Choice, { text, expression }: Score): boolean {
  return text === null || (method === "recipro-cam" && expression === null);
}

/** The options of a method, with the score of a class that it takes. */
function optionsOf(choice: Choice, score: Score): Manifest {
  const { score: own, ...others } = allOptions(choice, score.hasZero);
  return own === undefined || score.expression !== null ? others : { ...others, score: score.word ?? own };
}

/** What is explained, with its value for the image: a class, or a score in its place. */
function subjectOf(score: Score, target: number, labels: readonly string[], { logits, probabilities }: CleanPass): Manifest {
  if (score.expression === null) return { index: target, label: labels[target], probability: probabilities[target] };
  return { index: -1, label: score.text, probability: Math.fround(score.expression.value(logits)) };
}

function valueOf({ text, expression }: Score, { logits }: CleanPass): Explained["value"] {
  return text === null || expression === null ? null : { of: text, is: expression.value(logits) };
}

/** Open what the first map needs where gradients give it; what fails here fails again where it is needed, and says so. */
async function openQuickGraphs({ manifest }: Bundle, sessions: Sessions): Promise<void> {
  const { choice } = chooseMethod(manifest);
  try {
    await sessions.open(manifest.graphs.head ?? manifest.graphs.classifier ?? "");
    if (weighsByGradient(choice)) await openDerivative(manifest, sessions, chosenLayers(choice, manifest));
  } catch {
    return;
  }
}

/** How many channels are not zero everywhere. */
function activeChannels({ data, count, height, width }: Maps): number {
  const size = height * width;
  const channels = Array.from({ length: count }, (_, k) => data.subarray(k * size, (k + 1) * size));
  return channels.filter((map) => map.some((value) => value !== 0)).length;
}
