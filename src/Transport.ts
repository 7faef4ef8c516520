/**
 * The way messages travel: lines of text, both ways, and nothing about what is in them.
 *
 * A transport is a service, so the same program runs on a process, on a socket, in memory or on a recording: provide
 * another layer and nothing else changes.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { AppServerError } from "./AppServerError.ts"

/**
 * One open connection to a server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Connection {
  /**
   * The lines that the server sends, without their line end, in order. It is run once, by the client. It ends or fails
   * when the connection has ended: a failure says why.
   */
  readonly incoming: Stream.Stream<string, AppServerError>
  /**
   * Sends one line, given without its line end. Lines are sent whole and in the order of the calls. Sending on a
   * connection that has ended does nothing: the end is reported by `incoming`.
   */
  readonly send: (line: string) => Effect.Effect<void>
  /**
   * The same two, at once, for a transport that need not wait: they spare each line a fiber. It is used in place of `incoming`,
   * and lines that are sent either way are in one order.
   */
  readonly direct?: {
    /**
     * Calls a function with the lines that the server sends, as many as there are at a time, until the connection has ended,
     * and fails with why.
     */
    readonly receive: (onLines: (lines: ReadonlyArray<string>) => void) => Effect.Effect<never, AppServerError>
    /** Sends lines, in one go. */
    readonly send: (lines: ReadonlyArray<string>) => void
  } | undefined
  /**
   * Removes from a text the secrets that the server was given, which it may repeat. It is used for the server's own words where they
   * become part of an error or a recording. Whoever wraps a connection passes it on.
   */
  readonly redact?: ((text: string) => string) | undefined
}

/**
 * Opens connections to a server.
 *
 * @category services
 * @since 0.1.0
 */
export class Transport extends Context.Service<Transport, {
  /**
   * Opens a connection that lives as long as the scope. When the scope closes, whatever is behind the connection (a
   * process, a socket) is gone before the scope has closed.
   */
  readonly connect: Effect.Effect<Connection, AppServerError, Scope.Scope>
}>()("effect-codex/Transport") {}
