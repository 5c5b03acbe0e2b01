/**
 * The page: wires the controls to the worker.
 *
 * For tests and other scripts the document's element says in `data-state` what goes on (loading, empty, reading, ready,
 * explaining, explained, broken), and the document gets two events: `ortcam-preview` with a `Preview`, and
 * `ortcam-explained` with an `Explained` as its detail. The address may name a bundle (`?bundle=`, a relative path),
 * and what it runs by (`?provider=wasm`, or `webgpu` where the page was built with it).
 */
import { bundleAddress } from "../engine/bundle";
import type { Limits } from "../scoring/budget";
import { Client, WorkerLostError } from "./client";
import { COLORMAPS } from "../images/colormaps";
import { OrtcamError } from "../errors";
import type { Explained, Opened, ShownImage, Preview } from "../messages";
import { TITLES } from "../scoring/methods";
import { element, page } from "./elements";
import { encodeNpy } from "./npy";
import { type Blend, DEFAULT_ALPHA } from "../images/rendering";
import type { Provider } from "../engine/session";
import { fetchSite, type Offer, type Site } from "./site";
import { offerGates, readChoice, readLimits, readLook, showOptions, suggestSamples, wantedProvider } from "./settings";
import { Stage, strongestPart } from "./stage";
import { counted, errorInWords, passesInWords, percent } from "./words";

type State = "loading" | "empty" | "reading" | "ready" | "explaining" | "explained" | "broken";

const MOST_ROWS = 10; // classes in the list; the others are found by their names

const client = new Client();
const stage = new Stage(element<HTMLCanvasElement>("photograph"), element<HTMLCanvasElement>("heatmap"));
let site: Site = { ortcam: null, bundles: [] };
let provider: Provider | null = null; // that which is left after WebGPU has failed
let opened: Opened | null = null;
let current: { readonly file: Blob; readonly name: string; readonly picture: ShownImage } | null = null;
let explained: Explained | null = null;
let said: [string, string] = ["", ""]; // of the map that is shown
let target = 0;
let turns = 0; // of whatever begins anew: of several that come at once the last one counts
let running: Promise<void> = Promise.resolve(); // settles when the explanation that was started last has ended

function setState(state: State, status: string, passes = ""): void {
  document.documentElement.dataset["state"] = state;
  page.status.textContent = status;
  page.passes.textContent = passes;
  const open = state !== "loading" && state !== "broken";
  for (const input of [page.file, page.cameraFile]) input.disabled = !open;
  for (const button of page.samples.querySelectorAll("button")) button.disabled = !open;
  page.stop.hidden = state !== "explaining";
  page.progress.hidden = state !== "explaining";
  page.refine.hidden = state !== "ready" && (state !== "explained" || explained === null || explained.error === 0);
  page.refine.textContent = state === "ready" ? "Explain" : "Make it exact";
  page.appearance.hidden = current === null;
  for (const button of page.downloads) button.disabled = state !== "explained";
}

function showError(message: string | null): void {
  page.error.hidden = message === null;
  page.error.textContent = message;
}

/** Where the page stands once nothing runs any more. */
function settle(status: string, passes = ""): void {
  if (opened === null) setState("broken", status, passes);
  else if (current === null) setState("empty", status, passes);
  else setState(explained === null ? "ready" : "explained", status, passes);
}

/** Show what went wrong and leave the page as it can go on from: with a new worker where the old one is lost. */
async function recover(error: unknown): Promise<void> {
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof OrtcamError) {
    const [status, passes] = explained === null ? ["", ""] : said;
    settle(status, passes);
    showError(text);
    return;
  }
  if (!(error instanceof WorkerLostError)) console.error(error);
  const kept = current;
  [current, explained] = [null, null];
  client.restart();
  if (opened?.provider === "webgpu") provider = "wasm";
  if (opened !== null) await open();
  if (kept !== null && opened !== null) await read(kept.file, kept.name, { explains: false });
  showError(`That did not work, and the computation was started again: ${text}`);
}

/** The bundle that the address asks for, or that is chosen. */
function wantedBundle(): { address: string; offer: Offer | null } {
  const offer = site.bundles.at(Math.max(page.bundle.selectedIndex, 0)) ?? null;
  const asked = new URL(location.href).searchParams.has("bundle");
  const shipped = offer?.address ?? "shapes.ortcam";
  return { address: bundleAddress(new URL(location.href), shipped), offer: asked ? null : offer };
}

async function open(): Promise<void> {
  setState("loading", "Loading the model …");
  opened = null;
  try {
    const { address, offer } = wantedBundle();
    listSamples(offer?.samples ?? []);
    page.modelName.textContent = offer?.name ?? address.split("/").at(-2) ?? "";
    const asks = { address, provider: provider ?? wantedProvider(), version: site.ortcam };
    opened = await client.ask("open", asks);
  } catch (error) {
    setState("broken", "");
    showError(error instanceof OrtcamError ? error.message : `The computation did not start: ${String(error)}`);
    return;
  }
  const { model, labels, mapSize, threads, notes } = opened;
  const [height, width] = mapSize;
  const runs =
    opened.provider === "webgpu" ? "WebGPU" : `WebAssembly in ${threads} ${threads === 1 ? "thread" : "threads"}`;
  const version = site.ortcam === null ? "ortcam" : `ortcam ${site.ortcam}`;
  const sees = `${model}: ${counted(labels.length)} classes, sees ${width} × ${height} pixels, ${counted(opened.channels)} channels.`;
  page.engine.textContent = [sees, `${version} runs as ${runs}.`, ...notes].join(" ");
  offerGates(opened.scorers);
  showClasses();
  settle("");
}

/** Show, classify and explain an image; of several that come at once the last one counts. */
async function read(file: Blob, name: string, { explains = true } = {}): Promise<void> {
  const turn = ++turns;
  await stopped();
  showError(null);
  setState("reading", `Reading ${name} …`);
  try {
    const picture = await client.ask("read", { file, name });
    if (turn !== turns) return;
    current = { file, name, picture };
    explained = null;
    target = picture.probabilities.reduce((best, value, i, all) => (value > all[best] ? i : best), 0);
    stage.showImage(picture, name);
    page.invitation.hidden = true;
    page.picture.hidden = false;
    page.drop.classList.add("full");
    page.choose.textContent = "Choose another";
    page.tryTitle.textContent = "Try another:";
    page.search.value = "";
    showClasses();
    settle("");
    if (explains) await explain();
  } catch (error) {
    await recover(error);
  }
}

/** End the explanation that runs, if one does. */
async function stopped(): Promise<void> {
  if (document.documentElement.dataset["state"] !== "explaining") return;
  client.cancel();
  await running;
}

/** Explain the chosen class with the chosen settings, from what is known of the image on. */
async function explain(limits = readLimits()): Promise<void> {
  if (document.documentElement.dataset["state"] === "reading") return; // an explanation follows that
  const turn = ++turns;
  await stopped();
  if (turn !== turns || current === null || opened === null || !page.form.checkValidity()) return;
  running = run(limits);
  await running;
}

async function run(limits: Limits): Promise<void> {
  if (current === null || opened === null) return;
  const { name } = current;
  const choice = readChoice();
  const label = opened.labels[target];
  const title = TITLES[choice.method];
  explained = null;
  stage.clearMap();
  stage.describe(`${name}; the heatmap is being computed`);
  showError(null);
  page.progress.removeAttribute("value");
  setState("explaining", `Explaining ${label} …`);
  try {
    explained = await client.ask("explain", { choice, target, limits }, showPreview);
    if (explained === null) {
      stage.describe(`${name}, without a heatmap`);
      settle("Stopped before there was a map.");
    } else {
      stage.showMap(explained.map, opened.cells);
      const where = explained.flat ? "nothing speaks for this class" : `strongest ${strongestPart(explained.map)}`;
      stage.describe(`${name} with the heatmap of ${label} by ${title}, ${where}`);
      said = [`${label}: ${where}.`, `${errorInWords(explained.error)} · ${passesInWords(explained)}`];
      settle(...said);
      document.dispatchEvent(new CustomEvent("ortcam-explained", { detail: explained }));
    }
  } catch (error) {
    stage.clearMap();
    await recover(error);
  }
  if (document.activeElement === document.body) {
    (page.refine.hidden ? page.method : page.refine).focus({ preventScroll: true });
  }
}

function showPreview(preview: Preview): void {
  page.progress.max = Math.max(preview.total, 1);
  page.progress.value = preview.passes;
  page.passes.textContent = `${errorInWords(preview.error)} · ${passesInWords(preview)}`;
  if (preview.map !== null && opened !== null) stage.showMap(preview.map, opened.cells);
  document.dispatchEvent(new CustomEvent("ortcam-preview", { detail: preview }));
}

/** The classes that the model knows: with their probabilities, and to choose from, once there is an image. */
function showClasses(): void {
  if (opened === null) return;
  const { labels } = opened;
  const probabilities = current?.picture.probabilities ?? null;
  const focused = page.classes.contains(document.activeElement);
  const wanted = page.search.value.trim().toLowerCase();
  page.search.hidden = labels.length <= MOST_ROWS;
  let order = [...labels.keys()];
  if (probabilities !== null) order.sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  if (wanted !== "") order = order.filter((index) => labels[index].toLowerCase().includes(wanted));
  const shown = order.slice(0, MOST_ROWS);
  if (probabilities !== null && wanted === "" && !shown.includes(target)) shown.push(target);
  page.classes.replaceChildren(...shown.map((index) => classRow(index, probabilities)));
  page.classes.toggleAttribute("data-explainable", probabilities !== null);
  page.classesHelp.textContent =
    probabilities === null ? `This model knows ${counted(labels.length)} classes.` : "Click a class to see what speaks for it.";
  const others = order.length - shown.length;
  page.more.textContent = shown.length === 0 ? "No class has that in its name." : others > 0 ? `and ${counted(others)} more` : "";
  if (focused) page.classes.querySelector<HTMLInputElement>("input:checked")?.focus();
}

function classRow(index: number, probabilities: Float32Array | null): HTMLElement {
  const row = document.createElement("li");
  const label = document.createElement("span");
  label.textContent = opened?.labels[index] ?? "";
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

function save(content: BlobPart, type: string, ending: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  const label = (opened?.labels[target] ?? "").replace(/[^\p{L}\p{N}]+/gu, "-");
  link.download = `${current?.name.replace(/\.[^.]*$/, "") ?? "image"}-${explained?.manifest["method"]}-${label}${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function saveOverlay(): Promise<void> {
  try {
    save(await client.ask("overlay", readLook()), "image/png", ".png");
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
  save(`${JSON.stringify({ ...explained.manifest, rendering: readLook() }, null, 1)}\n`, "application/json", ".json");
}

function listSamples(addresses: readonly string[]): void {
  page.try.hidden = addresses.length === 0;
  page.samples.replaceChildren(
    ...addresses.map((address) => {
      const name = decodeURIComponent(address.split("/").pop() ?? address);
      const button = document.createElement("button");
      button.type = "button";
      button.append(Object.assign(new Image(), { src: address, alt: name.replace(/\.\w+$/, "").replace(/-/g, " ") }));
      button.addEventListener("click", () => void readSample(address, name));
      return button;
    }),
  );
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

function listenForImages(): void {
  for (const input of [page.file, page.cameraFile]) {
    input.addEventListener("change", () => {
      const file = input.files?.[0];
      input.value = ""; // the same file can be chosen again
      if (file !== undefined) void read(file, file.name);
    });
  }
  page.drop.addEventListener("click", () => {
    if (current === null) page.file.click();
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"] as const) {
    // Anywhere on the page: an image that misses the area must not replace the page.
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      page.drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    });
  }
  const take = (data: DataTransfer | null): void => {
    const file = data?.files[0];
    if (file !== undefined && !page.file.disabled) void read(file, file.name);
  };
  document.addEventListener("drop", (event) => take(event.dataTransfer));
  document.addEventListener("paste", (event) => take(event.clipboardData));
}

function listenForSettings(): void {
  page.form.addEventListener("submit", (event) => event.preventDefault());
  page.form.addEventListener("change", (event) => {
    const changed = event.target as HTMLInputElement;
    if (changed === page.search || changed.id === "colormap" || changed.id === "blend") return;
    if (changed.name === "target") target = Number(changed.value);
    if (changed.id === "method") suggestSamples();
    showOptions();
    void explain();
  });
  page.search.addEventListener("input", showClasses);
  page.stop.addEventListener("click", () => {
    page.status.textContent = "Stopping …";
    client.cancel();
  });
  page.refine.addEventListener("click", () => {
    const exact = document.documentElement.dataset["state"] === "explained";
    void explain(exact ? { budget: null, tolerance: null } : readLimits());
  });
  page.bundle.addEventListener("change", () => void changeBundle());
}

async function changeBundle(): Promise<void> {
  await stopped();
  const kept = current;
  [current, explained] = [null, null];
  await open();
  if (kept !== null && opened !== null) await read(kept.file, kept.name);
}

function listenForLooks(): void {
  const look = (): void => {
    page.opacityValue.textContent = `${page.opacity.value} %`;
    stage.setLook(readLook());
  };
  page.opacity.addEventListener("input", look);
  page.colormap.addEventListener("change", look);
  page.blend.addEventListener("change", () => {
    page.opacity.value = String(100 * DEFAULT_ALPHA[page.blend.value as Blend]);
    look();
  });
  element("save-overlay").addEventListener("click", () => void saveOverlay());
  element("save-map").addEventListener("click", saveMap);
  element("save-manifest").addEventListener("click", saveManifest);
  page.colormap.replaceChildren(...COLORMAPS.map((name) => new Option(name, name)));
  look();
}

async function begin(): Promise<void> {
  setState("loading", "Loading the model …");
  try {
    site = await fetchSite();
  } catch (error) {
    setState("broken", "");
    showError((error as Error).message);
    return;
  }
  page.bundle.replaceChildren(...site.bundles.map(({ name }) => new Option(name)));
  const chooses = site.bundles.length > 1 && !new URL(location.href).searchParams.has("bundle");
  page.model.hidden = !chooses;
  page.modelName.hidden = chooses;
  await open();
}

listenForImages();
listenForSettings();
listenForLooks();
showOptions();
await begin();
