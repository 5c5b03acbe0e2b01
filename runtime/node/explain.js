// Explains a picture with one file, without Python, and draws what the model looked at.
//
//   ortcam fuse MODEL -m grad-cam --uint8-input -o explainer.onnx     (once, where ortcam is installed)
//   npm install
//   node explain.js explainer.onnx photo.jpg overlay.png [maps.f32]
//
// Prints each class that is explained with its probability, or its value where the model gives no probabilities, or the
// score. Writes the photograph with the map of the first class, and where asked all maps as raw float32 [K,H,W], over the
// crop that the model sees. A model with a value range takes its samples as an array of numpy.save, `scene.npy`.

import { writeFile } from "node:fs/promises";
import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";
import { readMetadata } from "./metadata.js";
import { readNpy, shownBands } from "./npy.js";
import { cropGeometry, drawOverlay } from "./overlay.js";

const USAGE = "accepted is: node explain.js EXPLAINER.onnx PHOTO OVERLAY.png [MAPS.f32]";

/** Upright RGB pixels of a picture, what is behind any alpha included. JPEG, PNG, WebP, GIF, TIFF. */
async function readPicture(path) {
  const pixels = sharp(path).rotate().toColourspace("srgb").removeAlpha();
  const { data, info } = await pixels.raw().toBuffer({ resolveWithObject: true });
  return { data, height: info.height, width: info.width };
}

/** What the model says of each class or output, from its logits: probabilities, or the values as they are. */
function probabilities(logits, activation) {
  if (activation === "identity") return logits;
  if (activation === "sigmoid") return logits.map((value) => 1 / (1 + Math.exp(-value)));
  const highest = Math.max(...logits);
  const exponentials = logits.map((value) => Math.exp(value - highest));
  const sum = exponentials.reduce((total, value) => total + value, 0);
  return exponentials.map((value) => value / sum);
}

async function main([model, picture, overlay, maps]) {
  if (!overlay) throw new Error(USAGE);
  if (!overlay.toLowerCase().endsWith(".png")) throw new Error(`${overlay}: accepted is a file that ends in .png`);
  const told = await readMetadata(model);
  if (!told["ortcam.method"]) throw new Error(`${model}: is no explainer of \`ortcam fuse\``);
  const kind = told["ortcam.input"] ?? "";
  if (!kind.startsWith("uint8") && !kind.startsWith("float32 samples")) {
    throw new Error(`${model}: takes no photographs; make it with \`ortcam fuse MODEL --uint8-input -o ${model}\``);
  }
  const preprocessing = JSON.parse(told["ortcam.preprocessing"]);
  const { photograph, image } = await readImage(picture, kind, preprocessing);
  const { height, width } = photograph;
  const session = await InferenceSession.create(model);
  const { logits, targets, saliency, score } = await session.run({ image });

  if (score) console.log(`${printable(told["ortcam.score"])}: ${significant(score.data[0])}`);
  else tellClasses(targets, logits, told);

  const [, rows, columns] = saliency.dims;
  const map = { data: saliency.data.subarray(0, rows * columns), height: rows, width: columns };
  const cut = JSON.parse(told["ortcam.cut"]);
  const geometry = cropGeometry(preprocessing, height, width);
  const drawn = drawOverlay(photograph, map, geometry, [cut.height, cut.width]);
  await sharp(drawn, { raw: { height, width, channels: 3 } }).png().toFile(overlay);
  if (maps) await writeFile(maps, Buffer.from(saliency.data.buffer, saliency.data.byteOffset, saliency.data.byteLength));
  console.log(`Open ${printable(overlay)}`);
}

/** The image as the model takes it, and the RGB pixels that the map is drawn over. */
async function readImage(path, kind, preprocessing) {
  if (kind.startsWith("uint8")) {
    const photograph = await readPicture(path);
    const { data, height, width } = photograph;
    return { photograph: greyed(photograph, preprocessing), image: new Tensor("uint8", data, [height, width, 3]) };
  }
  const samples = await readNpy(path, preprocessing.mean.length);
  const { data, height, width, channels } = samples;
  const image = new Tensor("float32", data, [height, width, channels]);
  return { photograph: shownBands(samples, preprocessing.display), image };
}

/** How red, green and blue weigh in the grey that a model takes, in parts of 2 to this power. */
const GREYS = { grey: [19595, 38470, 7471, 16], "grey-opencv": [9798, 19235, 3735, 15] };

/** The photograph as the model sees it: its grey, where it takes grey. */
function greyed(photograph, { channel_order: order }) {
  if (!(order in GREYS)) return photograph;
  const [red, green, blue, bits] = GREYS[order];
  const { data } = photograph;
  const grey = new Uint8Array(data.length);
  for (let i = 0; i < data.length; i += 3) {
    const total = red * data[i] + green * data[i + 1] + blue * data[i + 2] + (1 << (bits - 1));
    grey.fill(total >> bits, i, i + 3);
  }
  return { ...photograph, data: grey };
}

function tellClasses(targets, logits, told) {
  const labels = JSON.parse(told["ortcam.labels"]);
  const activation = told["ortcam.activation"];
  const found = probabilities(Array.from(logits.data), activation);
  for (const target of Array.from(targets.data, Number)) {
    const [label, value] = [printable(labels[target] ?? `class ${target}`), found[target]];
    if (activation === "identity") console.log(`${label} (output ${target}): ${significant(value)}`);
    else console.log(`${label} (class ${target}): ${(100 * value).toFixed(1)} %`);
  }
}

/** A number in four digits. */
function significant(value) {
  return String(Number(value.toPrecision(4)));
}

/** A text that moves no cursor. */
function printable(text) {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, "?");
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`explain: ${printable(error.message.split("\n")[0])}`);
  process.exitCode = 2;
});
