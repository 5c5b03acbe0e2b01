/** The run of a masked method on an image: its scorer, its masks, and what is known of their scores. */
import type { Bundle } from "./engine/bundle";
import { type CleanPass, classify } from "./engine/classifier";
import type { Manifest } from "./engine/manifest";
import type { Provider, Sessions } from "./engine/session";
import { OrtcamError } from "./errors";
import { type MaskedChoice, resolvePlan } from "./methods/methods";
import type { Score } from "./request/score";
import { Run } from "./scoring/budget";
import type { Memory } from "./scoring/memory";
import { prepareMasks } from "./scoring/masks";
import { Scoring, type Work } from "./scoring/scoring";

const BATCH_SIZE: Readonly<Record<Provider, number>> = { wasm: 8, webgpu: 32 };

/** A preprocessed image, and what the model makes of it as it is. */
export interface Classified {
  readonly input: Float32Array; // [channels, H, W]
  readonly clean: CleanPass;
}

/** Runs of masked methods, with what they share. */
export class MaskedRuns {
  private blank: Float32Array | null = null; // [outputs], what `blankLogits` found

  constructor(
    private readonly bundle: Bundle,
    private readonly sessions: Sessions,
  ) {}

  /**
   * A run of which nothing is scored yet.
   *
   * @param memory of the frames before, where the image is a camera's
   * @throws OrtcamError the bundle has no scorer for the method
   */
  async open(choice: MaskedChoice, score: Score, { input, clean }: Classified, memory: Memory | null = null): Promise<Run> {
    const { manifest, name } = this.bundle;
    const { preprocessing, graphs } = manifest;
    const plan = resolvePlan(choice);
    if (!Object.hasOwn(graphs.scorers, plan.scorer)) {
      const known = Object.keys(graphs.scorers).join(", ");
      throw new OrtcamError(`${name}: no scorer for ${plan.scorer} in this bundle; it has ${known}`);
    }
    const scorer = await this.sessions.open(graphs.scorers[plan.scorer], "partial_maps");
    const { height, width } = preprocessing;
    const [features] = clean.maps;
    const masks = prepareMasks(features, plan, height, width);
    const work: Work = {
      ...{ input, height, width, features, masks, plan },
      columns: score.columns(),
      offset: score.hasZero ? null : Float32Array.from(score.read(await this.blankLogits(manifest))),
    };
    const { runtime } = this.sessions;
    return new Run(new Scoring(runtime, scorer, work, BATCH_SIZE[runtime.provider]), memory);
  }

  /** What the model gives for an image that is all hidden: a value has no zero of its own. */
  private async blankLogits(manifest: Manifest): Promise<Float32Array> {
    const { height, width, mean } = manifest.preprocessing;
    this.blank ??= (await classify(manifest, this.sessions, new Float32Array(mean.length * height * width))).logits;
    return this.blank;
  }
}
