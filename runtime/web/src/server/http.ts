/** Requests to the server of `ortcam serve`: the token, and what its refusals say. */
import { OrtcamError, TokenError } from "../errors";

/** A server that explains. */
export class Server {
  /** @param address of its root, with a slash at its end */
  constructor(
    private readonly address: string,
    private readonly token: string | null,
  ) {}

  /**
   * Ask for something.
   *
   * @param path relative to the root of the server
   * @throws OrtcamError the server refuses, with its own words, or does not answer
   * @throws TokenError it wants a token, or another one
   * @throws DOMException the signal of `init` has stopped it
   */
  async ask(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.token !== null) headers.set("Authorization", `Bearer ${this.token}`);
    let answer: Response;
    try {
      answer = await fetch(new URL(path, this.address), { cache: "no-store", ...init, headers });
    } catch (error) {
      if (init.signal?.aborted === true) throw error;
      throw new OrtcamError("The server does not answer. It may have ended, or the connection is lost.");
    }
    if (answer.ok) return answer;
    const said = await refusal(answer);
    if (answer.status === 401) throw new TokenError(said);
    throw new OrtcamError(said);
  }
}

/** What a refusal says: one sentence, and when to try again. */
async function refusal(answer: Response): Promise<string> {
  const wait = Number(answer.headers.get("Retry-After") ?? "");
  const again = wait > 0 ? ` Try again in ${wait} ${wait === 1 ? "second" : "seconds"}.` : "";
  try {
    const { error } = (await answer.json()) as { error: unknown };
    if (typeof error === "string") return again === "" || /\bagain\b/.test(error) ? error : `${error.replace(/[.]?$/, ".")}${again}`;
  } catch {
    // A proxy between here and the server answers in words of its own.
  }
  return `The server answers ${answer.status}.${again}`;
}
