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
  promise: element("promise"),
  privacy: element("privacy"),
  tokenForm: element<HTMLFormElement>("token-form"),
  token: element<HTMLInputElement>("token"),
  bundle: element<HTMLSelectElement>("bundle"),
  file: element<HTMLInputElement>("file"),
  choose: element("choose"),
  cameraFile: element<HTMLInputElement>("camera-file"),
  live: element<HTMLButtonElement>("live"),
  video: element<HTMLVideoElement>("video"),
  camerasField: element("cameras-field"),
  cameras: element<HTMLSelectElement>("cameras"),
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
  classesTitle: element("classes-title"),
  classesHelp: element("classes-help"),
  search: element<HTMLInputElement>("search"),
  followField: element("follow-field"),
  follow: element<HTMLInputElement>("follow"),
  classes: element("classes"),
  more: element("more"),
  score: element<HTMLInputElement>("score"),
  scoreHelp: element("score-help"),
  scoreFiles: element<HTMLInputElement>("score-files"),
  addScoreFiles: element("add-score-files"),
  method: element<HTMLSelectElement>("method"),
  methodHelp: element("method-help"),
  gradientMethods: element<HTMLOptGroupElement>("gradient-methods"),
  attentionMethod: element<HTMLOptionElement>("attention-method"),
  headMethods: element<HTMLOptGroupElement>("head-methods"),
  layerField: element("layer-field"),
  layer: element<HTMLSelectElement>("layer"),
  kernel: element<HTMLSelectElement>("kernel"),
  std: element<HTMLInputElement>("std"),
  references: element<HTMLInputElement>("references"),
  strength: element<HTMLInputElement>("strength"),
  gate: element<HTMLSelectElement>("gate"),
  count: element<HTMLInputElement>("samples-count"),
  seed: element<HTMLInputElement>("seed"),
  until: element<HTMLSelectElement>("until"),
  budgetField: element("budget-field"),
  budget: element<HTMLInputElement>("budget"),
  paceField: element("pace-field"),
  pace: element<HTMLSelectElement>("pace"),
  appearance: element("appearance"),
  downloads: [element("save-overlay"), element("save-map"), element("save-manifest")] as HTMLButtonElement[],
  opacity: element<HTMLInputElement>("opacity"),
  opacityValue: element("opacity-value"),
  colormap: element<HTMLSelectElement>("colormap"),
  blend: element<HTMLSelectElement>("blend"),
  engine: element("engine"),
};

/** Show an image, or the invitation to choose one. */
export function showPicture(shown: boolean): void {
  page.invitation.hidden = shown;
  page.picture.hidden = !shown;
  page.drop.classList.toggle("full", shown);
  page.choose.textContent = shown ? "Choose another" : "Choose an image";
  page.tryTitle.textContent = shown ? "Try another:" : "Or try one of these:";
}
