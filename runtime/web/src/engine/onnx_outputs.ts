/** Takes an output out of an ONNX graph, with the nodes that nothing else needs. */

// Fields of onnx.proto: ModelProto.graph, GraphProto.node and output, NodeProto.input, output and attribute,
// ValueInfoProto.name, AttributeProto.g and graphs.
const [GRAPH, NODE, GRAPH_OUTPUT] = [7, 1, 12];
const [INPUT, OUTPUT, ATTRIBUTE] = [1, 2, 5];
const [VALUE_NAME, SUBGRAPH, SUBGRAPHS] = [1, 6, 11];
const BYTES = 2; // the wire type of texts, bytes and messages

type Bytes = Uint8Array<ArrayBuffer>;

/** A field of a message: where it stands, its tag included, and its content where it has a length. */
interface Field {
  readonly number: number;
  readonly whole: Bytes;
  readonly content: Bytes | null;
}

/**
 * The same model without one of its outputs; the model itself where it has none of this name.
 *
 * A scorer's `partial_maps` are a sum for every target. Whoever wants the probabilities of a thousand classes does
 * without it.
 *
 * @throws RangeError the bytes are no model
 */
export function withoutOutput(model: Bytes, name: string): Bytes {
  const parts = fields(model).map((field) => {
    if (field.number !== GRAPH || field.content === null) return field.whole;
    const graph = pruned(fields(field.content), name);
    return graph === null ? field.whole : message(GRAPH, graph);
  });
  return joined(parts);
}

function pruned(graph: readonly Field[], name: string): Bytes | null {
  const isOutput = ({ number }: Field): boolean => number === GRAPH_OUTPUT;
  const kept = graph.filter((field) => !isOutput(field) || textOf(field, VALUE_NAME) !== name);
  if (kept.length === graph.length) return null;
  const needed = new Set(kept.filter(isOutput).map((field) => textOf(field, VALUE_NAME)));
  const dead = new Set<Field>();
  for (const node of graph.filter(({ number }) => number === NODE).reverse()) {
    const parts = fields(node.content ?? new Uint8Array());
    const made = parts.filter(({ number }) => number === OUTPUT).map(text);
    if (!made.some((value) => needed.has(value))) dead.add(node);
    else for (const value of readBy(parts)) needed.add(value);
  }
  return joined(kept.filter((field) => !dead.has(field)).map(({ whole }) => whole));
}

/** What a node reads, and all that its subgraphs read. */
function readBy(node: readonly Field[]): string[] {
  return node.flatMap((field) => {
    if (field.number === INPUT) return [text(field)];
    if (field.number !== ATTRIBUTE || field.content === null) return [];
    const graphs = fields(field.content).filter(({ number }) => number === SUBGRAPH || number === SUBGRAPHS);
    return graphs.flatMap(({ content }) => {
      const inner = fields(content ?? new Uint8Array());
      const outputs = inner.filter(({ number }) => number === GRAPH_OUTPUT).map((value) => textOf(value, VALUE_NAME));
      const nodes = inner.filter(({ number }) => number === NODE);
      return [...outputs, ...nodes.flatMap((inside) => readBy(fields(inside.content ?? new Uint8Array())))];
    });
  });
}

function fields(bytes: Bytes): Field[] {
  const found: Field[] = [];
  let at = 0;
  const varint = (): number => {
    let [value, scale] = [0, 1];
    for (;;) {
      if (at >= bytes.length) throw new RangeError("a message ends early");
      const byte = bytes[at++];
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 128;
    }
  };
  while (at < bytes.length) {
    const start = at;
    const tag = varint();
    const kind = tag % 8;
    let content: Bytes | null = null;
    if (kind === BYTES) {
      const length = varint();
      content = bytes.subarray(at, at + length);
      at += length;
    } else if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else throw new RangeError(`wire type ${kind}`);
    if (at > bytes.length) throw new RangeError("a message ends early");
    found.push({ number: Math.floor(tag / 8), whole: bytes.subarray(start, at), content });
  }
  return found;
}

function text({ content }: Field): string {
  return new TextDecoder().decode(content ?? new Uint8Array());
}

function textOf({ content }: Field, number: number): string {
  const found = fields(content ?? new Uint8Array()).find((field) => field.number === number);
  return found === undefined ? "" : text(found);
}

function message(number: number, content: Bytes): Bytes {
  return joined([Uint8Array.from([...varintOf(8 * number + BYTES), ...varintOf(content.length)]), content]);
}

function varintOf(value: number): number[] {
  const bytes = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  return [...bytes, value];
}

function joined(parts: readonly Bytes[]): Bytes {
  const out = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
