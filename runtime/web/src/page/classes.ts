/** The list of classes: what a model knows, how sure it is, and which class is explained. */
import { page } from "./elements";
import { counted, percent } from "./words";

const MOST_ROWS = 10; // classes in the list; the others are found by their names

/** The classes that the model knows: with their probabilities, and to choose from, once there is an image. */
export function listClasses(labels: readonly string[], probabilities: Float32Array | null, target: number): void {
  const focused = page.classes.contains(document.activeElement);
  const wanted = page.search.value.trim().toLowerCase();
  page.search.hidden = labels.length <= MOST_ROWS;
  let order = [...labels.keys()];
  if (probabilities !== null) order.sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  if (wanted !== "") order = order.filter((index) => labels[index].toLowerCase().includes(wanted));
  const shown = order.slice(0, MOST_ROWS);
  if (probabilities !== null && wanted === "" && !shown.includes(target)) shown.push(target);
  page.classes.replaceChildren(...shown.map((index) => classRow(labels[index], index, probabilities, target)));
  page.classes.toggleAttribute("data-explainable", probabilities !== null);
  page.classesHelp.textContent =
    probabilities === null ? `This model knows ${counted(labels.length)} classes.` : "Click a class to see what speaks for it.";
  const others = order.length - shown.length;
  page.more.textContent = shown.length === 0 ? "No class has that in its name." : others > 0 ? `and ${counted(others)} more` : "";
  if (focused) page.classes.querySelector<HTMLInputElement>("input:checked")?.focus();
}

function classRow(text: string, index: number, probabilities: Float32Array | null, target: number): HTMLElement {
  const row = document.createElement("li");
  const label = document.createElement("span");
  label.textContent = text;
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
  value.textContent = percent(probabilities[index]);
  row.style.setProperty("--share", String(probabilities[index]));
  line.append(radio, label, value);
  row.append(line);
  return row;
}
