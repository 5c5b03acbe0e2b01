/** The picture with its heatmap on the page, and what it shows in words. */
import type { Colormap } from "./colormaps";
import type { Picture } from "./messages";
import { heatmapOnPhotograph, type SaliencyMap } from "./rendering";

/** The two canvases, one on the other; the upper one's opacity is the weight of the heatmap. */
export class Stage {
  private picture: Picture | null = null;
  private map: SaliencyMap | null = null;
  private colormap: Colormap = "jet";

  constructor(
    private readonly photograph: HTMLCanvasElement,
    private readonly heatmap: HTMLCanvasElement,
  ) {}

  /** Show another picture, without a heatmap. */
  showPicture(picture: Picture, name: string): void {
    this.picture = picture;
    const { width, height } = picture.display;
    for (const canvas of [this.photograph, this.heatmap]) Object.assign(canvas, { width, height });
    this.photograph.getContext("2d")?.drawImage(picture.display, 0, 0);
    this.clearMap();
    this.describe(`${name}, without a heatmap`);
  }

  showMap(map: SaliencyMap): void {
    this.map = map;
    this.paint();
  }

  clearMap(): void {
    this.map = null;
    this.heatmap.getContext("2d")?.clearRect(0, 0, this.heatmap.width, this.heatmap.height);
  }

  setColormap(colormap: Colormap): void {
    this.colormap = colormap;
    this.paint();
  }

  /** @param opacity in [0, 1] */
  setOpacity(opacity: number): void {
    this.heatmap.style.opacity = String(opacity);
  }

  /** What is read to those who do not see the picture. */
  describe(text: string): void {
    this.photograph.setAttribute("aria-label", text);
  }

  private paint(): void {
    if (this.picture === null || this.map === null) return;
    const { width, height } = this.heatmap;
    const pixels = heatmapOnPhotograph(this.map, this.picture.geometry, { height, width }, this.colormap);
    this.heatmap.getContext("2d")?.putImageData(new ImageData(pixels, width, height), 0, 0);
  }
}

/** Where a map is strongest, in words: one of nine parts of what the model saw. */
export function strongestPart({ data, height, width }: SaliencyMap): string {
  let most = 0;
  for (let i = 1; i < data.length; i++) if (data[i] > data[most]) most = i;
  const row = ["upper", "middle", "lower"][Math.floor((3 * Math.floor(most / width)) / height)];
  const column = ["left", "centre", "right"][Math.floor((3 * (most % width)) / width)];
  return row === "middle" && column === "centre" ? "in the middle" : `${row} ${column}`;
}
