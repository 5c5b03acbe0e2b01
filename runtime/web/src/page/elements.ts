/** The elements of the page that its script reads and changes. */

/** The element of an id, which the page has. */
export function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`no element ${id}`);
  return found as T;
}

export const page = {
  model: element("model"),
  modelName: element("model-name"),
  bundle: element<HTMLSelectElement>("bundle"),
  file: element<HTMLInputElement>("file"),
  choose: element("choose"),
  cameraFile: element<HTMLInputElement>("camera-file"),
  drop: element("drop"),
  invitation: element("invitation"),
  picture: element("picture"),
  try: element("try"),
  tryTitle: element("try-title"),
  samples: element("samples"),
  progress: element<HTMLProgressElement>("progress"),
  status: element("status"),
  passes: element("passes"),
  error: element("error"),
  stop: element<HTMLButtonElement>("stop"),
  refine: element<HTMLButtonElement>("refine"),
  form: element<HTMLFormElement>("form"),
  classesHelp: element("classes-help"),
  search: element<HTMLInputElement>("search"),
  classes: element("classes"),
  more: element("more"),
  method: element<HTMLSelectElement>("method"),
  methodHelp: element("method-help"),
  gate: element<HTMLSelectElement>("gate"),
  count: element<HTMLInputElement>("samples-count"),
  seed: element<HTMLInputElement>("seed"),
  until: element<HTMLSelectElement>("until"),
  budgetField: element("budget-field"),
  budget: element<HTMLInputElement>("budget"),
  appearance: element("appearance"),
  downloads: [element("save-overlay"), element("save-map"), element("save-manifest")] as HTMLButtonElement[],
  opacity: element<HTMLInputElement>("opacity"),
  opacityValue: element("opacity-value"),
  colormap: element<HTMLSelectElement>("colormap"),
  blend: element<HTMLSelectElement>("blend"),
  engine: element("engine"),
};
