/** The worker: takes requests one after the other, so that the page never waits for arithmetic. */
import { OrtcamError } from "./errors";
import { Explainer } from "./explainer";
import type { Cancel, FromWorker, Request } from "./messages";
import { reason } from "./engine/session";

let explainer: Promise<Explainer> | null = null;
let cancelled = false;
let queue: Promise<void> = Promise.resolve();

addEventListener("message", ({ data }: MessageEvent<Request | Cancel>) => {
  if (data.kind === "cancel") {
    cancelled = true;
    return;
  }
  queue = queue.then(() => reply(data));
});

async function reply(request: Request): Promise<void> {
  const { id } = request;
  try {
    const { answer, transfer } = await work(request);
    send({ kind: "answer", id, answer }, transfer);
  } catch (error) {
    send({ kind: "error", id, message: reason(error), expected: error instanceof OrtcamError });
  }
}

async function work(request: Request): Promise<{ answer: unknown; transfer?: Transferable[] }> {
  if (request.kind === "open") {
    explainer = Explainer.open(request.asks);
    return { answer: (await explainer).opened };
  }
  if (explainer === null) throw new OrtcamError("no bundle is open");
  const opened = await explainer;
  switch (request.kind) {
    case "read": {
      const picture = await opened.read(request.asks.file, request.asks.name);
      return { answer: picture, transfer: [picture.display] };
    }
    case "explain": {
      cancelled = false;
      const show = (preview: object) => send({ kind: "preview", id: request.id, preview } as FromWorker);
      return { answer: await opened.explain(request.asks, show, () => cancelled) };
    }
    case "overlay":
      return { answer: await opened.overlay(request.asks) };
  }
}

function send(message: FromWorker, transfer: Transferable[] = []): void {
  postMessage(message, { transfer });
}
