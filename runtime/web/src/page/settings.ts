/** What the reader has set: limits, method and look, read from the page's controls and its address. */
import type { Provider } from "../engine/session";
import { OrtcamError } from "../errors";
import type { Colormap } from "../images/colormaps";
import type { Blend, Look } from "../images/rendering";
import type { Limits } from "../scoring/budget";
import type { Opened } from "../messages";
import type { Automatic } from "../methods/auto";
import { type Choice, DEFAULTS, type Gate, GATES, isMasked, type Kernel, type MethodName, TITLES } from "../methods/methods";
import { page } from "./elements";

const HELP: Readonly<Record<MethodName, string>> = {
  "grad-cam": "Weighs each channel of the last layer by its mean gradient: how much more of it would help the class.",
  "grad-cam++": "Weighs each channel by its positive gradients, so that several objects of the class all count.",
  "xgrad-cam": "Weighs each channel by its gradients where it is active.",
  "layer-cam": "Weighs each position of each channel by its own gradient, where that is positive.",
  "hires-cam": "Multiplies each position of each channel by its gradient: what it adds to the class.",
  "finer-cam": "Grad-CAM of what speaks for this class and not for those most like it.",
  "smooth-grad-cam++": "Grad-CAM++ with gradients averaged over noise on the image. Runs the model once per sample.",
  "grad-attention": "Sums what each patch gives to the class through the attention behind the layer.",
  "recipro-cam": "Keeps one position of the features at a time. It is worth the probability that it leaves.",
  "scorecam++": "Masks the image with each channel through a gate. The probability that is left is the channel's weight.",
  scorecam: "Masks the image with each channel, scaled to 0 to 1. The probability that is left is the channel's weight.",
  sscam: "Score-CAM, averaged over noise on the masked image. Needs as many times the passes as there are samples.",
  iscam: "Score-CAM, averaged over masks that grow stronger. Needs as many times the passes as there are samples.",
};
const AUTO = "auto";

export function readLimits(): Limits {
  const until = page.until.value;
  if (until === "exact") return { budget: null, tolerance: null };
  if (until !== "budget") return { budget: null, tolerance: Number(until) };
  const percent = page.budget.valueAsNumber;
  return { budget: percent >= 100 ? null : percent / 100, tolerance: null };
}

/** The method with its options, and why, where it was chosen for the reader. */
export function readChoice(auto: Automatic): { choice: Choice; chosen: string | null } {
  const chosen = page.method.value === AUTO;
  return { choice: chosen ? auto.choice : ownChoice(page.method.value as MethodName), chosen: chosen ? auto.line : null };
}

function ownChoice(method: MethodName): Choice {
  const usual = DEFAULTS[method];
  const layer = page.layer.value === "" && "layer" in usual ? usual.layer : page.layer.value;
  const samples = page.count.valueAsNumber;
  const seed = page.seed.valueAsNumber;
  switch (method) {
    case "scorecam++":
      return { method, gate: page.gate.value as Gate };
    case "sscam":
      return { method, samples, seed };
    case "iscam":
      return { method, samples };
    case "recipro-cam":
      return { method, kernel: page.kernel.value as Kernel };
    case "smooth-grad-cam++":
      return { method, layer, samples, std: page.std.valueAsNumber, seed };
    case "finer-cam":
      return { method, layer, strength: page.strength.valueAsNumber, references: page.references.valueAsNumber };
    case "scorecam":
    case "grad-attention":
      return usual;
    default:
      return { method, layer };
  }
}

export function readLook(): Look {
  return {
    colormap: page.colormap.value as Colormap,
    blend: page.blend.value as Blend,
    alpha: page.opacity.valueAsNumber / 100,
  };
}

/** Offer what the bundle can do: methods, layers, and gates that it has scorers for; min-max is the plain scorer's. */
export function offerMethods({ scorers, layers, noGradient, hasAttention, hasHead, auto, mostSamples }: Opened): void {
  page.gradientMethods.disabled = noGradient !== null;
  page.attentionMethod.disabled = !hasAttention;
  page.headMethods.disabled = !hasHead;
  page.count.max = String(mostSamples);
  if (page.method.selectedOptions[0]?.closest(":disabled") != null) page.method.value = AUTO;
  page.method.options[0].text = `Automatic: ${TITLES[auto.choice.method]}`;
  const known = GATES.filter((gate) => scorers.includes(gate === "minmax" ? "linear" : gate));
  offer(page.gate, known.map((gate) => [gate, gate]));
  const several: [string, string][] = layers.length > 1 ? [["all layers", "all"]] : [];
  offer(page.layer, [["", ""], ...layers.map((name): [string, string] => [name, name]), ...several]);
}

/** Fill a chooser with texts and their values; what was chosen stays so where it still can be. */
export function offer(chooser: HTMLSelectElement, entries: readonly (readonly [string, string])[]): void {
  const kept = chooser.value;
  chooser.replaceChildren(...entries.map(([text, value]) => new Option(text, value)));
  if (entries.some(([, value]) => value === kept)) chooser.value = kept;
}

/** Show the options of the method, and what it does. */
export function showOptions(opened: Opened | null): void {
  const own = page.method.value;
  const method = own === AUTO ? (opened?.auto.choice.method ?? null) : (own as MethodName);
  const said = method === null ? [] : [HELP[method]];
  if (own === AUTO && opened !== null) said.push(`Chosen because ${opened.auto.reason}.`);
  if (opened?.noGradient != null) said.push(`This model has no gradient: ${opened.noGradient}.`);
  page.methodHelp.textContent = said.join(" ");
  for (const field of page.form.querySelectorAll<HTMLElement>("[data-of]")) {
    show(field, field.dataset["of"]?.split(" ").includes(own) ?? false);
  }
  const masked = method !== null && isMasked({ method });
  for (const field of page.form.querySelectorAll<HTMLElement>("[data-masked]")) field.hidden = !masked;
  const usual = own === AUTO ? null : DEFAULTS[own as MethodName];
  const hasLayer = usual !== null && "layer" in usual;
  if (hasLayer && opened !== null) {
    page.layer.options[0].text = `default: ${usual.layer === "all" ? "all layers" : opened.layers[0]}`;
  }
  page.layerField.hidden = !hasLayer || (opened?.layers.length ?? 1) < 2;
  page.paceField.hidden = !masked || opened?.takesCamera !== true;
  show(page.budgetField, masked && page.until.value === "budget");
}

/** Show a field or not; what is not shown need not be valid. */
function show(field: HTMLElement, shown: boolean): void {
  field.hidden = !shown;
  for (const control of field.querySelectorAll<HTMLInputElement | HTMLSelectElement>("input, select")) {
    control.disabled = !shown;
  }
}

/** As many samples as the method takes by default, where it takes any. */
export function suggestSamples(): void {
  const method = page.method.value;
  const usual = method === AUTO ? null : DEFAULTS[method as MethodName];
  if (usual !== null && "samples" in usual) page.count.value = String(usual.samples);
}

/** What the address asks to run by. */
export function wantedProvider(): Provider | "auto" {
  const wanted = new URL(location.href).searchParams.get("provider") ?? "auto";
  if (wanted === "auto" || wanted === "wasm" || wanted === "webgpu") return wanted;
  throw new OrtcamError(`?provider=${wanted}: accepted is wasm or webgpu`);
}
