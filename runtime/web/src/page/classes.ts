/** The list of classes: what a model knows, how sure it is, and which class is explained. */
import type { Opened } from "../messages";
import { page } from "./elements";
import { counted, outputsInWords, valueInWords } from "./words";

const MOST_ROWS = 10; // classes in the list; the others are found by their names

/**
 * The classes, or other outputs, of a model: with their probabilities or values, and to choose from, once there is an image.
 *
 * @param target that is explained; -1: a score is
 */
export function listClasses(model: Opened, probabilities: Float32Array | null, target: number): void {
  const { labels, areProbabilities } = model;
  const kind = areProbabilities ? "class" : "output";
  const focused = page.classes.contains(document.activeElement);
  const wanted = page.search.value.trim().toLowerCase();
  page.search.hidden = labels.length <= MOST_ROWS;
  page.classesTitle.textContent = labels.length > 0 ? "Classes" : "Output";
  let order = [...labels.keys()];
  if (probabilities !== null) order.sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  if (wanted !== "") order = order.filter((index) => labels[index].toLowerCase().includes(wanted));
  const shown = order.slice(0, MOST_ROWS);
  if (probabilities !== null && wanted === "" && target >= 0 && !shown.includes(target)) shown.push(target);
  page.classes.replaceChildren(...shown.map((index) => classRow(model, index, probabilities, target)));
  page.classes.toggleAttribute("data-explainable", probabilities !== null);
  page.classesHelp.textContent =
    probabilities === null || labels.length === 0
      ? `This model ${areProbabilities ? "knows" : "gives"} ${outputsInWords(model)}.`
      : `Click ${areProbabilities ? "a class" : "an output"} to see what speaks for it.`;
  const others = order.length - shown.length;
  page.more.textContent = labels.length > 0 && shown.length === 0 ? `No ${kind} has that in its name.` : others > 0 ? `and ${counted(others)} more` : "";
  if (focused) page.classes.querySelector<HTMLInputElement>("input:checked")?.focus();
}

function classRow(
  { labels, areProbabilities }: Opened,
  index: number,
  probabilities: Float32Array | null,
  target: number,
): HTMLElement {
  const row = document.createElement("li");
  const label = document.createElement("span");
  label.textContent = labels[index];
  if (probabilities === null) {
    row.append(label);
    return row;
  }
  const [radio, line, value] = [
    Object.assign(document.createElement("input"), { type: "radio", name: "target", value: String(index) }),
    document.createElement("label"),
    document.createElement("span"),
  ];
  radio.checked = index === target;
  value.textContent = valueInWords(probabilities[index], areProbabilities);
  row.style.setProperty("--share", areProbabilities ? String(probabilities[index]) : "0");
  line.append(radio, label, value);
  row.append(line);
  return row;
}
