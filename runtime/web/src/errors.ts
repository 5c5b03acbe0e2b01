/** The one family of errors that are meant for whoever reads the page. */

/** Says what was wrong, with which value, and what would be accepted; shown as it stands. */
export class OrtcamError extends Error {
  override name = "OrtcamError";
}
