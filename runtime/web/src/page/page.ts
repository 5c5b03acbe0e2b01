/**
 * The page: wires the controls to the worker.
 *
 * For tests and other scripts the document's element says in `data-state` what goes on (loading, locked, empty, reading,
 * ready, explaining, explained, live, broken), and the document gets three events: `ortcam-preview` with a `Preview`,
 * `ortcam-explained` with an `Explained`, and `ortcam-frame` with an `ExplainedFrame` as its detail. The address may name
 * a bundle (`?bundle=`, a relative path), and what it runs by (`?provider=wasm`, or `webgpu` where the page was built
 * with it).
 */
import type { Limits } from "../scoring/budget";
import { listClasses } from "./classes";
import { Client, WorkerLostError } from "./client";
import { COLORMAPS } from "../images/colormaps";
import { OrtcamError, TokenError } from "../errors";
import type { Explained, Opened, ShownImage, Preview } from "../messages";
import { isMasked, TITLES, weighsByGradient } from "../methods/methods";
import { element, page, showPicture } from "./elements";
import { Live } from "./live";
import { showPrivacy } from "./privacy";
import { listSamples } from "./samples";
import { type Blend, DEFAULT_ALPHA } from "../images/rendering";
import type { Provider } from "../engine/session";
import { askedScore, offerScore, offerScoreFiles, readExpression, takeScoreFiles } from "./score";
import { saveManifest, saveMap, saveOverlay, type Subject } from "./saving";
import { accessTo, fetchSite, type Site, wantedBundle } from "./site";
import { offerMethods, readChoice, readLimits, readLook, showOptions, suggestSamples, wantedProvider } from "./settings";
import { Stage, strongestPart } from "./stage";
import { listenForImages } from "./taking";
import { askForToken, knownToken } from "./token";
import { costInWords, counted, errorInWords, outputsInWords, passesInWords, valueInWords } from "./words";

type State = "loading" | "locked" | "empty" | "reading" | "ready" | "explaining" | "explained" | "live" | "broken";

const CAMERA_FILE = "camera.png"; // its last frame

const client = new Client();
const stage = new Stage(element<HTMLCanvasElement>("photograph"), element<HTMLCanvasElement>("heatmap"));
const live = new Live({ client, stage, begun: showLive, failed: (error, frame) => void endLive(error, frame) });
let site: Site = { ortcam: null, bundles: [] };
let address = ""; // of the bundle that was opened last
let provider: Provider | null = null; // that which is left after WebGPU has failed
let opened: Opened | null = null;
let current: { readonly file: Blob; readonly name: string; readonly picture: ShownImage } | null = null;
let explained: Explained | null = null;
let said: [string, string] = ["", ""]; // of the map that is shown
let target = 0;
let turns = 0; // of whatever begins anew: of several that come at once the last one counts
let focused = false; // whether a control had the focus that may have vanished meanwhile
let running: Promise<void> = Promise.resolve(); // settles when the explanation that was started last has ended

function setState(state: State, status: string, passes = ""): void {
  document.documentElement.dataset["state"] = state;
  page.status.textContent = status;
  page.passes.textContent = passes;
  const open = state !== "loading" && state !== "locked" && state !== "broken";
  for (const part of [page.drop, page.form]) part.hidden = state === "locked";
  page.tokenForm.hidden = state !== "locked";
  for (const input of [page.file, page.cameraFile]) input.disabled = !open;
  for (const button of page.samples.querySelectorAll("button")) button.disabled = !open;
  if (opened !== null) showPrivacy(site, state === "live");
  page.live.hidden = opened?.takesCamera !== true;
  page.live.disabled = !open || state === "reading";
  page.live.textContent = state === "live" ? "Stop the camera" : "Use the camera";
  page.followField.hidden = state !== "live";
  page.stop.hidden = state !== "explaining";
  page.progress.hidden = state !== "explaining";
  page.refine.hidden = state !== "ready" && (state !== "explained" || explained === null || explained.error === 0);
  page.refine.textContent = state === "ready" ? "Explain" : "Make it exact";
  page.appearance.hidden = current === null && state !== "live";
  for (const button of page.downloads) button.disabled = state !== "explained";
}

function showError(message: string | null): void {
  page.error.hidden = message === null;
  page.error.textContent = message;
}

/** Where the page stands once nothing runs any more. */
function settle(status: string, passes = ""): void {
  if (opened === null) setState("broken", status, passes);
  else if (current === null) {
    showPicture(false);
    setState("empty", status, passes);
  } else setState(explained === null ? "ready" : "explained", status, passes);
}

/** Show what went wrong and leave the page as it can go on from: with a new worker where the old one is lost. */
async function recover(error: unknown, kept: Pick<NonNullable<typeof current>, "file" | "name"> | null = current): Promise<void> {
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof TokenError) {
    await unlock("The server asks for another token by now.");
    return openAgain();
  }
  if (error instanceof OrtcamError) {
    const [status, passes] = explained === null ? ["", ""] : said;
    settle(status, passes);
    showError(text);
    return;
  }
  if (!(error instanceof WorkerLostError)) console.error(error);
  [current, explained] = [null, null];
  client.restart();
  if (opened?.provider === "webgpu") provider = "wasm";
  if (opened !== null) await open();
  if (kept !== null && opened !== null) await read(kept.file, kept.name, { explains: false });
  showError(`That did not work, and the computation was started again: ${text}`);
}

async function open(): Promise<void> {
  await live.stop();
  setState("loading", "Loading the model …");
  opened = null;
  try {
    const wanted = wantedBundle(site, page.bundle.selectedIndex);
    const { offer } = wanted;
    const isOther = address !== wanted.address;
    address = wanted.address;
    listSamples(offer?.samples ?? [], { read, showError });
    page.modelName.textContent = offer?.name ?? address.split("/").at(-2) ?? "";
    const asks = { address, provider: provider ?? wantedProvider(), version: site.ortcam, server: accessTo(site, offer) };
    opened = await client.ask("open", asks);
    if (isOther) offerScore(opened);
    offerScoreFiles(opened);
  } catch (error) {
    setState("broken", "");
    showError(error instanceof OrtcamError ? error.message : `The computation did not start: ${String(error)}`);
    return;
  }
  const { model, mapSize, runs, notes, takesArrays } = opened;
  const [height, width] = mapSize;
  const version = site.ortcam === null ? "ortcam" : `ortcam ${site.ortcam}`;
  const sees = `${model}: ${outputsInWords(opened)}, sees ${width} × ${height} pixels, ${counted(opened.channels)} channels.`;
  page.engine.textContent = [sees, `${version} runs ${runs}.`, ...notes].join(" ");
  page.file.accept = takesArrays ? "image/*,.npy" : "image/*";
  offerMethods(opened);
  showOptions(opened);
  showClasses();
  settle("");
}

/** Show, classify and explain an image; of several that come at once the last one counts. */
async function read(file: Blob, name: string, { explains = true } = {}): Promise<void> {
  const turn = ++turns;
  await Promise.all([stopped(), live.stop()]);
  showError(null);
  setState("reading", `Reading ${name} …`);
  try {
    const picture = await client.ask("read", { file, name });
    if (turn !== turns) return;
    current = { file, name, picture };
    explained = null;
    target = picture.probabilities.reduce((best, value, i, all) => (value > all[best] ? i : best), 0);
    stage.showImage(picture, name);
    showPicture(true);
    page.search.value = "";
    showClasses();
    settle("");
    if (explains) await explain();
  } catch (error) {
    await recover(error);
  }
}

/** Ask for a camera, and explain what it sees until it is stopped. */
async function startLive(id: string | null = null): Promise<void> {
  const turn = ++turns;
  await Promise.all([stopped(), live.stop()]);
  if (turn !== turns || opened === null) return;
  showError(null);
  live.score = askedScore();
  setState("reading", "Waiting for the camera …");
  try {
    await live.start(opened, id);
    if (turn !== turns) await live.stop();
  } catch (error) {
    if (turn === turns) await recover(error);
  }
}

function showLive(): void {
  [current, explained] = [null, null];
  showPicture(true);
  setState("live", "");
}

/** Stop the camera, and go on with its last frame as an image. @param why it was stopped, where nobody asked for it */
async function stopLive(why = ""): Promise<void> {
  page.live.disabled = true;
  const frame = await live.stop();
  if (frame === null) settle("");
  else await read(frame, CAMERA_FILE, { explains: why === "" });
  if (why !== "") page.status.textContent = why;
}

/** Go on without the camera, with its last frame where there is one. */
async function endLive(error: unknown, frame: Blob | null): Promise<void> {
  if (frame !== null && error instanceof OrtcamError) await read(frame, CAMERA_FILE, { explains: false });
  await recover(error, frame === null ? current : { file: frame, name: CAMERA_FILE });
  if (frame !== null) page.status.textContent = "The camera is off.";
}

/** End the explanation that runs, if one does. */
async function stopped(): Promise<void> {
  if (document.documentElement.dataset["state"] !== "explaining") return;
  client.cancel();
  await running;
}

/** Explain the chosen class with the chosen settings, from what is known of the image on. */
async function explain(limits = readLimits()): Promise<void> {
  if (live.isOn) return; // the next frame is explained with what is set now
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
  const { choice, chosen } = readChoice(opened.auto);
  const expression = readExpression();
  const label = expression ?? opened.labels[target];
  const title = TITLES[choice.method];
  explained = null;
  focused = document.activeElement !== document.body;
  const quick = choice.method === "grad-attention" || (weighsByGradient(choice) && !("samples" in choice));
  if (!quick) stage.clearMap(); // else another replaces it before anyone reads what is said
  stage.describe(`${name}; the heatmap is being computed`);
  showError(null);
  page.progress.removeAttribute("value");
  setState("explaining", (quick && page.status.textContent) || `Explaining ${label} …`);
  try {
    explained = await client.ask("explain", { choice, chosen, ...askedScore(), target, limits }, (preview) => showPreview(preview, isMasked(choice)));
    if (explained === null) {
      stage.clearMap();
      stage.describe(`${name}, without a heatmap`);
      settle("Stopped before there was a map.");
    } else {
      stage.showMap(explained.map, explained.cells);
      const kind = expression !== null ? "score" : opened.areProbabilities ? "class" : "output";
      const where = explained.flat ? `nothing speaks for this ${kind}` : `strongest ${strongestPart(explained.map)}`;
      stage.describe(`${name} with the heatmap of ${label} by ${title}, ${where}`);
      const { cost, error, seconds, value } = explained;
      const took = cost === null ? `${errorInWords(error)} · ${passesInWords(explained)}` : costInWords(title, cost, seconds);
      const worth = value === null ? [] : [`it is ${valueInWords(value.is, false)} for this image`];
      const how = [...worth, took, ...explained.notes].join(" · ");
      said = [`${label}: ${where}.`, how];
      settle(...said);
      document.dispatchEvent(new CustomEvent("ortcam-explained", { detail: explained }));
    }
  } catch (error) {
    stage.clearMap();
    await recover(error);
  }
  if (focused && document.activeElement === document.body) {
    (page.refine.hidden ? page.method : page.refine).focus({ preventScroll: true });
  }
}

function showPreview(preview: Preview, masked: boolean): void {
  page.progress.max = Math.max(preview.total, 1);
  page.progress.value = preview.passes;
  page.passes.textContent = [...(masked ? [errorInWords(preview.error)] : []), passesInWords(preview)].join(" · ");
  if (preview.map !== null && opened !== null) stage.showMap(preview.map, opened.cells);
  document.dispatchEvent(new CustomEvent("ortcam-preview", { detail: preview }));
}

/** The classes that the model knows: with their probabilities, and to choose from, once there is an image. */
function showClasses(): void {
  if (opened !== null && live.isOn) live.list(opened);
  else if (opened !== null) listClasses(opened, current?.picture.probabilities ?? null, readExpression() === null ? target : -1);
}

/** What is saved now. */
function subject(): Subject {
  const method = String(explained?.manifest["method"]);
  const label = readExpression() === null ? (opened?.labels[target] ?? "") : "score";
  return { image: current?.name ?? "image", method, label };
}

function listenForSettings(): void {
  page.form.addEventListener("submit", (event) => event.preventDefault());
  page.form.addEventListener("change", (event) => {
    const changed = event.target as HTMLInputElement;
    if (changed === page.search || changed.id === "colormap" || changed.id === "blend") return;
    if (changed.name === "target") target = Number(changed.value);
    if (changed.name === "target" && readExpression() !== null) page.score.value = ""; // which names its classes itself
    if (changed === page.scoreFiles) takeScoreFiles();
    offerScoreFiles(opened);
    live.score = askedScore();
    if (changed === page.score) showClasses();
    if (live.isOn && changed.name === "target") live.pin(target);
    if (changed === page.follow) live.pin(page.follow.checked ? null : live.target);
    if (changed.id === "method") suggestSamples();
    showOptions(opened);
    void explain();
  });
  page.search.addEventListener("input", showClasses);
  page.score.addEventListener("input", () => offerScoreFiles(opened));
  page.stop.addEventListener("click", () => {
    focused = true;
    page.status.textContent = "Stopping …";
    client.cancel();
  });
  page.refine.addEventListener("click", () => {
    const exact = document.documentElement.dataset["state"] === "explained";
    void explain(exact ? { budget: null, tolerance: null } : readLimits());
  });
  page.bundle.addEventListener("change", () => void stopped().then(openAgain));
}

function listenForCamera(): void {
  page.live.addEventListener("click", (event) => {
    event.stopPropagation(); // the area around it chooses a file
    void (live.isOn ? stopLive() : startLive());
  });
  page.cameras.addEventListener("change", () => void startLive(page.cameras.value));
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && live.isOn) void stopLive("The camera was stopped because the page was hidden.");
  });
  addEventListener("pagehide", () => void live.stop());
}

/** Open the bundle that is wanted, and read the picture that is there with it. */
async function openAgain(): Promise<void> {
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
  element("save-overlay").addEventListener("click", () => {
    void client.ask("overlay", readLook()).then((file) => saveOverlay(file, subject()), recover);
  });
  element("save-map").addEventListener("click", () => explained !== null && saveMap(explained.map, subject()));
  element("save-manifest").addEventListener("click", () => explained !== null && saveManifest(explained.manifest, subject()));
  page.colormap.replaceChildren(...COLORMAPS.map((name) => new Option(name, name)));
  look();
}

/** Ask for a token until the server takes it. @param why shown beside the question; empty where it needs no reason */
async function unlock(why: string): Promise<void> {
  for (let said = why; ; ) {
    setState("locked", "");
    showError(said === "" ? null : said);
    await askForToken();
    showError(null);
    try {
      site = await fetchSite(knownToken());
      return;
    } catch (error) {
      said = (error as Error).message;
    }
  }
}

async function begin(): Promise<void> {
  setState("loading", "Loading the model …");
  try {
    site = await fetchSite(knownToken());
  } catch (error) {
    if (!(error instanceof TokenError)) {
      setState("broken", "");
      showError((error as Error).message);
      return;
    }
    await unlock(error.message);
  }
  showPrivacy(site, false);
  page.bundle.replaceChildren(...site.bundles.map(({ name }) => new Option(name)));
  const chooses = site.bundles.length > 1 && !new URL(location.href).searchParams.has("bundle");
  page.model.hidden = !chooses;
  page.modelName.hidden = chooses;
  await open();
}

listenForImages((file, name) => void read(file, name), () => current === null && !live.isOn);
listenForSettings();
listenForCamera();
listenForLooks();
showOptions(null);
await begin();
