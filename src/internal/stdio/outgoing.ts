/** Buffers lines until the writer takes them. */
import { SyncQueue } from "../syncQueue.ts"

export class OutgoingLines {
  private text = ""
  private readonly queue = new SyncQueue<string>(() => {
    const { text } = this
    this.text = ""
    return text === "" ? [] : [text]
  })

  /** The text of all buffered lines in one piece, for one writer. */
  readonly stream = this.queue.stream

  /** Sends lines. After `end`, it does nothing. */
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
