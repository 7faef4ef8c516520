/** Buffers lines until the writer drains them. */
import { SyncQueue } from "../syncQueue.ts"

export class OutgoingLines {
  private text = ""
  private readonly queue = new SyncQueue<string>(() => {
    const { text } = this
    this.text = ""
    return text === "" ? [] : [text]
  })

  /** The buffered lines, joined to one string for each pull. The stream can be run once. */
  readonly stream = this.queue.stream

  /** Buffers lines. Does nothing after `end`. */
  push(lines: ReadonlyArray<string>): void {
    if (this.queue.isEnded) return
    for (const line of lines) this.text += line + "\n"
    this.queue.notify()
  }

  /** Ends the stream after the buffered lines. */
  end(): void {
    this.queue.end()
    this.queue.notify()
  }
}
