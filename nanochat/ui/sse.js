/**
 * Server-sent events from a stream of bytes, however the network has cut it: within a character, a line, a frame.
 */

/**
 * The `data` of each event. Comments (keep-alive) and other fields are passed over; an event that the end of
 * the stream cuts short is dropped, as the standard says.
 * @param {ReadableStream<Uint8Array>} stream
 * @returns {AsyncGenerator<string>}
 */
export async function* events(stream) {
  const reader = stream.getReader();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(value);
    }
  } finally {
    reader.cancel().catch(() => {}); // a consumer that leaves early (break, stop) closes the connection
  }
}

/** Bytes in, events out; what is not complete yet is kept. */
export class EventParser {
  constructor() {
    this.decoder = new TextDecoder("utf-8");
    this.rest = "";
    /** @type {string[]} */
    this.data = [];
  }

  /** @param {Uint8Array} bytes @returns {Generator<string>} */
  *push(bytes) {
    this.rest += this.decoder.decode(bytes, { stream: true });
    // A carriage return at the very end may be half of a line's end: wait for what follows.
    const lines = this.rest.split(/\r\n|\n|\r(?!$)/);
    this.rest = /** @type {string} */ (lines.pop());
    for (const line of lines) {
      if (line === "") {
        if (this.data.length) yield this.data.join("\n");
        this.data = [];
      } else if (line.startsWith("data:")) {
        this.data.push(line.slice(line.startsWith("data: ") ? 6 : 5));
      }
    }
  }
}
