/** Writes messages to a connection, in the order of the calls. */
import * as Effect from "effect/Effect"
import type { AppServerError } from "../../AppServerError.ts"
import type { Connection } from "../../Transport.ts"
import { connectionClosed } from "./connectionClosed.ts"
import { stringify } from "./stringify.ts"

export class LineWriter {
  private readonly connection: Connection
  private readonly onFailure: (error: AppServerError) => void
  private buffered: Array<string> = []

  /** Calls `onFailure` if a synchronous write fails, which ends the connection. */
  constructor(connection: Connection, onFailure: (error: AppServerError) => void) {
    this.connection = connection
    this.onFailure = onFailure
  }

  /** Buffers a line. The lines of one task of the event loop are written together. */
  buffer(line: string): void {
    if (this.buffered.push(line) === 1) queueMicrotask(() => this.flush())
  }

  /** Writes the buffered lines. */
  flush(): void {
    if (this.buffered.length === 0) return
    const lines = this.buffered
    this.buffered = []
    try {
      this.connection.direct?.send(lines)
    } catch (cause) {
      this.onFailure(connectionClosed(`the transport cannot send: ${String(cause)}`, { cause }))
    }
  }

  /** Writes a message after the lines that are buffered. Fails if the message is not JSON. */
  write(message: object, method: string): Effect.Effect<void, AppServerError> {
    return Effect.suspend(() =>
      Effect.flatMap(Effect.fromResult(stringify(message, method)), (line) => {
        this.flush()
        return this.connection.send(line!)
      })
    )
  }
}
