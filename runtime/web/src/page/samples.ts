/** The images to try. */
import { OrtcamError } from "../errors";
import { page } from "./elements";

/** What is done with an image, and with what went wrong. */
interface Taker {
  readonly read: (file: Blob, name: string) => Promise<void>;
  readonly showError: (message: string) => void;
}

/** List images by their addresses; one that is clicked is fetched and read. */
export function listSamples(addresses: readonly string[], taker: Taker): void {
  page.try.hidden = addresses.length === 0;
  page.samples.replaceChildren(
    ...addresses.map((address) => {
      const name = decodeURIComponent(address.split("/").pop() ?? address);
      const button = document.createElement("button");
      button.type = "button";
      button.append(Object.assign(new Image(), { src: address, alt: name.replace(/\.\w+$/, "").replace(/-/g, " ") }));
      button.addEventListener("click", () => void readSample(address, name, taker));
      return button;
    }),
  );
}

async function readSample(address: string, name: string, { read, showError }: Taker): Promise<void> {
  try {
    const answer = await fetch(address);
    if (!answer.ok) throw new OrtcamError(`the server answers ${answer.status}`);
    await read(await answer.blob(), name);
  } catch (error) {
    showError(`${name} cannot be fetched: ${(error as Error).message}`);
  }
}
