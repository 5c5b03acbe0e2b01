/**
 * Which channels to score, in what order, and when to stop: a budget or a tolerance, as `ortcam/scoring/budget.py` has them.
 *
 * A run belongs to one image and one method. It keeps the scores of all classes, so that another class has its map at
 * once, and scores on from there where that map is not known well enough yet.
 */
import { deviationOf, FIRST_CHANGE, MaskModel, type Prediction } from "./gaussian_process";
import type { Memory, Seen } from "./memory";
import { gatedMasks, type Scoring, summandsOf } from "./scoring";
import type { Before } from "./recalled";
import type { Maps } from "./upsampling";

// The channels scored before the process is asked for the first time: a share of a budget, or of all live channels.
const [FIRST_OF_BUDGET, FIRST_OF_ALL] = [0.4, 0.04];
const FEWEST = 16;
// How many times as many as in the first round are scored before the error is known; the same of a frame after another.
const [TELLING, TELLING_OF_FRAMES] = [2, 1.5];
// A budget for more of the channels than this leaves out those of the least energy.
const MOST = 0.875;
// How many times as many channels are scored before the process is asked again.
const GROWTH = 1.5;
// Steps per doubling in which it is counted how much a channel is wanted.
const STEPS = 1024;
// Variance of y, whatever it is: channels that were scored are told apart by their weights alone.
const SAME = 1e-4;
const TINIEST = 2 ** -1022; // the smallest normal float64

/** When a run may stop before all channels are scored; null is no limit. */
export interface Limits {
  readonly budget: number | null; // share of the live channels in (0, 1]
  readonly tolerance: number | null; // largest error of the finished map that is estimated, in (0, 1)
}

/** The weights of a class as far as they are known. */
export interface Known {
  readonly weights: Float64Array; // [L], by place
  readonly error: number | null; // of the finished map, estimated: 0 is exact, null not known yet
  readonly whole: boolean; // false where some channels lack some of their samples
}

/** The channels of an image that are scored for a method, and the Gaussian process over them. */
export class Run {
  private readonly model: () => MaskModel;
  private readonly summands: () => Maps;
  private readonly sizes: () => Float64Array;
  private readonly energy: Float64Array; // [L]
  private before: Before | null = null;
  private brightest: readonly number[]; // the places in the order in which the first are scored
  private prediction: Prediction | null = null;
  /** The classes for which channels were chosen. */
  readonly chosenFor: number[] = [];

  /** @param memory of the frames of a camera before this one; null: the image stands alone */
  constructor(
    readonly scoring: Scoring,
    private readonly memory: Memory | null = null,
  ) {
    const { work, order } = scoring;
    this.model = once(() => new MaskModel(gatedMasks(work), work.offset !== null));
    this.summands = once(() => summandsOf(work));
    this.sizes = once(() => deviations(this.summands()));
    this.energy = Float64Array.from(order, (channel) => work.masks.energy[channel]);
    this.brightest = [...order.keys()];
  }

  /** Whether the frames before say which channels matter. */
  get isWarm(): boolean {
    return this.before !== null;
  }

  /** How many channels a budget pays for. */
  limit({ budget }: Limits): number {
    const live = this.scoring.order.length;
    return budget === null ? live : Math.min(Math.ceil(budget * live), live);
  }

  /**
   * Score channels for a class until the limits or the channels are reached.
   *
   * Yields what is known at first where that is anything, and after every run of the graph; the last is the result.
   */
  async *explain(target: number, limits: Limits): AsyncGenerator<Known, void, void> {
    const { scoring } = this;
    const limit = this.limit(limits);
    this.lookBack(target);
    const first = this.first(limits, limit);
    let known: Known = { weights: scoring.weights(target), error: null, whole: true };
    const whole = scoring.work.plan.coefficients.length === 1; // after any run
    let prediction: Prediction | null = null;
    const ask = (): void => {
      known = this.ask(target, first);
      prediction = this.prediction;
    };
    if (scoring.scored.length > 0 || scoring.complete) {
      ask();
      yield known;
    }
    while (scoring.scored.length < limit && !met(known, limits)) {
      const group = this.next(prediction, this.round(scoring.scored.length, first, limit));
      if (!this.chosenFor.includes(target)) this.chosenFor.push(target);
      for await (const _ of scoring.run(group)) {
        const weights = overlaid(known.weights, group, scoring, target);
        yield { weights, error: known.error, whole };
      }
      ask();
      yield known;
    }
  }

  /** What is known of a class now, the weights that were not scored as the process predicts them. */
  conclude(target: number, limits: Limits): Known {
    return this.ask(target, this.first(limits, this.limit(limits)));
  }

  /** Keep what is known of a class for the next frame. */
  remember(target: number): void {
    const { memory, prediction, scoring } = this;
    if (memory === null) return;
    const { scored } = scoring;
    if (scoring.order.length > 0 && scoring.complete) {
      const y = this.model().modelled(scored, scoring.weights(target));
      const change = this.before?.change ?? FIRST_CHANGE * variance(y);
      const known = { y, age: new Float64Array(y.length), open: new Float64Array(y.length), change };
      memory.keep(target, scoring.work.features.count, this.seen(), known);
    } else if (prediction !== null && prediction.scored === scored.length) {
      memory.keep(target, scoring.work.features.count, this.seen(), prediction.known);
    } else {
      memory.skip();
    }
  }

  private ask(target: number, first: number): Known {
    const { scoring } = this;
    if (scoring.complete) return { weights: scoring.weights(target), error: 0, whole: true };
    this.prediction = this.model().condition(scoring.scored, scoring.weights(target), this.before, this.prediction?.recalls);
    return { weights: this.prediction.weights, error: this.error(this.prediction, first), whole: true };
  }

  /** What the frames before say of a class, and in which order the first channels are scored. */
  private lookBack(target: number): void {
    const { memory, scoring } = this;
    if (memory === null || memory.empty || scoring.order.length === 0) return;
    this.before = memory.before(target, this.seen());
    if (this.before === null) return;
    const { y, age, open: left } = this.before;
    const signed = scoring.work.offset !== null;
    const ranks = (variances: (place: number) => number): number[] =>
      this.ranks(y.map((z, place) => deviationOf(signed ? z : Math.max(z, 0), variances(place), signed)));
    // In turn one that matters most by its weight, and one that does by what is not known of it.
    const known = ranks((place) => (Number.isFinite(age[place]) ? SAME : 0));
    const open = ranks((place) => left[place]);
    const turns = known.map((rank, place) => Math.min(2 * rank, 2 * open[place] + 1));
    this.brightest = [...turns.keys()].sort((a, b) => turns[a] - turns[b] || a - b);
  }

  /** Of every channel its place in the order of what an error of its weight makes of the map. */
  private ranks(deviations: Float64Array): number[] {
    const matters = this.sizes().map((size, place) => size * deviations[place]);
    const total = Math.max(matters.reduce((a, b) => a + b, 0), TINIEST);
    const steps = matters.map((value) => Math.round(STEPS * Math.log2(Math.max(value / total, TINIEST))));
    const ranks = new Array<number>(steps.length);
    for (const [rank, place] of [...steps.keys()].sort((a, b) => steps[b] - steps[a] || a - b).entries()) ranks[place] = rank;
    return ranks;
  }

  private seen(): Seen {
    const { features, unit } = this.model();
    return { order: this.scoring.order, features, unit };
  }

  /** How many channels are scored by their energy, before the process is asked. */
  private first({ budget, tolerance }: Limits, limit: number): number {
    const channels = this.scoring.order.length;
    if (limit < channels && limit > MOST * channels && tolerance === null) return limit;
    const share = budget === null ? FIRST_OF_ALL * channels : FIRST_OF_BUDGET * limit;
    if (this.before === null) return Math.min(Math.max(FEWEST, Math.ceil(share)), limit);
    const fewest = Math.min(FEWEST, Math.ceil(limit / 2));
    return Math.min(Math.max(fewest, Math.ceil(share / 2)), limit);
  }

  /** How many channels the next round has. */
  private round(scored: number, first: number, limit: number): number {
    if (scored < first) return first - scored;
    const size = Math.ceil((GROWTH - 1) * scored);
    const rest = limit - scored;
    return rest < 1.5 * size ? rest : size;
  }

  /** The places to score next: the brightest at first, or what matters most by the frame before; then those whose weights leave most open in the map. */
  private next(prediction: Prediction | null, count: number): number[] {
    const { scoring, energy } = this;
    const scored = new Set(scoring.scored);
    const open = this.brightest.filter((place) => !scored.has(place));
    if (prediction === null) return open.slice(0, count);
    const { weights, deviation } = prediction;
    const known = Math.max(
      weights.reduce((total, weight, place) => total + Math.abs(weight) * energy[place], 0),
      TINIEST,
    );
    const sizes = this.sizes();
    const wanted = (place: number): number =>
      Math.round(STEPS * Math.log2(Math.max((sizes[place] * deviation[place]) / known, TINIEST)));
    const ranks = new Map(open.map((place) => [place, wanted(place)]));
    return open.sort((a, b) => (ranks.get(b) ?? 0) - (ranks.get(a) ?? 0) || a - b).slice(0, count);
  }

  /**
   * The estimate of the largest error; null where nothing is known.
   *
   * Channels of much energy are alike: from them alone the others seem better known than they are. So nothing is said
   * until as many were chosen by the process as the `first` ones, or most of all are scored. Where the frame before says
   * which channels matter, half as many are enough.
   */
  private error(prediction: Prediction, first: number): number | null {
    const scored = this.scoring.scored.length;
    const enough = this.before === null ? TELLING : TELLING_OF_FRAMES;
    if (scored < enough * first && scored <= MOST * this.scoring.order.length) return null;
    const error = this.model().mapError(prediction, this.summands());
    return error >= 1 ? null : error;
  }
}

function met({ error }: Known, { tolerance }: Limits): boolean {
  return error === 0 || (error !== null && tolerance !== null && error <= tolerance);
}

/** Weights with those of some places in their stead, where these have been scored. */
function overlaid(weights: Float64Array, places: readonly number[], scoring: Scoring, target: number): Float64Array {
  const out = weights.slice();
  const others = scoring.weights(target);
  for (const place of places) if (scoring.hasAny(place)) out[place] = others[place];
  return out;
}

/** |A_k - mean A_k| of every map: what is the same everywhere does not change a map that is min-maxed. */
function deviations({ data, count, height, width }: Maps): Float64Array {
  const size = height * width;
  return Float64Array.from({ length: count }, (_, k) => {
    const map = data.subarray(k * size, (k + 1) * size);
    const mean = map.reduce((a, b) => a + b, 0) / size;
    return Math.sqrt(map.reduce((total, value) => total + (value - mean) ** 2, 0));
  });
}

function variance(values: Float64Array): number {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return values.reduce((total, value) => total + (value - mean) ** 2, 0) / values.length;
}

function once<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => (made ??= make());
}
