/** The worker: takes requests one after the other, so that the page never waits for arithmetic. */
import { OrtcamError, TokenError } from "./errors";
import { Explainer } from "./explainer";
import type { Cancel, Engine, FromWorker, Request } from "./messages";
import { reason } from "./engine/session";
import { ServedModel } from "./server/model";

let engine: Promise<Engine> | null = null;
let running = new AbortController(); // of the explanation that was asked for last
let queue: Promise<void> = Promise.resolve();

addEventListener("message", ({ data }: MessageEvent<Request | Cancel>) => {
  if (data.kind === "cancel") {
    running.abort();
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
    send({ kind: "error", id, message: reason(error), sort: sortOf(error) });
  }
}

function sortOf(error: unknown): "expected" | "token" | "unforeseen" {
  if (error instanceof TokenError) return "token";
  return error instanceof OrtcamError ? "expected" : "unforeseen";
}

async function work(request: Request): Promise<{ answer: unknown; transfer?: Transferable[] }> {
  if (request.kind === "open") {
    const { server } = request.asks;
    engine = server === null ? Explainer.open(request.asks) : ServedModel.open(request.asks.address, server);
    return { answer: (await engine).opened };
  }
  if (engine === null) throw new OrtcamError("no bundle is open");
  const opened = await engine;
  switch (request.kind) {
    case "read": {
      const picture = await opened.read(request.asks.file, request.asks.name);
      return { answer: picture, transfer: [picture.display] };
    }
    case "explain": {
      running = new AbortController();
      const show = (preview: object) => send({ kind: "preview", id: request.id, preview } as FromWorker);
      return { answer: await opened.explain(request.asks, show, running.signal) };
    }
    case "frame": {
      running = new AbortController();
      const found = await opened.explainFrame(request.asks, running.signal);
      return { answer: found, transfer: found === null ? [] : [found.picture.display] };
    }
    case "overlay":
      return { answer: await opened.overlay(request.asks) };
  }
}

function send(message: FromWorker, transfer: Transferable[] = []): void {
  postMessage(message, { transfer });
}
