/** Server-sent events of an answer (HTML Standard, 9.2), read as they come: `EventSource` can send no token. */

/** An event: its name, "message" where it has none, and its data. */
export interface ServerEvent {
  readonly name: string;
  readonly data: string;
}

/** The events of an answer, as far as they are complete. */
export async function* eventsOf(body: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<ServerEvent, void, void> {
  const [reader, decoder] = [body.getReader(), new TextDecoder()];
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const blocks = `${rest}${decoder.decode(part.value, { stream: true })}`.split(/\r?\n\r?\n/);
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = eventOf(block);
      if (event !== null) yield event;
    }
  }
}

/** An event from its lines; null for a comment, which keeps a connection alive. */
function eventOf(block: string): ServerEvent | null {
  const fields = block.split(/\r?\n/).map((line) => /^(\w*): ?(.*)$/.exec(line));
  const values = (name: string): string[] => fields.flatMap((field) => (field?.[1] === name ? [field[2]] : []));
  const data = values("data");
  return data.length === 0 ? null : { name: values("event").at(-1) ?? "message", data: data.join("\n") };
}
