/** Images that are chosen, photographed, dropped or pasted. */
import { page } from "./elements";

/** What is done with an image. @param isEmpty whether a click on the area that takes one asks for it */
export function listenForImages(read: (file: Blob, name: string) => void, isEmpty: () => boolean): void {
  for (const input of [page.file, page.cameraFile]) {
    input.addEventListener("change", () => {
      const file = input.files?.[0];
      input.value = ""; // the same file can be chosen again
      if (file !== undefined) read(file, file.name);
    });
  }
  page.drop.addEventListener("click", () => {
    if (isEmpty()) page.file.click();
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"] as const) {
    // Anywhere on the page: an image that misses the area must not replace the page.
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      page.drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    });
  }
  const take = (data: DataTransfer | null): void => {
    const file = data?.files[0];
    if (file !== undefined && !page.file.disabled) read(file, file.name);
  };
  document.addEventListener("drop", (event) => take(event.dataTransfer));
  document.addEventListener("paste", (event) => take(event.clipboardData));
}
