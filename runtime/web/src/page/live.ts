/** The camera on the page: off until it is asked for; its frames are explained one after the other in this browser. */
import { Camera, camerasOf } from "../camera/camera";
import { Loop } from "../camera/loop";
import { OrtcamError } from "../errors";
import type { ExplainedFrame, FrameTask, Opened } from "../messages";
import type { AskedScore } from "../request/scores";
import { isMasked, TITLES } from "../methods/methods";
import { listClasses } from "./classes";
import type { Client } from "./client";
import { page } from "./elements";
import { offer, readChoice, readLimits } from "./settings";
import { type Stage, strongestPart } from "./stage";
import { errorInWords, passesInWords, rateInWords } from "./words";

const MILLISECONDS_BETWEEN_WORDS = 500; // so that numbers can be read, and classes be clicked

/** What the camera needs of the page. */
export interface Surroundings {
  readonly client: Client;
  readonly stage: Stage;
  /** Called when the first frame is shown. */
  readonly begun: () => void;
  /** Called once the camera is off, with what went wrong and the last frame that was explained. */
  readonly failed: (error: unknown, frame: Blob | null) => void;
}

/** A camera that is on. */
interface On {
  readonly camera: Camera;
  readonly loop: Loop<ImageBitmap, ExplainedFrame | null>;
}

export class Live {
  private on: On | null = null;
  private last: ExplainedFrame | null = null;
  private asked: Omit<FrameTask, "frame"> | null = null; // the settings that were valid last
  /** The score that is explained in place of a class, once it is entered. */
  score: AskedScore = { score: null, scoreFiles: [] };
  private pinned: number | null = null; // the class that is explained whatever the frame shows
  private said = -Infinity; // when, in milliseconds

  constructor(private readonly around: Surroundings) {}

  get isOn(): boolean {
    return this.on !== null;
  }

  /**
   * Ask for a camera and begin.
   *
   * @param id of the camera; null: that on the back of a phone, or any
   * @throws OrtcamError there is no camera to have
   */
  async start(opened: Opened, id: string | null = null): Promise<void> {
    const devices = navigator.mediaDevices as MediaDevices | undefined;
    const camera = await Camera.open(devices, page.video, { id, height: Math.max(...opened.mapSize) });
    camera.whenLost(() => void this.fail(new OrtcamError("The camera was disconnected or taken away.")));
    [this.last, this.asked, this.pinned, this.said] = [null, null, null, -Infinity];
    page.follow.checked = true;
    const loop = new Loop<ImageBitmap, ExplainedFrame | null>({
      grab: () => camera.grab(),
      explain: (frame) => this.explain(opened, frame),
      show: (found, perSecond) => found !== null && this.show(opened, found, perSecond),
      fail: (error) => void this.fail(error),
    });
    this.on = { camera, loop };
    const found = devices === undefined ? [] : await camerasOf(devices).catch(() => []);
    offer(page.cameras, found.map(({ id: own, name }) => [name, own]));
    page.cameras.value = camera.id;
    page.camerasField.hidden = found.length < 2 || !this.isOn;
  }

  /** Switch the camera off; the last frame that was explained, as a file. */
  async stop(): Promise<Blob | null> {
    const { on, last } = this;
    if (on === null) return null;
    this.on = null;
    on.camera.close();
    page.camerasField.hidden = true;
    page.followField.hidden = true;
    this.around.client.cancel();
    await on.loop.stop();
    this.last = null;
    return last === null ? null : fileOf(last.picture.display);
  }

  /** Explain a class whatever the frames show; null: the likeliest of each. */
  pin(target: number | null): void {
    this.pinned = target;
    page.follow.checked = target === null;
  }

  /** The class that is explained now. */
  get target(): number {
    return this.last?.target ?? 0;
  }

  /** List the classes as the last frame has them. */
  list(opened: Opened): void {
    if (this.last !== null) listClasses(opened, this.last.picture.probabilities, this.last.target);
  }

  private explain(opened: Opened, frame: ImageBitmap): Promise<ExplainedFrame | null> {
    if (this.asked === null || page.form.checkValidity()) {
      const { choice } = readChoice(opened.auto);
      this.asked = { choice, ...this.score, target: this.pinned, limits: readLimits(), milliseconds: Number(page.pace.value) };
    }
    return this.around.client.ask("frame", { ...this.asked, ...this.score, target: this.pinned, frame }, undefined, [frame]);
  }

  private show(opened: Opened, found: ExplainedFrame, perSecond: number | null): void {
    const { stage } = this.around;
    if (this.last === null) this.around.begun();
    const changed = this.last?.target !== found.target;
    this.last = found;
    stage.showFrame(found.picture, found.map, found.cells);
    if (performance.now() - this.said >= MILLISECONDS_BETWEEN_WORDS) {
      this.said = performance.now();
      this.say(opened, found, perSecond);
      if (!isHeld(page.classes)) this.list(opened);
    }
    if (changed) page.status.textContent = `Camera: ${this.labelOf(opened, found)}`;
    document.dispatchEvent(new CustomEvent("ortcam-frame", { detail: { ...found, perSecond } }));
  }

  private say(opened: Opened, found: ExplainedFrame, perSecond: number | null): void {
    const { choice } = this.asked ?? readChoice(opened.auto);
    const label = this.labelOf(opened, found);
    const masked = isMasked(choice) ? [errorInWords(found.error), passesInWords(found)] : [];
    page.passes.textContent = [TITLES[choice.method], rateInWords(perSecond), ...masked].join(" · ");
    const where = found.flat ? "nothing speaks for it" : `strongest ${strongestPart(found.map)}`;
    this.around.stage.describe(`the camera with the heatmap of ${label} by ${TITLES[choice.method]}, ${where}`);
  }

  private labelOf({ labels }: Opened, { target }: ExplainedFrame): string {
    return target < 0 ? (this.score.score ?? "") : labels[target];
  }

  private async fail(error: unknown): Promise<void> {
    if (!this.isOn) return;
    this.around.failed(error, await this.stop());
  }
}

/** Whether somebody is about to click in an element. */
function isHeld(list: HTMLElement): boolean {
  return list.matches(":active") || (matchMedia("(hover: hover)").matches && list.matches(":hover"));
}

async function fileOf(display: ImageBitmap): Promise<Blob> {
  const canvas = new OffscreenCanvas(display.width, display.height);
  canvas.getContext("2d")?.drawImage(display, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}
