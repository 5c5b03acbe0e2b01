/**
 * The page: wires the controls to the worker.
 *
 * For tests and other scripts the document's element says in `data-state` what goes on (loading, empty, reading, ready,
 * explaining, explained, broken), and the document gets two events: `ortcam-preview` with a `Preview`, and
 * `ortcam-explained` with an `Explained` as its detail. The address may name a bundle (`?bundle=`, a relative path),
 * and what it runs by (`?provider=wasm` or `webgpu`; by default WebGPU where there is a GPU).
 */
import { bundleAddress } from "./bundle";
import { Client, WorkerLostError } from "./client";
import { type Colormap, COLORMAPS } from "./colormaps";
import { OrtcamError } from "./errors";
import type { Explained, Opened, Picture, Preview, Task } from "./messages";
import { type Choice, type Gate, GATES, type MethodName, resolvePlan, TITLES } from "./methods";
import { encodeNpy } from "./npy";
import type { Provider } from "./session";
import { Stage, strongestPart } from "./stage";

type State = "loading" | "empty" | "reading" | "ready" | "explaining" | "explained" | "broken";

const SHIPPED_BUNDLE = "shapes.ortcam";
const SHIPPED_SAMPLES = import.meta.glob<string>("../../../models/shapes/samples/*.png", {
  query: "?url",
  import: "default",
  eager: true,
});
const MOST_BARS = 8;
const DEFAULT_SAMPLES: Partial<Record<MethodName, number>> = { sscam: 35, iscam: 10 };
const HELP: Readonly<Record<MethodName, string>> = {
  "scorecam++":
    "The picture is masked by each channel of the last layer through a gate; the probability left is its weight.",
  scorecam: "The picture is masked by each channel of the last layer, from 0 to 1; the probability left is its weight.",
  sscam: "Score-CAM with noise on the masked picture, averaged. The same seed gives the same noise, here and in Python.",
  iscam: "Score-CAM, averaged over masks that grow stronger.",
};

function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`no element ${id}`);
  return found as T;
}

const page = {
  file: element<HTMLInputElement>("file"),
  drop: element("drop"),
  invitation: element("invitation"),
  picture: element("picture"),
  caption: element("caption"),
  samples: element("samples"),
  progress: element<HTMLProgressElement>("progress"),
  status: element("status"),
  error: element("error"),
  form: element<HTMLFormElement>("form"),
  controls: element<HTMLFieldSetElement>("controls"),
  target: element<HTMLSelectElement>("target"),
  method: element<HTMLSelectElement>("method"),
  methodHelp: element("method-help"),
  gate: element<HTMLSelectElement>("gate"),
  count: element<HTMLInputElement>("samples-count"),
  seed: element<HTMLInputElement>("seed"),
  budget: element<HTMLInputElement>("budget"),
  explain: element<HTMLButtonElement>("explain"),
  cancel: element<HTMLButtonElement>("cancel"),
  cost: element("cost"),
  passes: element("passes"),
  probabilities: element("probabilities"),
  noProbabilities: element("no-probabilities"),
  appearance: element<HTMLFieldSetElement>("appearance"),
  downloads: element<HTMLFieldSetElement>("downloads"),
  opacity: element<HTMLInputElement>("opacity"),
  opacityValue: element("opacity-value"),
  colormap: element<HTMLSelectElement>("colormap"),
  engine: element("engine"),
};

const client = new Client();
const stage = new Stage(element<HTMLCanvasElement>("photograph"), element<HTMLCanvasElement>("heatmap"));
let provider: Provider | null = null; // that which is left after WebGPU has failed
let opened: Opened | null = null;
let current: { readonly file: Blob; readonly name: string; readonly picture: Picture } | null = null;
let explained: Explained | null = null;
let reads = 0;
let running: Promise<void> = Promise.resolve(); // settles when the explanation that was started last has ended

function setState(state: State, status: string): void {
  document.documentElement.dataset["state"] = state;
  page.status.textContent = status;
  const open = state !== "loading" && state !== "broken";
  page.file.disabled = !open;
  for (const button of page.samples.querySelectorAll("button")) button.disabled = !open;
  const explainable = state === "ready" || state === "explained";
  page.controls.disabled = !explainable;
  page.explain.disabled = !explainable;
  page.cancel.hidden = state !== "explaining";
  page.appearance.disabled = state !== "explaining" && state !== "explained";
  page.downloads.disabled = state !== "explained";
  page.progress.hidden = state !== "explaining";
  page.passes.textContent = "";
}

function showError(message: string | null): void {
  page.error.hidden = message === null;
  page.error.textContent = message;
}

/** Where the page stands once nothing runs any more. */
function settle(status: string): void {
  if (opened === null) setState("broken", status);
  else if (current === null) setState("empty", status);
  else setState(explained === null ? "ready" : "explained", status);
}

/** Show what went wrong and leave the page as it can go on from: with a new worker where the old one is lost. */
async function recover(error: unknown): Promise<void> {
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof OrtcamError) {
    settle("");
    showError(text);
    return;
  }
  if (!(error instanceof WorkerLostError)) console.error(error);
  const kept = current;
  [current, explained] = [null, null];
  client.restart();
  if (opened?.provider === "webgpu") provider = "wasm";
  if (opened !== null) await open();
  if (kept !== null && opened !== null) await read(kept.file, kept.name);
  showError(`That did not work, and the computation was started anew: ${text}`);
}

function wantedProvider(): Provider | "auto" {
  const wanted = new URL(location.href).searchParams.get("provider") ?? "auto";
  if (wanted === "auto" || wanted === "wasm" || wanted === "webgpu") return wanted;
  throw new OrtcamError(`?provider=${wanted}: accepted is wasm or webgpu`);
}

async function open(): Promise<void> {
  setState("loading", "Loading the classifier …");
  opened = null;
  try {
    const address = bundleAddress(new URL(location.href), SHIPPED_BUNDLE);
    opened = await client.ask("open", { address, provider: provider ?? wantedProvider() });
  } catch (error) {
    setState("broken", "");
    showError(error instanceof OrtcamError ? error.message : `The computation did not start: ${String(error)}`);
    return;
  }
  const { model, labels, mapSize, threads, notes } = opened;
  const [height, width] = mapSize;
  const runs =
    opened.provider === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} ${threads === 1 ? "thread" : "threads"}`;
  const what = `${model}: ${labels.length} classes, sees ${width} × ${height} pixels.`;
  page.engine.textContent = [what, `Runs by ${runs}.`, ...notes].join(" ");
  offerGates(opened.scorers);
  settle("Ready for a picture.");
}

/** Show and classify a picture; of several that come at once the last one counts. */
async function read(file: Blob, name: string): Promise<void> {
  const turn = ++reads;
  if (document.documentElement.dataset["state"] === "explaining") {
    client.cancel();
    await running;
  }
  showError(null);
  setState("reading", `Reading ${name} …`);
  try {
    const picture = await client.ask("read", { file, name });
    if (turn !== reads) return;
    current = { file, name, picture };
    explained = null;
    stage.showPicture(picture, name);
    page.invitation.hidden = true;
    page.picture.hidden = false;
    const size = `${picture.width} × ${picture.height} pixels`;
    page.caption.textContent = `${name}, ${size}. Click or drop to change it, or try:`;
    showProbabilities(picture.probabilities);
    settle("Choose a class and a method, then explain.");
  } catch (error) {
    await recover(error);
  }
}

async function explain(): Promise<void> {
  if (current === null || opened === null) return;
  const { name } = current;
  const task = readTask();
  const label = opened.labels[task.target];
  const title = TITLES[task.choice.method];
  explained = null;
  stage.clearMap();
  stage.describe(`${name}, its heatmap being computed`);
  showError(null);
  page.progress.value = 0;
  setState("explaining", `${title} for ${label} …`);
  page.cancel.focus({ preventScroll: true });
  page.drop.scrollIntoView({ block: "nearest" }); // on a phone the controls are below the picture
  try {
    explained = await client.ask("explain", task, showPreview);
    if (explained === null) {
      stage.clearMap();
      stage.describe(`${name}, without a heatmap`);
      settle("Cancelled.");
    } else {
      stage.showMap(explained.map);
      const where = explained.flat
        ? "flat: nothing speaks for this class"
        : `strongest ${strongestPart(explained.map)}`;
      stage.describe(`${name} with the heatmap of ${label} by ${title}, ${where}`);
      settle(`${title} for ${label}: ${where}.`);
      page.passes.textContent = `${page.progress.max} passes`;
      document.dispatchEvent(new CustomEvent("ortcam-explained", { detail: explained }));
    }
  } catch (error) {
    stage.clearMap();
    await recover(error);
  }
  if (document.activeElement === document.body || document.activeElement === page.cancel) {
    page.explain.focus({ preventScroll: true });
  }
}

function showPreview(preview: Preview): void {
  page.progress.max = Math.max(preview.total, 1);
  page.progress.value = preview.passes;
  page.passes.textContent = `${preview.passes} of ${preview.total} passes`;
  if (preview.map !== null) stage.showMap(preview.map);
  document.dispatchEvent(new CustomEvent("ortcam-preview", { detail: preview }));
}

function readTask(): Task {
  const budget = page.budget.valueAsNumber;
  return {
    choice: readChoice(),
    target: Number(page.target.value),
    budget: budget >= 100 ? null : budget / 100,
  };
}

function readChoice(): Choice {
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

function percent(probability: number): string {
  return `${(100 * probability).toFixed(1)} %`;
}

function showProbabilities(probabilities: Float32Array): void {
  const labels = opened?.labels ?? [];
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  page.target.replaceChildren(
    ...order.map((index) => new Option(`${labels[index]} (${percent(probabilities[index])})`, String(index))),
  );
  page.noProbabilities.hidden = true;
  page.probabilities.replaceChildren(
    ...order.slice(0, MOST_BARS).map((index) => {
      const row = document.createElement("li");
      row.style.setProperty("--share", String(probabilities[index]));
      const [label, value] = [document.createElement("span"), document.createElement("span")];
      label.textContent = labels[index];
      value.textContent = percent(probabilities[index]);
      row.append(label, value);
      return row;
    }),
  );
}

/** Offer the gates that the bundle has scorers for; min-max is the plain scorer's. */
function offerGates(scorers: readonly string[]): void {
  const kept = page.gate.value;
  const known = GATES.filter((gate) => scorers.includes(gate === "minmax" ? "linear" : gate));
  page.gate.replaceChildren(...known.map((gate) => new Option(gate, gate)));
  if (known.includes(kept as Gate)) page.gate.value = kept;
}

function showOptions(): void {
  const method = page.method.value as MethodName;
  page.methodHelp.textContent = HELP[method];
  for (const field of page.form.querySelectorAll<HTMLElement>("[data-of]")) {
    field.hidden = !field.dataset["of"]?.split(" ").includes(method);
  }
  showCost();
}

function showCost(): void {
  const [budget, count] = [page.budget.valueAsNumber, page.count.valueAsNumber];
  if (opened === null || !(budget >= 1) || !(count >= 1)) return;
  const passes =
    Math.ceil((opened.channels * Math.min(budget, 100)) / 100) * resolvePlan(readChoice()).coefficients.length;
  page.cost.textContent = `Up to ${passes} forward passes`;
}

function save(content: BlobPart, type: string, ending: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = `${current?.name.replace(/\.[^.]*$/, "") ?? "picture"}-${explained?.manifest["method"]}${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function saveOverlay(): Promise<void> {
  try {
    const rendering = { colormap: page.colormap.value as Colormap, alpha: page.opacity.valueAsNumber / 100 };
    save(await client.ask("overlay", rendering), "image/png", "-overlay.png");
  } catch (error) {
    await recover(error);
  }
}

function saveMap(): void {
  if (explained === null) return;
  const { data, height, width } = explained.map;
  save(encodeNpy(data, [height, width]), "application/octet-stream", ".npy");
}

function saveManifest(): void {
  if (explained === null) return;
  const rendering = { colormap: page.colormap.value, alpha: page.opacity.valueAsNumber / 100 };
  save(`${JSON.stringify({ ...explained.manifest, rendering }, null, 1)}\n`, "application/json", "-manifest.json");
}

function listSamples(): void {
  for (const address of Object.values(SHIPPED_SAMPLES)) {
    const name =
      address
        .split("/")
        .pop()
        ?.replace(/-[\w-]{8}(?=\.png$)/, "") ?? address;
    const button = document.createElement("button");
    const picture = Object.assign(new Image(), {
      src: address,
      alt: `Sample ${name.replace(/\.png$/, "")}`,
      height: 48,
    });
    button.type = "button";
    button.append(picture);
    button.addEventListener("click", () => void readSample(address, name));
    page.samples.append(button);
  }
}

async function readSample(address: string, name: string): Promise<void> {
  try {
    const answer = await fetch(address);
    if (!answer.ok) throw new OrtcamError(`the server answers ${answer.status}`);
    await read(await answer.blob(), name);
  } catch (error) {
    showError(`${name} cannot be fetched: ${(error as Error).message}`);
  }
}

function listen(): void {
  page.file.addEventListener("change", () => {
    const file = page.file.files?.[0];
    page.file.value = ""; // the same file can be chosen again
    if (file !== undefined) void read(file, file.name);
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"] as const) {
    // Anywhere on the page: a picture that misses the area must not replace the page.
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      page.drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    });
  }
  document.addEventListener("drop", (event) => {
    const file = event.dataTransfer?.files[0];
    if (file !== undefined && !page.file.disabled) void read(file, file.name);
  });
  page.form.addEventListener("submit", (event) => {
    event.preventDefault();
    running = explain();
  });
  page.form.addEventListener("input", showCost);
  page.cancel.addEventListener("click", () => {
    page.status.textContent = "Cancelling …";
    client.cancel();
  });
  page.method.addEventListener("change", () => {
    page.count.value = String(DEFAULT_SAMPLES[page.method.value as MethodName] ?? page.count.value);
    showOptions();
  });
  page.opacity.addEventListener("input", () => {
    page.opacityValue.textContent = `${page.opacity.value} %`;
    stage.setOpacity(page.opacity.valueAsNumber / 100);
  });
  page.colormap.addEventListener("change", () => stage.setColormap(page.colormap.value as Colormap));
  element("save-overlay").addEventListener("click", () => void saveOverlay());
  element("save-map").addEventListener("click", saveMap);
  element("save-manifest").addEventListener("click", saveManifest);
}

page.colormap.replaceChildren(...COLORMAPS.map((name) => new Option(name, name)));
stage.setOpacity(page.opacity.valueAsNumber / 100);
listSamples();
listen();
await open();
showOptions();
