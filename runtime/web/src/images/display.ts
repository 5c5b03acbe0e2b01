/** Pictures for the eye: no larger than a screen, and with their map as a file. */
import { cropGeometry, type Pixels, type Preprocessing } from "./preprocessing";
import { type Look, overlay, type SaliencyMap } from "./rendering";

const DISPLAY_SIDE = 1024; // pixels

/** The picture no larger than a screen. */
export async function forDisplay(pixels: Pixels): Promise<ImageBitmap> {
  const scale = Math.min(DISPLAY_SIDE / Math.max(pixels.height, pixels.width), 1);
  return createImageBitmap(canvasOf(pixels), {
    resizeWidth: Math.max(Math.round(pixels.width * scale), 1),
    resizeHeight: Math.max(Math.round(pixels.height * scale), 1),
    resizeQuality: "high",
  });
}

/** The picture with a map over it, as PNG at the picture's size. @param look with the cells of the map's layer */
export function overlayFile(
  pixels: Pixels,
  map: SaliencyMap,
  preprocessing: Preprocessing,
  look: Look & { readonly cells: { readonly height: number; readonly width: number } },
): Promise<Blob> {
  const geometry = cropGeometry(preprocessing, pixels.height, pixels.width);
  return canvasOf({ ...pixels, data: overlay(pixels, map, geometry, look) }).convertToBlob({ type: "image/png" });
}

function canvasOf({ data, height, width }: Pixels): OffscreenCanvas {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d")?.putImageData(new ImageData(data, width, height), 0, 0);
  return canvas;
}
