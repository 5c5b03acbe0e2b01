/** The one family of errors that are meant for whoever reads the page. */

/** Says what was wrong, with which value, and what would be accepted; shown as it stands. */
export class OrtcamError extends Error {
  override name = "OrtcamError";
}

/** The server asks for a token, or does not know the one that it was given. */
export class TokenError extends OrtcamError {
  override name = "TokenError";
}
