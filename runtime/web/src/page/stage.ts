/** The image with its heatmap on the page, and what it shows in words. */
import type { ShownImage } from "../messages";
import { type Blend, dimOutside, heatmapOnPhotograph, type Look, type SaliencyMap, seenPart, smoothed } from "../images/rendering";

interface Size {
  readonly height: number;
  readonly width: number;
}

/** The two canvases, one on the other; the opacity of the upper one is that of the look. */
export class Stage {
  private picture: ShownImage | null = null;
  private map: SaliencyMap | null = null;
  private cells: Size = { height: 1, width: 1 };
  private look: Look = { colormap: "turbo", blend: "rising", alpha: 0.65 };
  private dimmed: Blend | null = null; // for which look the photograph is drawn

  constructor(
    private readonly photograph: HTMLCanvasElement,
    private readonly heatmap: HTMLCanvasElement,
  ) {}

  /** Show another image, without a heatmap. */
  showImage(picture: ShownImage, name: string): void {
    this.picture = picture;
    const { width, height } = picture.display;
    for (const canvas of [this.photograph, this.heatmap]) Object.assign(canvas, { width, height });
    this.photograph.closest<HTMLElement>(".drop")?.style.setProperty("--ratio", String(width / height));
    this.clearMap();
    this.describe(`${name}, without a heatmap`);
  }

  /** @param cells of the layer: the creases between them are smoothed */
  showMap(map: SaliencyMap, cells: Size): void {
    this.map = map;
    this.cells = cells;
    this.paint();
  }

  /** Show a frame of a camera with its map, in place of the one before. */
  showFrame(picture: ShownImage, map: SaliencyMap, cells: Size): void {
    const { width, height } = picture.display;
    if (width !== this.photograph.width || height !== this.photograph.height) this.showImage(picture, "the camera");
    if (this.picture !== picture) this.picture?.display.close();
    this.picture = picture;
    this.dimmed = null;
    this.showMap(map, cells);
  }

  clearMap(): void {
    this.map = null;
    this.heatmap.getContext("2d")?.clearRect(0, 0, this.heatmap.width, this.heatmap.height);
    this.paintPhotograph(null);
  }

  setLook(look: Look): void {
    const repaint = look.colormap !== this.look.colormap || look.blend !== this.look.blend;
    this.look = look;
    this.heatmap.style.opacity = String(look.alpha);
    if (repaint) this.paint();
  }

  /** What is read to those who do not see the image. */
  describe(text: string): void {
    this.photograph.setAttribute("aria-label", text);
  }

  private paint(): void {
    if (this.picture === null || this.map === null) return;
    const { width, height } = this.heatmap;
    const map = this.look.blend === "rising" ? smoothed(this.map, this.cells) : this.map;
    const pixels = heatmapOnPhotograph(map, this.picture.geometry, { height, width }, this.look);
    this.heatmap.getContext("2d")?.putImageData(new ImageData(pixels, width, height), 0, 0);
    this.paintPhotograph(this.look.blend);
  }

  /** The photograph, dimmed where the model did not see it if a rising heatmap lies on it. */
  private paintPhotograph(blend: Blend | null): void {
    const context = this.photograph.getContext("2d", { willReadFrequently: true });
    if (this.picture === null || context === null || (blend !== null && blend === this.dimmed)) return;
    this.dimmed = blend;
    const { width, height } = this.photograph;
    context.drawImage(this.picture.display, 0, 0);
    const seen = seenPart(this.picture.geometry, { height, width });
    const all = seen.top === 0 && seen.left === 0 && seen.bottom === height && seen.right === width;
    if (blend !== "rising" || all) return;
    const pixels = context.getImageData(0, 0, width, height);
    dimOutside({ data: pixels.data, height, width }, seen);
    context.putImageData(pixels, 0, 0);
  }
}

/** Where a map is strongest, in words: one of nine parts of what the model saw. */
export function strongestPart({ data, height, width }: SaliencyMap): string {
  let most = 0;
  for (let i = 1; i < data.length; i++) if (data[i] > data[most]) most = i;
  const row = Math.floor((3 * Math.floor(most / width)) / height);
  const column = Math.floor((3 * (most % width)) / width);
  return [
    ["at the upper left", "at the top", "at the upper right"],
    ["on the left", "in the middle", "on the right"],
    ["at the lower left", "at the bottom", "at the lower right"],
  ][row][column];
}
