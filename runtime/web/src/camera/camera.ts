/** A camera of this device: its frames, until it is closed or taken away. */
import { OrtcamError } from "../errors";

const USUAL_HEIGHT = 480; // pixels of a frame; more only where the model sees more

/** What a page needs of the browser; tests hand in their own. */
export type Devices = Pick<MediaDevices, "getUserMedia" | "enumerateDevices">;

/** A camera to choose. */
export interface Choosable {
  readonly id: string;
  readonly name: string;
}

/** What is said of the errors of `getUserMedia`, by their names. */
const REASONS: Readonly<Record<string, string>> = {
  NotAllowedError: "The camera is not allowed for this page: allow it in the browser's settings of this address, and try again.",
  SecurityError: "The camera is not allowed for this page: allow it in the browser's settings of this address, and try again.",
  NotFoundError: "No camera was found: connect one, or choose an image.",
  OverconstrainedError: "That camera is no longer there: choose another one.",
  NotReadableError: "The camera is busy: close the other program that uses it, and try again.",
  AbortError: "The camera is busy: close the other program that uses it, and try again.",
};

/** An open camera, shown by a video element. */
export class Camera {
  private constructor(
    private readonly stream: MediaStream,
    private readonly video: HTMLVideoElement,
  ) {}

  /**
   * Ask for a camera: that of an id, else the one on the back of a phone.
   *
   * @param height pixels that the model sees
   * @throws OrtcamError there is none, it is busy, or the reader did not allow it
   */
  static async open(
    devices: Devices | undefined,
    video: HTMLVideoElement,
    { id, height }: { readonly id: string | null; readonly height: number },
  ): Promise<Camera> {
    if (devices === undefined) {
      throw new OrtcamError("Browsers give a camera to secure pages only: open this page by https or on 127.0.0.1.");
    }
    let stream: MediaStream | null = null;
    try {
      stream = await devices.getUserMedia({ audio: false, video: constraints(id, height) });
      video.srcObject = stream;
      await video.play();
      return new Camera(stream, video);
    } catch (error) {
      for (const track of stream?.getTracks() ?? []) track.stop();
      video.srcObject = null;
      throw new OrtcamError(reasonOf(error));
    }
  }

  /** The id of the camera. */
  get id(): string {
    return this.stream.getVideoTracks()[0].getSettings().deviceId ?? "";
  }

  /** What the camera sees now; null where it has no frame yet. */
  async grab(): Promise<ImageBitmap | null> {
    const { video } = this;
    if (video.readyState < video.HAVE_CURRENT_DATA || video.videoWidth === 0) return null;
    return createImageBitmap(video);
  }

  /** @param lost called once if the camera is unplugged or taken away; not after `close` */
  whenLost(lost: () => void): void {
    for (const track of this.stream.getTracks()) track.addEventListener("ended", lost, { once: true });
  }

  /** Switch it off. */
  close(): void {
    for (const track of this.stream.getTracks()) track.stop();
    this.video.srcObject = null;
  }
}

/** The cameras of this device: they have names once one has been allowed. */
export async function camerasOf(devices: Devices): Promise<Choosable[]> {
  const found = (await devices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
  return found.map(({ deviceId, label }, i) => ({ id: deviceId, name: label || `Camera ${i + 1}` }));
}

function constraints(id: string | null, height: number): MediaTrackConstraints {
  const rows = Math.max(height, USUAL_HEIGHT);
  const size = { width: { ideal: Math.round((rows * 4) / 3) }, height: { ideal: rows } };
  return id === null ? { ...size, facingMode: { ideal: "environment" } } : { ...size, deviceId: { exact: id } };
}

/** Why there is no camera, in one sentence. */
export function reasonOf(error: unknown): string {
  const name = error instanceof Error ? error.name : "";
  return REASONS[name] ?? `The camera did not start: ${error instanceof Error ? error.message || name : String(error)}.`;
}
