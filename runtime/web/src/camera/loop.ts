/** The loop of a camera: one frame at a time is explained and shown, at a steady rate; a frame that is late is skipped. */

const MOST_PER_SECOND = 15; // maps
const SECONDS_OF_RATE = 3; // over which the rate is counted

/** What is done with each frame. */
export interface Steps<Frame, Found> {
  /** The newest frame; null where there is none yet. */
  readonly grab: () => Promise<Frame | null>;
  readonly explain: (frame: Frame) => Promise<Found>;
  /** @param perSecond maps that were shown lately; null for the first */
  readonly show: (found: Found, perSecond: number | null) => void;
  /** Called with what went wrong; the loop has ended then. */
  readonly fail: (error: unknown) => void;
}

export interface Clock {
  readonly now: () => number; // milliseconds
  readonly wait: (milliseconds: number) => Promise<void>;
}

const REAL: Clock = {
  now: () => performance.now(),
  wait: (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds)),
};

/** Runs from when it is made until it is stopped or a step fails. */
export class Loop<Frame, Found> {
  private running = true;
  private readonly ended: Promise<void>;

  constructor(
    private readonly steps: Steps<Frame, Found>,
    private readonly clock: Clock = REAL,
  ) {
    this.ended = this.run();
  }

  /** Stop, and wait for the frame that is under way; nothing is shown after this call. */
  stop(): Promise<void> {
    this.running = false;
    return this.ended;
  }

  private async run(): Promise<void> {
    const { steps, clock } = this;
    const rate = new Rate();
    while (this.running) {
      const begun = clock.now();
      try {
        const frame = await steps.grab();
        const found = frame === null || !this.running ? null : await steps.explain(frame);
        if (!this.running) return;
        if (found !== null) steps.show(found, rate.count(clock.now()));
      } catch (error) {
        if (this.running) {
          this.running = false;
          steps.fail(error);
        }
        return;
      }
      await clock.wait(Math.max(begun + 1000 / MOST_PER_SECOND - clock.now(), 0));
    }
  }
}

/** How many maps are shown per second. */
export class Rate {
  private times: number[] = [];

  /** Count one that is shown now, in milliseconds; null until there are two. */
  count(now: number): number | null {
    const previous = this.times.at(-1);
    this.times = [...this.times.filter((time) => time > now - 1000 * SECONDS_OF_RATE), now];
    if (this.times.length < 2 && previous !== undefined) this.times = [previous, now];
    return this.times.length < 2 ? null : (1000 * (this.times.length - 1)) / (now - this.times[0]);
  }
}
