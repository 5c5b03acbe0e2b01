/** What the page saves: the overlay, the map, the settings. */
import { encodeNpy } from "../images/npy";
import type { SaliencyMap } from "../images/rendering";
import type { Manifest } from "../messages";
import { readLook } from "./settings";

/** What a file is of. */
export interface Subject {
  readonly image: string; // name of its file
  readonly method: string;
  readonly label: string; // of the class
}

export function saveOverlay(file: Blob, of: Subject): void {
  save(file, "image/png", of, ".png");
}

export function saveMap({ data, height, width }: SaliencyMap, of: Subject): void {
  save(encodeNpy(data, [height, width]), "application/octet-stream", of, ".npy");
}

export function saveManifest(manifest: Manifest, of: Subject): void {
  save(`${JSON.stringify({ ...manifest, rendering: readLook() }, null, 1)}\n`, "application/json", of, ".json");
}

function save(content: BlobPart, type: string, { image, method, label }: Subject, ending: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = `${image.replace(/\.[^.]*$/, "")}-${method}-${label.replace(/[^\p{L}\p{N}]+/gu, "-")}${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
