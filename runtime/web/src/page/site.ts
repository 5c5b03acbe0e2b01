/** What the server says of itself: the bundles that it offers and their samples, in `site.json` beside the page. */
import { OrtcamError, TokenError } from "../errors";
import { bundleAddress } from "../engine/bundle";
import type { Access, ServerLimits } from "../messages";
import { knownToken } from "./token";

/** A bundle that the page offers. */
export interface Offer {
  readonly name: string;
  readonly address: string; // of its folder, with a slash at its end, relative to the page
  readonly samples: readonly string[]; // addresses of images to try
  readonly runs?: string; // how the server runs it, where the server explains
}

export interface Site {
  readonly ortcam: string | null; // version
  readonly bundles: readonly Offer[];
  readonly server?: {
    readonly address: string; // of its root, relative to the page
    readonly limits: ServerLimits;
  }; // that explains; without it this browser does
}

/**
 * Fetch `site.json`; of a server that opens its models, once they are open.
 *
 * @throws OrtcamError it is not there, or not what it should be
 * @throws TokenError the server asks for a token, or for another one
 */
export async function fetchSite(token: string | null): Promise<Site> {
  let site: Site;
  try {
    const headers: HeadersInit = token === null ? {} : { Authorization: `Bearer ${token}` };
    let [answer, text] = await ask(headers);
    while (answer.status === 503) {
      await pause(Number(answer.headers.get("Retry-After")) || 1);
      [answer, text] = await ask(headers);
    }
    if (answer.status === 401) throw new TokenError(token === null ? "" : "This is not the token of this server.");
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    site = JSON.parse(text) as Site;
  } catch (error) {
    if (error instanceof TokenError) throw error;
    throw new OrtcamError(`The server does not answer; if you ended it, start it again. (${String(error)})`);
  }
  if (!Array.isArray(site.bundles)) throw new OrtcamError("site.json names no bundles: build the page again");
  return site;
}

/** The bundle that the address asks for, or that is chosen by its place. */
export function wantedBundle({ bundles }: Site, chosen: number): { address: string; offer: Offer | null } {
  const offer = bundles.at(Math.max(chosen, 0)) ?? null;
  const asked = new URL(location.href).searchParams.has("bundle");
  const shipped = offer?.address ?? "shapes.ortcam";
  return { address: bundleAddress(new URL(location.href), shipped), offer: asked ? null : offer };
}

/** How the server is asked that explains; null where this browser does. */
export function accessTo({ server }: Site, offer: Offer | null): Access | null {
  if (server === undefined) return null;
  const runs = offer?.runs ?? "on this server";
  return { address: new URL(server.address, location.href).href, token: knownToken(), limits: server.limits, runs };
}

/** Ask, and read the answer to its end, whatever it is: what is left unread counts as a failed request. */
async function ask(headers: HeadersInit): Promise<[Response, string]> {
  const answer = await fetch("./site.json", { cache: "no-cache", headers });
  return [answer, await answer.text()];
}

function pause(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}
