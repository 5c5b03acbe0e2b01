/** What the reader has set: limits, method and look, read from the page's controls and its address. */
import type { Provider } from "../engine/session";
import { OrtcamError } from "../errors";
import type { Colormap } from "../images/colormaps";
import type { Blend, Look } from "../images/rendering";
import type { Limits } from "../scoring/budget";
import { type Choice, type Gate, GATES, type MethodName } from "../scoring/methods";
import { page } from "./elements";

const DEFAULT_SAMPLES: Partial<Record<MethodName, number>> = { sscam: 35, iscam: 10 };
const HELP: Readonly<Record<MethodName, string>> = {
  "scorecam++": "Masks the image with each channel through a gate. The probability that is left is the channel's weight.",
  scorecam: "Masks the image with each channel, scaled to 0 to 1. The probability that is left is the channel's weight.",
  sscam: "Score-CAM, averaged over noise on the masked image. Needs as many times the passes as there are samples.",
  iscam: "Score-CAM, averaged over masks that grow stronger. Needs as many times the passes as there are samples.",
};

export function readLimits(): Limits {
  const until = page.until.value;
  if (until === "exact") return { budget: null, tolerance: null };
  if (until !== "budget") return { budget: null, tolerance: Number(until) };
  const percent = page.budget.valueAsNumber;
  return { budget: percent >= 100 ? null : percent / 100, tolerance: null };
}

export function readChoice(): Choice {
  const method = page.method.value as MethodName;
  const samples = page.count.valueAsNumber;
  switch (method) {
    case "scorecam":
      return { method };
    case "scorecam++":
      return { method, gate: page.gate.value as Gate };
    case "sscam":
      return { method, samples, seed: page.seed.valueAsNumber };
    case "iscam":
      return { method, samples };
  }
}

export function readLook(): Look {
  return {
    colormap: page.colormap.value as Colormap,
    blend: page.blend.value as Blend,
    alpha: page.opacity.valueAsNumber / 100,
  };
}

/** Offer the gates that the bundle has scorers for; min-max is the plain scorer's. */
export function offerGates(scorers: readonly string[]): void {
  const kept = page.gate.value;
  const known = GATES.filter((gate) => scorers.includes(gate === "minmax" ? "linear" : gate));
  page.gate.replaceChildren(...known.map((gate) => new Option(gate, gate)));
  if (known.includes(kept as Gate)) page.gate.value = kept;
}

export function showOptions(): void {
  const method = page.method.value as MethodName;
  page.methodHelp.textContent = HELP[method];
  for (const field of page.form.querySelectorAll<HTMLElement>("[data-of]")) {
    field.hidden = !field.dataset["of"]?.split(" ").includes(method);
  }
  page.budgetField.hidden = page.until.value !== "budget";
}

/** As many samples as the method takes by default, where it takes any. */
export function suggestSamples(): void {
  page.count.value = String(DEFAULT_SAMPLES[page.method.value as MethodName] ?? page.count.value);
}

/** What the address asks to run by. */
export function wantedProvider(): Provider | "auto" {
  const wanted = new URL(location.href).searchParams.get("provider") ?? "auto";
  if (wanted === "auto" || wanted === "wasm" || wanted === "webgpu") return wanted;
  throw new OrtcamError(`?provider=${wanted}: accepted is wasm or webgpu`);
}
