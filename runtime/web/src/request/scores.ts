/** Scores as they are asked for, with the files that they name: each is read once. */
import type { Manifest } from "../engine/manifest";
import { sha256 } from "../engine/bundle";
import { OrtcamError } from "../errors";
import { decodeImage } from "../images/image";
import { decodeNpy, isNpy } from "../images/npy";
import type { Arrays, Numbers } from "./arrays";
import { Score } from "./score";
import { listed, shown } from "./shown";

const MOST_NUMBERS = 2 ** 25; // of a file

/** What is to be explained in place of the method's usual score of a class. */
export interface AskedScore {
  readonly score: string | null; // null: nothing else
  readonly scoreFiles: readonly File[]; // that it may name
}

/** Reads scores for a model, the one before being kept. */
export class Scores {
  private last: Score | null = null;

  constructor(private readonly manifest: Manifest) {}

  /** @throws OrtcamError as `Score.of`; or a file that is named cannot be read */
  async read({ score, scoreFiles }: AskedScore): Promise<Score> {
    const named = scoreFiles.filter(({ name }) => score?.includes(name) ?? false);
    const key = JSON.stringify([score, ...named.map(({ name, size, lastModified }) => [name, size, lastModified])]);
    if (this.last?.key !== key) this.last = Score.of(score, this.manifest, await arraysOf(score ?? "", named), key);
    return this.last;
  }
}

async function arraysOf(score: string, files: readonly File[]): Promise<Arrays> {
  const found = new Map<string, Numbers>();
  for (const file of files) {
    try {
      found.set(file.name, await numbersOf(file));
    } catch (error) {
      if (!(error instanceof OrtcamError)) throw error;
      throw new OrtcamError(`score=${shown(score)}: ${error.message}`);
    }
  }
  return found;
}

/** The numbers in a file: an array of numpy's, or the grey levels of an image in [0, 1]. */
async function numbersOf(file: File): Promise<Numbers> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const { data, shape } = isNpy(bytes) ? decodeNpy(bytes, file.name, MOST_NUMBERS, Float64Array) : await greyOf(file);
  if (data.length === 0 || !data.every(Number.isFinite)) {
    throw new OrtcamError(`the array ${shown(file.name)}: accepted are finite numbers, not float64 ${listed(shape)}`);
  }
  return { data, shape, sha256: await sha256(new Uint8Array(data.buffer)) };
}

async function greyOf(file: File): Promise<{ data: Float64Array<ArrayBuffer>; shape: number[] }> {
  const { data, height, width } = await decodeImage(file, file.name);
  const grey = Float64Array.from({ length: height * width }, (_, i) => (data[4 * i] + data[4 * i + 1] + data[4 * i + 2]) / 3 / 255);
  return { data: grey, shape: [height, width] };
}
