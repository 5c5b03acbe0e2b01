/** Where the image goes, in words. */
import { page } from "./elements";
import type { Site } from "./site";

export function showPrivacy({ server }: Site): void {
  const served = server !== undefined;
  document.documentElement.dataset["engine"] = served ? "server" : "browser";
  page.promise.textContent = served ? `Your image is sent to ${location.host}.` : "Your image stays on this device.";
  page.privacy.textContent = served
    ? "The server explains your image and does not store it. The page can contact no other address."
    : "Everything is computed in this browser. The page can contact no other address than its own.";
}
