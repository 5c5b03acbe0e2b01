/** Frames of a camera, explained one after the other, each within its time. */
import { classesOf, classify, finestOf } from "./engine/classifier";
import type { Manifest } from "./engine/manifest";
import type { Sessions } from "./engine/session";
import { OrtcamError } from "./errors";
import { forDisplay } from "./images/display";
import { pictureOf } from "./images/picture";
import { cropGeometry, type Pixels } from "./images/preprocessing";
import type { Classified, MaskedRuns } from "./masked";
import type { ExplainedFrame, FrameTask } from "./messages";
import { isMasked, type MaskedChoice, type UnmaskedChoice } from "./methods/methods";
import { explainUnmasked } from "./methods/unmasked";
import type { Score } from "./request/score";
import { Scores } from "./request/scores";
import type { Known } from "./scoring/budget";
import { Memory } from "./scoring/memory";
import { finish, rawMap } from "./scoring/scoring";

/** The map of a frame, without the frame. */
type Found = Omit<ExplainedFrame, "picture" | "target">;

/** Explains the frames of a camera. Masked methods start from what the frame before has taught. */
export class Stream {
  private remembered = { key: "", memory: new Memory() }; // for one method with its options
  private readonly scores: Scores;
  private ending = 0; // milliseconds from the last run of the graph to the map, of the frame before

  constructor(
    private readonly manifest: Manifest,
    private readonly sessions: Sessions,
    private readonly runs: MaskedRuns,
  ) {
    this.scores = new Scores(manifest);
  }

  /**
   * Classify and explain a frame; a signal is seen after a run of the graph.
   *
   * @returns null where it was stopped before there was a map
   * @throws OrtcamError the model takes no such pixels, or does not run
   */
  async explain(task: FrameTask, signal: AbortSignal): Promise<ExplainedFrame | null> {
    const begun = performance.now();
    const { manifest } = this;
    const { pixels, input } = pictureOf(manifest.preprocessing, pixelsOf(task.frame), "the frame of the camera");
    const clean = await classify(manifest, this.sessions, input);
    const { probabilities } = clean;
    const likeliest = (): number => probabilities.reduce((best, value, i) => (value > probabilities[best] ? i : best), 0);
    const { choice } = task;
    const score = await this.scores.read(task);
    score.check(choice);
    const target = score.expression === null ? (task.target ?? likeliest()) : -1;
    const found = isMasked(choice)
      ? await this.masked({ ...task, choice, score, target, due: begun + task.milliseconds }, { input, clean }, signal)
      : await this.unmasked({ choice, score, target }, { input, clean }, signal);
    if (found === null) return null;
    const { height, width } = pixels;
    const geometry = cropGeometry(manifest.preprocessing, height, width);
    return { picture: { height, width, geometry, display: await forDisplay(pixels), probabilities: classesOf(manifest, probabilities) }, target, ...found };
  }

  private async unmasked(
    task: { readonly choice: UnmaskedChoice; readonly score: Score; readonly target: number },
    image: Classified,
    signal: AbortSignal,
  ): Promise<Found | null> {
    const { manifest, sessions } = this;
    const { height, width } = manifest.preprocessing;
    const steps = explainUnmasked({ ...image, ...task, manifest, sessions, kept: new Map() });
    let step = await steps.next();
    for (; step.done !== true; step = await steps.next()) {
      await otherTasks();
      if (signal.aborted) return null;
    }
    const { data, flat, layers } = step.value;
    const cells = finestOf(manifest, layers);
    return { map: { data, height, width }, flat, error: 0, passes: 0, total: 0, warm: false, cells };
  }

  private async masked(
    task: Pick<FrameTask, "limits"> & { readonly choice: MaskedChoice; readonly score: Score; readonly target: number; readonly due: number },
    image: Classified,
    signal: AbortSignal,
  ): Promise<Found | null> {
    const run = await this.runs.open(task.choice, task.score, image, this.memoryOf(task.choice, task.score));
    const target = task.score.placeOf(task.target);
    const { scoring } = run;
    const { work } = scoring;
    let known: Known | null = null;
    let before = performance.now();
    for await (const step of run.explain(target, task.limits)) {
      known = step;
      await otherTasks();
      if (signal.aborted) return null;
      const now = performance.now();
      if (2 * now - before + this.ending > task.due) break; // another run of the graph would end too late
      before = now;
    }
    const done = performance.now();
    if (scoring.scored.length > 0 && known?.error !== 0) known = run.conclude(target, task.limits);
    run.remember(target);
    const { height, width } = work;
    const { data, flat } = finish(rawMap(work, known?.weights ?? scoring.weights(target), 1), work);
    this.ending = performance.now() - done;
    const total = scoring.order.length * work.plan.coefficients.length;
    const { passes } = scoring;
    const error = known?.error ?? null;
    return { map: { data, height, width }, flat, error, passes, total, warm: run.isWarm, cells: this.manifest.cut };
  }

  /** What the frames before have taught of a method. */
  private memoryOf(choice: MaskedChoice, { key: ofScore }: Score): Memory {
    const key = JSON.stringify([choice, ofScore]);
    if (key !== this.remembered.key) this.remembered = { key, memory: new Memory() };
    return this.remembered.memory;
  }
}

/** Let the worker take what has been sent to it meanwhile: a cancellation. */
export function otherTasks(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/** The pixels of a frame, which is closed. */
function pixelsOf(frame: ImageBitmap): Pixels {
  const { width, height } = frame;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (context === null) throw new OrtcamError(`a frame of ${width} x ${height} pixels is too large for this browser`);
  context.drawImage(frame, 0, 0);
  frame.close();
  return { data: context.getImageData(0, 0, width, height).data, height, width };
}
