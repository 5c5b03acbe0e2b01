// The metadata of an ONNX file, which onnxruntime-node does not tell: labels, preprocessing, the cut.

import { open } from "node:fs/promises";

const METADATA = 14; // ModelProto.metadata_props, of StringStringEntryProto: 1 key, 2 value
const CHUNK = 64 * 1024;

/** The metadata by name. Weights and graph are skipped, not read. */
export async function readMetadata(path) {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    const found = {};
    let place = 0;
    while (place < size) {
      const { bytesRead, buffer } = await file.read(Buffer.alloc(CHUNK), 0, CHUNK, place);
      const field = readField(buffer.subarray(0, bytesRead), 0);
      if (field.number === METADATA) {
        const content = Buffer.alloc(field.end - field.start);
        await file.read(content, 0, content.length, place + field.start);
        const [key, value] = textsOf(content);
        found[key] = value;
      }
      place += field.end;
    }
    return found;
  } finally {
    await file.close();
  }
}

/** The field that begins at a place: its number, and where its content starts and ends. */
function readField(bytes, place) {
  const [tag, start] = readVarint(bytes, place);
  const kind = tag & 7;
  const number = tag >>> 3;
  if (kind === 0) return { number, start, end: readVarint(bytes, start)[1] };
  if (kind === 1 || kind === 5) return { number, start, end: start + (kind === 1 ? 8 : 4) };
  if (kind !== 2) throw new Error("the model is no ONNX file");
  const [length, content] = readVarint(bytes, start);
  return { number, start: content, end: content + length };
}

function readVarint(bytes, place) {
  let value = 0;
  for (let scale = 1; ; scale *= 128) {
    if (place >= bytes.length || scale > 2 ** 49) throw new Error("the model is no ONNX file");
    const byte = bytes[place++];
    value += (byte & 127) * scale;
    if (byte < 128) return [value, place];
  }
}

function textsOf(content) {
  const texts = ["", ""];
  for (let place = 0; place < content.length; ) {
    const { number, start, end } = readField(content, place);
    if (number === 1 || number === 2) texts[number - 1] = content.toString("utf8", start, end);
    place = end;
  }
  return texts;
}
