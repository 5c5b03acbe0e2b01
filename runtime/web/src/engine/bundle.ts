/** The bundle: the folder that `ortcam export` writes, and the checks before a file of it is used. */
import { OrtcamError } from "../errors";
import { type Manifest, parseManifest } from "./manifest";

const REMEDY = "copy or export the bundle again";

/** A bundle whose manifest has been checked; its files are when they are fetched. */
export interface Bundle {
  readonly address: string; // of the folder, with a slash at its end
  readonly name: string;
  readonly manifest: Manifest;
  readonly sha256: string | null; // of bundle.json; null where the browser has no cryptography (no secure context)
}

type Bytes = Uint8Array<ArrayBuffer>;

/**
 * The address of the bundle that the page's own address asks for.
 *
 * @throws OrtcamError it is not a relative path on this site
 */
export function bundleAddress(page: URL, shipped: string): string {
  const path = page.searchParams.get("bundle") ?? shipped;
  const address = URL.canParse(path, page.href) ? new URL(`${path.replace(/\/+$/, "")}/`, page.href) : null;
  if (address === null || /^([a-z][a-z0-9+.-]*:|[/\\]{2})/i.test(path.trim()) || address.origin !== page.origin) {
    throw new OrtcamError(`?bundle=${path}: accepted is a relative path on this site, say ?bundle=${shipped}`);
  }
  return new URL(address.pathname, page.origin).href;
}

/**
 * Fetch and check a manifest.
 *
 * @throws OrtcamError there is none, it is of a newer schema, or it has an entry that is not accepted
 */
export async function openBundle(address: string): Promise<Bundle> {
  return checkBundle(address, await download(`${address}bundle.json`, `${bundleName(address)}/bundle.json`));
}

/** The name of the folder at an address. */
export function bundleName(address: string): string {
  return decodeURIComponent(address.replace(/\/$/, "").split("/").pop() ?? "");
}

/**
 * Check a manifest.
 *
 * @param bytes the content of bundle.json
 * @throws OrtcamError it is of a newer schema, or has an entry that is not accepted
 */
export async function checkBundle(address: string, bytes: Bytes): Promise<Bundle> {
  const name = bundleName(address);
  const where = `${name}/bundle.json`;
  let raw: unknown;
  try {
    raw = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new OrtcamError(`${where}: not JSON: ${(error as Error).message}`);
  }
  return { address, name, manifest: parseManifest(raw, where), sha256: await sha256(bytes) };
}

/**
 * Fetch a file of a bundle and compare its size and SHA-256 with the manifest's.
 *
 * @throws OrtcamError it is missing, truncated or altered
 */
export async function fetchFile(bundle: Bundle, file: string): Promise<Bytes> {
  const where = `${bundle.name}/${file}`;
  const record = bundle.manifest.files[file];
  const bytes = await download(`${bundle.address}${encodeURIComponent(file)}`, where);
  if (bytes.length !== record.size) {
    const what = bytes.length < record.size ? "truncated" : "altered";
    throw new OrtcamError(`${where}: ${what}, ${bytes.length} bytes instead of ${record.size}; ${REMEDY}`);
  }
  const digest = await sha256(bytes);
  if (digest !== null && digest !== record.sha256) {
    throw new OrtcamError(`${where}: altered, its SHA-256 is not the one in bundle.json; ${REMEDY}`);
  }
  return bytes;
}

/** The files of weights that a graph points into: those whose names are written in it. */
export function weightsOf(bundle: Bundle, graph: Bytes): string[] {
  const text = new TextDecoder("latin1").decode(graph);
  return Object.keys(bundle.manifest.files).filter((name) => !/\.(onnx|npy)$/.test(name) && text.includes(name));
}

/** SHA-256 in hexadecimal; null where the browser has no cryptography. */
export async function sha256(bytes: Bytes): Promise<string | null> {
  if (!("subtle" in crypto)) return null;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function download(address: string, where: string): Promise<Bytes> {
  let answer: Response;
  try {
    answer = await fetch(address, { cache: "no-cache" });
    if (answer.ok) return new Uint8Array(await answer.arrayBuffer());
  } catch (error) {
    throw new OrtcamError(`${where}: cannot be fetched from where this page comes from: ${(error as Error).message}`);
  }
  throw new OrtcamError(`${where}: missing, the server answers ${answer.status}; ${REMEDY}`);
}
