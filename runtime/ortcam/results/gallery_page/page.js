"use strict";
// Every result is a block of JSON that is parsed when it is first looked at, so that a page of 1,000 images opens at once.
const $ = (id) => document.getElementById(id);
const parsed = (node) => (node ? JSON.parse(node.textContent) : null);
const settings = parsed($("settings"));
const images = parsed($("list"));
const photographs = [...document.querySelectorAll("script.photograph")];
const results = [...document.querySelectorAll("script.result")];
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const tables = Object.fromEntries(Object.entries(settings.colours).map(([name, text]) => [name, bytes(text)]));

const kept = new Map();
function remember(key, most, make) {
  if (!kept.has(key)) {
    const same = [...kept.keys()].filter((other) => other[0] === key[0]);
    if (same.length >= most) kept.delete(same[0]);
    kept.set(key, make());
  }
  return kept.get(key);
}
const result = (n) => remember(`r${n}`, 200, () => parsed(results[n]));
const photograph = (n) =>
  remember(`p${n}`, 80, () =>
    n === null
      ? Promise.resolve(null)
      : new Promise((done) => {
          const image = new Image();
          image.onload = () => done(image);
          image.onerror = () => done(null);
          image.src = parsed(photographs[n]).data;
        }),
  );

const state = { shown: images.map((_, n) => n), at: 0, method: null, place: 0, alone: false };
const colours = { table: tables[settings.colormap], alpha: settings.alpha };

function rise(level) {
  const t = Math.min(1, Math.max(0, (level / 255 - settings.begin) / (settings.full - settings.begin)));
  return colours.alpha * t * t * (3 - 2 * t);
}

// Draws a map over a photograph as `ortcam.images.rendering.draw_map` does.
function draw(canvas, image, found, place, width) {
  const [height0, width0] = found.size;
  canvas.width = Math.max(1, Math.round(width));
  canvas.height = Math.max(1, Math.round((width * height0) / width0));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  if (image) context.drawImage(image, 0, 0, canvas.width, canvas.height);
  else {
    context.fillStyle = "#8a8f98";
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  if (place === null) return;
  const [top, left, bottom, right] = found.crop.map((at, n) => Math.round(at * (n % 2 ? canvas.width : canvas.height)));
  const [rows, columns] = found.map_size;
  const small = new OffscreenCanvas(columns, rows);
  const levels = bytes(found.classes[place].map);
  const grey = new ImageData(columns, rows);
  for (let n = 0; n < levels.length; n++) grey.data.set([levels[n], levels[n], levels[n], 255], 4 * n);
  small.getContext("2d").putImageData(grey, 0, 0);
  const large = new OffscreenCanvas(canvas.width, canvas.height);
  const laid = large.getContext("2d", { willReadFrequently: true });
  laid.imageSmoothingQuality = "high";
  laid.drawImage(small, left, top, right - left, bottom - top);
  const map = laid.getImageData(0, 0, canvas.width, canvas.height).data;
  const picture = context.getImageData(0, 0, canvas.width, canvas.height);
  const data = picture.data;
  const opacity = Float32Array.from({ length: 256 }, (_, level) => rise(level));
  for (let n = 0; n < data.length; n += 4) {
    const x = (n / 4) % canvas.width, y = (n / 4 - x) / canvas.width;
    if (x < left || x >= right || y < top || y >= bottom) {
      const light = settings.grey * (0.299 * data[n] + 0.587 * data[n + 1] + 0.114 * data[n + 2]);
      for (let c = n; c < n + 3; c++) data[c] = settings.dim * ((1 - settings.grey) * data[c] + light);
    } else {
      const a = opacity[map[n]], colour = 3 * map[n];
      for (let c = 0; c < 3; c++) data[n + c] += a * (colours.table[colour + c] - data[n + c]);
    }
  }
  context.putImageData(picture, 0, 0);
  if (top > 0 || left > 0 || bottom < canvas.height || right < canvas.width) {
    const line = Math.max(1, Math.round(Math.min(canvas.width, canvas.height) / 500));
    for (const [reach, colour] of [[1.5 * line, "#202020"], [0.5 * line, "#ffffff"]]) {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.strokeRect(left - reach, top - reach, right - left + 2 * reach, bottom - top + 2 * reach);
    }
  }
}

function element(tag, text, parent) {
  const node = document.createElement(tag);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

const percent = (p) => (p >= 0.001 ? `${(100 * p).toFixed(1)}%` : "below 0.1%");
const valueOf = (one) => one.value ?? percent(one.probability);  // a score or an output is no probability

// The tiles: made once, drawn when they come into view.
document.querySelector("main").classList.toggle("single", images.length === 1);
const tiles = images.map((image, n) => {
  const tile = document.createElement("button");
  tile.type = "button";
  tile.className = "tile";
  element("canvas", null, tile);
  element("b", image.name, tile);
  element("span", image.label, tile);
  tile.title = image.name;
  tile.addEventListener("click", () => {
    go(state.shown.indexOf(n));
    if (matchMedia("(max-width: 1100px)").matches) $("stage").scrollIntoView({ behavior: "smooth", block: "start" });
  });
  return tile;
});
const waiting = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) drawTile(tiles.indexOf(entry.target));
}, { rootMargin: "200px" });
async function drawTile(n) {
  waiting.unobserve(tiles[n]);
  const found = result(images[n].results[chosen(n)]);
  const picture = await photograph(images[n].photograph);
  const canvas = tiles[n].firstChild;
  const whole = document.createElement("canvas");
  const [height, width] = found.size;
  const scale = Math.max(220 / width, 168 / height);
  draw(whole, picture, found, 0, Math.min(width * scale, 900));
  canvas.width = 220;
  canvas.height = 168;
  // As much of it as the tile shows, around its centre.
  const part = Math.min(whole.width / 220, whole.height / 168);
  canvas.getContext("2d").drawImage(whole, (whole.width - 220 * part) / 2, (whole.height - 168 * part) / 2, 220 * part, 168 * part, 0, 0, 220, 168);
}
function drawTilesAnew() {
  waiting.disconnect();
  for (const n of state.shown) waiting.observe(tiles[n]);
}

// The place of the chosen method among those of an image.
function chosen(n) {
  const at = images[n].methods.indexOf(state.method);
  return at < 0 ? 0 : at;
}

const current = () => (state.shown.length ? state.shown[state.at] : null);

function go(at) {
  if (!state.shown.length) return;
  state.at = (at + state.shown.length) % state.shown.length;
  state.place = 0;
  show();
  tiles[current()].scrollIntoView({ block: "nearest", inline: "nearest" });
}

let turn = 0;
async function show() {
  const n = current();
  const mine = ++turn;
  $("stage").hidden = $("facts").hidden = n === null;
  if (n === null) return;
  const image = images[n], found = result(image.results[chosen(n)]);
  state.place = Math.min(state.place, found.classes.length - 1);
  const picture = await photograph(image.photograph);
  if (mine !== turn) return;
  tiles.forEach((tile, other) => tile.setAttribute("aria-current", String(other === n)));
  $("name").textContent = image.name;
  $("about").textContent = `${found.model} · ${found.size[1]} × ${found.size[0]} pixels`;
  $("place").textContent = `${state.at + 1} of ${state.shown.length}`;
  $("previous").disabled = $("next").disabled = state.shown.length < 2;
  drawLarge(picture, found);
  listClasses(found);
  listMethods(image, picture);
  const { crop } = found;
  $("unseen").hidden = crop[0] <= 0.0001 && crop[1] <= 0.0001 && crop[2] >= 0.9999 && crop[3] >= 0.9999;
  $("missing").hidden = image.photograph !== null;
  listLinks(image, found);
}

function drawLarge(picture, found) {
  const [height, width] = found.size;
  const room = $("frame").clientWidth - 18, tall = Math.max(260, innerHeight * (innerWidth > 700 ? 0.62 : 0.5));
  const shown = Math.max(1, Math.min(room, (tall * width) / height, innerWidth));
  const density = Math.min(devicePixelRatio || 1, 2);
  const place = state.alone ? null : state.place;
  draw($("large"), picture, found, place, Math.min(shown * density, 1600));
  $("large").style.width = `${shown}px`;
  const one = found.classes[state.place];
  $("large").setAttribute("aria-label", place === null ? "the photograph" : `${found.title} for ${one.label}, ${valueOf(one)}`);
  $("flat").hidden = !one.flat;
}

function listClasses(found) {
  $("classes").replaceChildren();
  found.classes.forEach((one, place) => {
    const button = element("button", null, $("classes"));
    button.type = "button";
    element("b", one.label, button);
    element("span", valueOf(one), button).title = one.of ?? `class ${one.index}`;
    if (one.value === undefined) element("i", null, button).style.width = `${100 * one.probability}%`;
    button.setAttribute("aria-pressed", String(place === state.place));
    button.addEventListener("click", () => { state.place = place; show(); });
  });
}

function listMethods(image, picture) {
  $("methods").replaceChildren();
  const label = result(image.results[chosen(current())]).classes[state.place].index;
  image.results.forEach((number, at) => {
    const found = result(number);
    const button = element("button", null, $("methods"));
    button.type = "button";
    const place = found.classes.findIndex((one) => one.index === label);
    if (image.results.length > 1) draw(element("canvas", null, button), picture, found, place < 0 ? null : place, 260);
    element("b", image.methods[at], button);
    for (const note of found.notes) element("span", note, button);
    if (place < 0) element("span", "this class not explained", button);
    button.setAttribute("aria-pressed", String(at === chosen(current())));
    button.addEventListener("click", () => {
      state.method = image.methods[at];
      state.place = Math.max(place, 0);
      show();
    });
  });
}

function listLinks(image, found) {
  $("links").replaceChildren();
  if (found.place !== undefined) {  // a row of a batch, beside which nothing is saved
    $("links").textContent = found.place;
    return;
  }
  const link = (path, text) => {
    if ($("links").childNodes.length) $("links").append(" · ");
    const a = element("a", text, $("links"));
    a.href = path;
  };
  const folder = found.folder ? `${found.folder}/` : "";
  if (image.sheet) link(image.sheet, "sheet");
  link(`${folder}class-${found.classes[state.place].index}-overlay.png`, "overlay");
  link(`${folder}manifest.json`, "manifest");
}

function filter() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const before = current();
  state.shown = images.map((_, n) => n).filter((n) => words.every((word) => images[n].words.includes(word)));
  $("images").replaceChildren(...(images.length > 1 ? state.shown.map((n) => tiles[n]) : []));
  if (!state.shown.length) element("p", "No image matches.", $("images")).className = "empty";
  $("count").textContent = state.shown.length === images.length ? settings.count : `${state.shown.length} of ${settings.count}`;
  drawTilesAnew();
  state.at = Math.max(0, state.shown.indexOf(before));
  show();
}

function recolour() {
  colours.table = tables[$("colours").value];
  colours.alpha = $("opacity").value / 100;
  $("percent").textContent = `${$("opacity").value}%`;
  const bar = $("bar").getContext("2d"), line = new ImageData(256, 1);
  for (let level = 0; level < 256; level++) {
    line.data.set([...colours.table.subarray(3 * level, 3 * level + 3), 255 * rise(level)], 4 * level);
  }
  bar.putImageData(line, 0, 0);
  drawTilesAnew();
  show();
}

let stepping = 0;
function soon(what) {
  cancelAnimationFrame(stepping);
  stepping = requestAnimationFrame(what);
}

for (const name of Object.keys(tables)) element("option", name, $("colours")).value = name;
$("colours").value = settings.colormap;
$("opacity").value = Math.round(100 * settings.alpha);
$("previous").addEventListener("click", () => go(state.at - 1));
$("next").addEventListener("click", () => go(state.at + 1));
$("filter").addEventListener("input", filter);
$("opacity").addEventListener("input", () => soon(recolour));
$("colours").addEventListener("change", recolour);
addEventListener("resize", () => soon(show));
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const n = current();
  if (n === null) return;
  const classes = result(images[n].results[chosen(n)]).classes.length;
  const acts = {
    ArrowLeft: () => go(state.at - 1),
    ArrowRight: () => go(state.at + 1),
    ArrowUp: () => { state.place = (state.place + classes - 1) % classes; show(); },
    ArrowDown: () => { state.place = (state.place + 1) % classes; show(); },
    m: () => { state.method = images[n].methods[(chosen(n) + 1) % images[n].methods.length]; show(); },
    " ": () => { if (!state.alone) { state.alone = true; show(); } },
  };
  if (acts[event.key] && !(event.key === " " && event.target.tagName === "BUTTON")) {
    event.preventDefault();
    acts[event.key]();
  }
});
addEventListener("keyup", (event) => {
  if (event.key === " " && state.alone) { state.alone = false; show(); }
});
filter();
recolour();
