/**
 * The service that carries messages to and from a server as lines of text. It knows nothing of their contents.
 *
 * The same program runs on a process, on a socket, in memory or on a recording: provide another layer, and nothing else
 * changes.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { AppServerError } from "./AppServerError.ts"

/**
 * An open connection to a server.
 *
 * **Details**
 *
 * `incoming` and `send` are enough. A transport whose lines arrive and leave without waiting may add `direct`, which saves a
 * fiber for each line. A transport that wraps another connection passes the other members on.
 *
 * @category models
 * @since 0.1.0
 */
export interface Connection {
  /**
   * The lines that the server sends, in order and without their line ends. The client runs the stream once. It ends or fails
   * with the connection, and the failure is the reason.
   */
  readonly incoming: Stream.Stream<string, AppServerError>
  /**
   * Sends one line, given without its line end. Lines are sent whole and in the order of the calls. On a connection that has
   * ended it does nothing: `incoming` reports the end.
   */
  readonly send: (line: string) => Effect.Effect<void>
  /**
   * Synchronous forms of `incoming` and `send`. If present, the client runs `receive` in place of `incoming`. Lines that are
   * sent either way keep one order.
   */
  readonly direct?: {
    /**
     * Calls a function with each batch of lines that arrives, until the connection has ended. Fails with the reason of the end.
     */
    readonly receive: (onLines: (lines: ReadonlyArray<string>) => void) => Effect.Effect<never, AppServerError>
    /** Sends lines in one write. */
    readonly send: (lines: ReadonlyArray<string>) => void
  } | undefined
  /**
   * Removes the secrets that the server was given from a text, because the server may repeat them. The client applies it to
   * messages of the server that become part of an error or a recording.
   */
  readonly redact?: ((text: string) => string) | undefined
  /**
   * The maximum size of a line that the server accepts, in bytes. The client sends no longer one: its request fails with
   * `InvalidRequest`.
   */
  readonly maxSendBytes?: number | undefined
  /**
   * Maximum time without a line of the server. Then the client sends a request, and ends the connection if as much time passes
   * without a line again. For a connection whose loss the transport may not notice, such as a socket.
   */
  readonly keepAlive?: Duration.Duration | undefined
  /**
   * Whether the server outlives the connection, as a server on a socket does. After the next connect, the client then joins the
   * turns that still run, and opens all of its threads again.
   */
  readonly isShared?: boolean | undefined
}

/**
 * Opens connections to a server.
 *
 * @category services
 * @since 0.1.0
 */
export class Transport extends Context.Service<Transport, {
  /**
   * Opens a connection for the lifetime of the scope. The resource behind it, such as a process or a socket, is released
   * before the scope has closed.
   */
  readonly connect: Effect.Effect<Connection, AppServerError, Scope.Scope>
}>()("effect-codex/Transport") {}
