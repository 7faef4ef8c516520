/** Writes messages to a connection, in the order of the calls. */
import * as Effect from "effect/Effect"
import { type AppServerError, InvalidRequest, make as appServerError } from "../../AppServerError.ts"
import type { Connection } from "../../Transport.ts"
import { exceedsBytes } from "../exceedsBytes.ts"
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

  /** The error of a line that is too long for the server, which would end the connection. */
  sizeIssue(line: string, method: string): AppServerError | undefined {
    const { maxSendBytes } = this.connection
    return maxSendBytes === undefined || !exceedsBytes(line, maxSendBytes)
      ? undefined
      : appServerError(
        new InvalidRequest({
          method,
          description:
            `the message has more than ${maxSendBytes} bytes, and the server would close the connection. Send less, for ` +
            "example the path of a file in place of its content"
        })
      )
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
        const issue = this.sizeIssue(line!, method)
        if (issue !== undefined) return Effect.fail(issue)
        this.flush()
        return this.connection.send(line!)
      })
    )
  }
}
