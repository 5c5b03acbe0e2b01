/** The page's end of the worker: requests as promises, previews as they come, a new worker where one is lost. */
import { OrtcamError, TokenError } from "../errors";
import type { Cancel, FromWorker, Preview, Request, Requests } from "../messages";

interface Waiting {
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly show: ((preview: Preview) => void) | undefined;
}

/** The worker is lost, or in a state that nobody foresaw: `restart` is needed. */
export class WorkerLostError extends Error {
  override name = "WorkerLostError";
}

const ERRORS = { expected: OrtcamError, token: TokenError, unforeseen: WorkerLostError };

export class Client {
  private worker = this.start();
  private readonly waiting = new Map<number, Waiting>();
  private lastId = 0;

  /**
   * Ask the worker for something.
   *
   * @param show called with the previews of an explanation
   * @param transfer what of `asks` the worker takes over
   * @throws OrtcamError what the reader can do something about; a TokenError where a token is missing
   * @throws WorkerLostError anything else
   */
  ask<Kind extends keyof Requests>(
    kind: Kind,
    asks: Requests[Kind]["asks"],
    show?: (preview: Preview) => void,
    transfer: Transferable[] = [],
  ): Promise<Requests[Kind]["answers"]> {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as (answer: unknown) => void, reject, show });
      this.worker.postMessage({ id, kind, asks } as Request, transfer);
    });
  }

  /** Stop the explanation that runs; it answers with the map that it has, or null. */
  cancel(): void {
    this.worker.postMessage({ kind: "cancel" } satisfies Cancel);
  }

  /** Put a new worker in the place of the old one, which knows no bundle and no picture. */
  restart(): void {
    this.worker.terminate();
    this.waiting.clear();
    this.worker = this.start();
  }

  private start(): Worker {
    const worker = new Worker(new URL("../worker.ts", import.meta.url), { type: "module", name: "ortcam" });
    worker.addEventListener("message", ({ data }: MessageEvent<FromWorker>) => this.receive(data));
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      for (const { reject } of this.waiting.values()) reject(new WorkerLostError(event.message || "it did not start"));
      this.waiting.clear();
    });
    return worker;
  }

  private receive(message: FromWorker): void {
    const waiting = this.waiting.get(message.id);
    if (message.kind === "preview") {
      waiting?.show?.(message.preview);
      return;
    }
    this.waiting.delete(message.id);
    if (message.kind === "answer") waiting?.resolve(message.answer);
    else waiting?.reject(new ERRORS[message.sort](message.message));
  }
}
