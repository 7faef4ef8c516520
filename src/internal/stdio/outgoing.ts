/** Lines on their way to a writer, which takes all that there are. */
import { SyncQueue } from "../syncQueue.ts"

export class OutgoingLines {
  private text = ""
  private readonly queue = new SyncQueue<string>(() => {
    const { text } = this
    this.text = ""
    return text === "" ? [] : [text]
  })

  /** The text of the lines, for the writer. */
  readonly stream = this.queue.stream

  /** What is sent in one go is one write. */
  push(lines: ReadonlyArray<string>): void {
    if (this.queue.isEnded) return
    for (const line of lines) this.text += line + "\n"
    this.queue.notify()
  }

  /** Nothing more is sent. */
  end(): void {
    this.queue.end()
    this.queue.notify()
  }
}
