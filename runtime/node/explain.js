// Explains a picture with a file made by `ortcam fuse BUNDLE --uint8-input -o explainer.onnx`, without Python.
//
//   node explain.js explainer.onnx cat.jpg saliency.png [saliency.f32]
//
// Writes the map over the crop that the model sees as a grey picture and, where asked, as raw float32 [K,H,W].

import { writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";

/** Upright RGB pixels of a picture, what is behind any alpha included: uint8 [h,w,3]. JPEG, PNG, WebP, GIF, TIFF. */
async function readPicture(path) {
  const pixels = sharp(path).rotate().toColourspace("srgb").removeAlpha();
  const { data, info } = await pixels.raw().toBuffer({ resolveWithObject: true });
  return new Tensor("uint8", data, [info.height, info.width, info.channels]);
}

async function main([model, picture, image, raw]) {
  if (!image) throw new Error("accepted is: explain.js EXPLAINER.onnx PICTURE OUT.png [OUT.f32]");
  const session = await InferenceSession.create(model);
  const { logits, targets, saliency } = await session.run({ image: await readPicture(picture) });
  const [, height, width] = saliency.dims;
  const grey = Buffer.from(Array.from(saliency.data.subarray(0, height * width), (value) => Math.round(255 * value)));
  await sharp(grey, { raw: { height, width, channels: 1 } }).png().toFile(image);
  if (raw) await writeFile(raw, Buffer.from(saliency.data.buffer, saliency.data.byteOffset, saliency.data.byteLength));
  const found = { picture: basename(picture), targets: Array.from(targets.data, Number), shape: saliency.dims };
  console.log(JSON.stringify({ ...found, logits: Array.from(logits.data) }));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`explain: ${error.message.split("\n")[0].replace(/[\u0000-\u001f\u007f-\u009f]/g, "?")}`);
  process.exitCode = 2;
});
