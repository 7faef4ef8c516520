/** Sends requests about a thread, on connections on which it is open. */
import * as Effect from "effect/Effect"
import { type AppServerError, InvalidRequest, make as appServerError } from "../../../AppServerError.ts"
import type { ServerClient } from "../../connection/client.ts"
import type { RequestOptions } from "../../connection/options.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import type { ThreadHandlers } from "../handlers/threadHandlers.ts"
import { reopenKept } from "./keptSettings.ts"
import type { ThreadOpened } from "./responses.ts"
import type { ThreadRecord, ThreadRecords } from "./threadRecords.ts"

/** Opens a thread again with its settings. Returns `undefined` if it is open in this restart generation. */
export const ensureOpen = (
  client: ServerClient,
  record: ThreadRecord,
  records: ThreadRecords
): Effect.Effect<ThreadOpened | undefined, AppServerError> => {
  const isOpen = () => record.isOpen(records.generation)
  return Effect.suspend(() =>
    isOpen() ? Effect.undefined : record.reopening.withPermit(Effect.suspend(() => {
      const { generation } = records
      return isOpen() ? Effect.undefined : reopenKept(client, record.id, record).pipe(
        Effect.mapError(client.withVersions),
        Effect.tap(() => Effect.sync(() => record.open(generation)))
      )
    }))
  )
}

/** A thread that this program has opened. It is opened again when it is used after a restart. */
export class OpenThread {
  readonly record: ThreadRecord
  private readonly records: ThreadRecords
  /** The handlers with which this handle was opened. Another handle of the thread may have others. */
  readonly handlers: ThreadHandlers

  constructor(record: ThreadRecord, records: ThreadRecords, handlers: ThreadHandlers) {
    this.record = record
    this.records = records
    this.handlers = handlers
  }

  get id(): string {
    return this.record.id
  }

  ensureOpen(client: ServerClient): Effect.Effect<unknown, AppServerError> {
    return ensureOpen(client, this.record, this.records)
  }

  /**
   * Sends a request on a connection on which the thread is open. If that connection ends before the request is sent, opens the thread on the
   * next connection and sends it there. An attempt uses one connection only: the fiber that opens the thread does not wait for the next
   * connection while other fibers wait for it.
   */
  request<A>(
    server: ServerConnection,
    method: string,
    send: (client: ServerClient, options: RequestOptions) => Effect.Effect<A, AppServerError>
  ): Effect.Effect<A, AppServerError> {
    let isSent = false
    const onSend = () => {
      isSent = true
    }
    const attempt: Effect.Effect<A, AppServerError> = Effect.suspend(() =>
      this.record.isClosed ? Effect.fail(this.closedError(method)) : Effect.flatMap(
        server.acquireClient,
        (client) =>
          Effect.andThen(this.ensureOpen(client), send(client, { onSend })).pipe(
            Effect.catchIf(({ reason }) => reason._tag === "ConnectionClosed" && !isSent, () => attempt)
          )
      )
    )
    return attempt
  }

  closedError(method: string): AppServerError {
    return appServerError(
      new InvalidRequest({
        method,
        description:
          `the handle of thread \`${this.id}\` was closed. Open the thread again with \`codex.resumeThread\`.`
      })
    )
  }
}
