// Explains a picture with one file, without Python, and draws what the model looked at.
//
//   ortcam fuse MODEL -m grad-cam --uint8-input -o explainer.onnx     (once, where ortcam is installed)
//   npm install
//   node explain.js explainer.onnx photo.jpg overlay.png [maps.f32]
//
// Prints each class that is explained with its probability. Writes the photograph with the map of the first class, and
// where asked all maps as raw float32 [K,H,W], over the crop that the model sees.

import { writeFile } from "node:fs/promises";
import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";
import { readMetadata } from "./metadata.js";
import { cropGeometry, drawOverlay } from "./overlay.js";

const USAGE = "accepted is: node explain.js EXPLAINER.onnx PHOTO OVERLAY.png [MAPS.f32]";

/** Upright RGB pixels of a picture, what is behind any alpha included. JPEG, PNG, WebP, GIF, TIFF. */
async function readPicture(path) {
  const pixels = sharp(path).rotate().toColourspace("srgb").removeAlpha();
  const { data, info } = await pixels.raw().toBuffer({ resolveWithObject: true });
  return { data, height: info.height, width: info.width };
}

/** Probabilities of all classes from their logits. */
function probabilities(logits, activation) {
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
  if (!told["ortcam.input"]?.startsWith("uint8")) {
    throw new Error(`${model}: takes no photographs; make it with \`ortcam fuse MODEL --uint8-input -o ${model}\``);
  }
  const photograph = await readPicture(picture);
  const { data, height, width } = photograph;
  const session = await InferenceSession.create(model);
  const image = new Tensor("uint8", data, [height, width, 3]);
  const { logits, targets, saliency } = await session.run({ image });

  const labels = JSON.parse(told["ortcam.labels"]);
  const shares = probabilities(Array.from(logits.data), told["ortcam.activation"]);
  for (const target of Array.from(targets.data, Number)) {
    const label = printable(labels[target] ?? `class ${target}`);
    console.log(`${label} (class ${target}): ${(100 * shares[target]).toFixed(1)} %`);
  }

  const [, rows, columns] = saliency.dims;
  const map = { data: saliency.data.subarray(0, rows * columns), height: rows, width: columns };
  const cut = JSON.parse(told["ortcam.cut"]);
  const geometry = cropGeometry(JSON.parse(told["ortcam.preprocessing"]), height, width);
  const drawn = drawOverlay(photograph, map, geometry, [cut.height, cut.width]);
  await sharp(drawn, { raw: { height, width, channels: 3 } }).png().toFile(overlay);
  if (maps) await writeFile(maps, Buffer.from(saliency.data.buffer, saliency.data.byteOffset, saliency.data.byteLength));
  console.log(`Open ${printable(overlay)}`);
}

/** A text that moves no cursor. */
function printable(text) {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, "?");
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`explain: ${printable(error.message.split("\n")[0])}`);
  process.exitCode = 2;
});
