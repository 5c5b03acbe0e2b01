/** What the server says of itself: the bundles that it offers and their samples, in `site.json` beside the page. */
import { OrtcamError } from "../errors";

/** A bundle that the page offers. */
export interface Offer {
  readonly name: string;
  readonly address: string; // of its folder, with a slash at its end, relative to the page
  readonly samples: readonly string[]; // addresses of images to try
}

export interface Site {
  readonly ortcam: string | null; // version
  readonly bundles: readonly Offer[];
}

/**
 * Fetch `site.json`.
 *
 * @throws OrtcamError it is not there, or not what it should be
 */
export async function fetchSite(): Promise<Site> {
  let site: Site;
  try {
    const answer = await fetch("./site.json", { cache: "no-cache" });
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    site = (await answer.json()) as Site;
  } catch (error) {
    throw new OrtcamError(`The server does not answer; if you ended \`ortcam web\`, start it again. (${String(error)})`);
  }
  if (!Array.isArray(site.bundles)) throw new OrtcamError("site.json names no bundles: build the page again");
  return site;
}
