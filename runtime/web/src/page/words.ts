/** Numbers as the page says them. */
import type { Opened } from "../messages";
import type { Cost } from "../methods/unmasked";

export function errorInWords(error: number | null): string {
  if (error === null) return "error not known yet";
  return error === 0 ? "exact" : `estimated error ${error < 0.095 ? error.toFixed(3) : error.toFixed(2)}`;
}

export function passesInWords({ passes, total }: { passes: number; total: number }): string {
  return passes < total ? `${counted(passes)} of ${counted(total)} passes` : `${counted(passes)} passes`;
}

/** What a map took that masks no image. */
export function costInWords(title: string, cost: Cost, seconds: number): string {
  const { forwardPasses, gradientPasses, headPasses } = cost;
  const parts = [
    forwardPasses > 0 ? `${counted(forwardPasses)} forward passes` : "",
    gradientPasses > 0 ? `${counted(gradientPasses)} backward ${gradientPasses === 1 ? "pass" : "passes"}` : "",
    headPasses > 0 ? `${counted(headPasses)} passes of the last layers` : "",
    seconds < 0.1 ? `${Math.max(Math.round(1000 * seconds), 1)} ms` : `${seconds.toFixed(1)} s`,
  ];
  return [title, ...parts.filter((part) => part !== "")].join(" · ");
}

/** How often maps of a camera's frames are shown. */
export function rateInWords(perSecond: number | null): string {
  if (perSecond === null) return "first map";
  return `${perSecond < 9.95 ? perSecond.toFixed(1) : perSecond.toFixed(0)} maps per second`;
}

/** How many classes a model knows, or what values it gives. */
export function outputsInWords({ labels, areProbabilities, outputs }: Pick<Opened, "labels" | "areProbabilities" | "outputs">): string {
  if (labels.length === 0) return outputs;
  const [one, several] = areProbabilities ? ["class", "classes"] : ["output", "outputs"];
  return `${counted(labels.length)} ${labels.length === 1 ? one : several}`;
}

export function counted(count: number): string {
  return count.toLocaleString("en");
}

/** What a model gives for one of its outputs: a probability, or any value in four digits. */
export function valueInWords(value: number, isProbability: boolean): string {
  return isProbability ? percent(value) : String(Number(value.toPrecision(4)));
}

function percent(probability: number): string {
  return `${(100 * probability).toFixed(1)} %`;
}
