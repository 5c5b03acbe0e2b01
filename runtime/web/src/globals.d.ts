/** What the build puts into the source. */

declare const __VERSION__: string;
