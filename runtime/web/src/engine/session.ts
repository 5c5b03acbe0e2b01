/** ONNX Runtime in the browser: on the GPU by WebGPU where there is one, else as WebAssembly, in threads if it may. */
import type { InferenceSession, Tensor } from "onnxruntime-web";
import { type Bundle, fetchFile, weightsOf } from "./bundle";
import { OrtcamError } from "../errors";
import { withoutOutput } from "./onnx_outputs";

export type Provider = "webgpu" | "wasm";

type Library = typeof import("onnxruntime-web");

const MOST_THREADS = 8;

/** An ONNX Runtime that has been loaded. */
export interface Runtime {
  readonly library: Library;
  readonly provider: Provider;
  readonly threads: number;
  readonly version: string;
}

/** What a provider needs: the library, and the addresses of its glue and its WebAssembly. */
interface Parts {
  readonly library: Library;
  readonly mjs: string;
  readonly wasm: string;
}

async function partsOf(provider: Provider): Promise<Parts> {
  if (__WEBGPU__ && provider === "webgpu") {
    const [library, glue, binary] = await Promise.all([
      import("onnxruntime-web/webgpu"),
      import("onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url"),
      import("onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url"),
    ]);
    return { library, mjs: glue.default, wasm: binary.default };
  }
  const [library, glue, binary] = await Promise.all([
    import("onnxruntime-web/wasm"),
    import("onnxruntime-web/ort-wasm-simd-threaded.mjs?url"),
    import("onnxruntime-web/ort-wasm-simd-threaded.wasm?url"),
  ]);
  return { library, mjs: glue.default, wasm: binary.default };
}

/** Load the part of ONNX Runtime that this provider needs, and no other. */
export async function loadRuntime(provider: Provider): Promise<Runtime> {
  const { library, mjs, wasm } = await partsOf(provider);
  const cores = navigator.hardwareConcurrency || 1;
  // Half of what the browser counts are physical cores on most machines with more than four.
  const threads = globalThis.crossOriginIsolated ? Math.min(cores <= 4 ? cores : cores >> 1, MOST_THREADS) : 1;
  library.env.logLevel = "error";
  library.env.wasm.numThreads = threads;
  const absolute = (address: string): string => new URL(address, import.meta.url).href;
  library.env.wasm.wasmPaths = { mjs: absolute(mjs), wasm: absolute(wasm) };
  return { library, provider, threads, version: library.env.versions.web ?? library.env.versions.common };
}

/** Whether there is a GPU that WebGPU may use; one that is emulated is slower than WebAssembly. */
export async function hasGpu(): Promise<boolean> {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return adapter != null && !adapter.info.isFallbackAdapter;
  } catch {
    return false;
  }
}

/** Opens the graphs of a bundle when they are first needed and keeps them. */
export class Sessions {
  private readonly opened = new Map<string, Promise<InferenceSession>>();
  private readonly weights = new Map<string, Promise<Uint8Array<ArrayBuffer>>>();

  constructor(
    readonly runtime: Runtime,
    private readonly bundle: Bundle,
  ) {}

  /** @param without outputs that are not needed, nor computed then */
  open(graph: string, ...without: string[]): Promise<InferenceSession> {
    return remembered(this.opened, [graph, ...without].join(" without "), () => this.create(graph, without));
  }

  private async create(graph: string, without: readonly string[]): Promise<InferenceSession> {
    const bytes = without.reduce(withoutOutput, await fetchFile(this.bundle, graph));
    const externalData = await Promise.all(
      weightsOf(this.bundle, bytes).map(async (path) => ({ path, data: await this.weightsFile(path) })),
    );
    const { library, provider } = this.runtime;
    const executionProviders = provider === "webgpu" ? (["webgpu", "wasm"] as const) : (["wasm"] as const);
    try {
      return await library.InferenceSession.create(bytes, { executionProviders, externalData, logSeverityLevel: 3 });
    } catch (error) {
      throw new OrtcamError(
        `${this.bundle.name}/${graph}: ONNX Runtime (${provider}) cannot open it: ${reason(error)}`,
      );
    }
  }

  private weightsFile(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return remembered(this.weights, name, () => fetchFile(this.bundle, name));
  }
}

/** Inputs of a graph by name. */
export type Feeds = Readonly<Record<string, Tensor>>;

/**
 * Run a graph; inputs that it does not have are left out.
 *
 * @returns the outputs asked for, float32 each, in their order
 */
export async function run(
  session: InferenceSession,
  feeds: Feeds,
  outputs: readonly string[],
): Promise<Float32Array[]> {
  const taken = Object.fromEntries(session.inputNames.map((name) => [name, feeds[name]]));
  const results = await session.run(taken, outputs);
  return outputs.map((name) => results[name].data as Float32Array);
}

/** What a map holds for a key, made if need be; what could not be made is tried again the next time. */
function remembered<T>(map: Map<string, Promise<T>>, key: string, make: () => Promise<T>): Promise<T> {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  made.catch(() => map.delete(key));
  return made;
}

/** What an error of ONNX Runtime says, in one line. */
export function reason(error: unknown): string {
  return String(error instanceof Error ? error.message : error).replace(/\s+/g, " ");
}
