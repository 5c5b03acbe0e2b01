/** Where the image goes, in words. */
import { page } from "./elements";
import type { Site } from "./site";

/** @param camera whether a camera is on, which only an engine in this browser uses */
export function showPrivacy({ server }: Site, camera: boolean): void {
  const served = server !== undefined;
  document.documentElement.dataset["engine"] = served ? "server" : "browser";
  const own = camera ? "What the camera sees stays on this device." : "Your image stays on this device.";
  page.promise.textContent = served ? `Your image is sent to ${location.host}.` : own;
  page.privacy.textContent = served
    ? "The server explains your image and does not store it. The page can contact no other address."
    : "Everything is computed in this browser. The page can contact no other address than its own.";
}
