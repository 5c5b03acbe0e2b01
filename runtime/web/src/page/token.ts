/** The token of a server that wants one: asked of the reader, and kept for this tab alone. */
import { page } from "./elements";

const KEPT = "ortcam-token";

let given: string | null = null;

/** The token that was given in this tab; null where there is none. */
export function knownToken(): string | null {
  try {
    return given ?? sessionStorage.getItem(KEPT);
  } catch {
    return null; // the browser keeps nothing for this site
  }
}

function keep(token: string): void {
  given = token;
  try {
    sessionStorage.setItem(KEPT, token);
  } catch {
    return; // it is asked for again when the page is opened again
  }
}

/** Ask for a token; settles when one was given. */
export function askForToken(): Promise<void> {
  page.token.value = "";
  page.token.focus();
  return new Promise((resolve) => {
    page.tokenForm.onsubmit = (event) => {
      event.preventDefault();
      const token = page.token.value.trim();
      if (token === "") return;
      page.token.value = "";
      keep(token);
      resolve();
    };
  });
}
