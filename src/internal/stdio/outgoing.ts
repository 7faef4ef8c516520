/** Lines on their way to a writer, which takes all that there are: what is sent in one go is one write. */
import { Handoff } from "../handoff.ts"

export class OutgoingLines {
  private text = ""
  private isWaking = false
  private readonly handoff = new Handoff<string>(() => {
    const { text } = this
    this.text = ""
    return text === "" ? [] : [text]
  })

  /** The text of the lines, for the writer. */
  readonly stream = this.handoff.stream

  push(line: string): void {
    if (this.handoff.isEnded) return
    this.text += line + "\n"
    this.wakeSoon()
  }

  /** Nothing more is sent. */
  end(): void {
    this.handoff.end()
    this.wakeSoon()
  }

  private wakeSoon(): void {
    if (this.isWaking) return
    this.isWaking = true
    queueMicrotask(() => {
      this.isWaking = false
      this.handoff.wake()
    })
  }
}
