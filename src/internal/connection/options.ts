/** The options of a connection and of its requests. */
import type * as Duration from "effect/Duration"
import type * as Schedule from "effect/Schedule"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"

/**
 * The options of a connection to a server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The name and version of this client. The server adds them to the user agent that it sends to models.
   *
   * @default the name and version of this package
   */
  readonly clientInfo?: Protocol.ClientInfo | undefined
  /**
   * Whether experimental methods and fields may be used.
   *
   * @default true
   */
  readonly experimentalApi?: boolean | undefined
  /**
   * Whether the server may send `attestation/generate`, which then needs a handler (`AppServer.handle`).
   *
   * @default false
   */
  readonly requestAttestation?: boolean | undefined
  /**
   * Whether to connect to a server that is older than 0.166.0, the oldest supported version. Otherwise connecting fails with
   * `UnsupportedServer`. A server whose version is unknown is always accepted.
   *
   * **Gotchas**
   *
   * An older server may lose the permissions of a thread, and may omit fields that the types of `Protocol` require.
   *
   * @default false
   */
  readonly allowUnsupportedServer?: boolean | undefined
  /**
   * The methods of notifications that the server must not send. Turns do not end without `turn/completed`.
   *
   * @default none
   */
  readonly optOutNotificationMethods?: ReadonlyArray<string> | undefined
  /**
   * Maximum time for the response to a request, retries included.
   *
   * @default "60 seconds"
   */
  readonly requestTimeout?: Duration.Input | undefined
  /**
   * Maximum number of requests in flight; more wait in a queue.
   *
   * **Details**
   *
   * From about 200 requests in flight the server refuses requests, and from about 250 it drops responses. A request whose own timeout is
   * longer than `requestTimeout` counts for the duration of `requestTimeout`.
   *
   * @default 128
   */
  readonly maxInFlight?: number | undefined
  /**
   * Whether to connect again after the connection has ended. A transport that starts a process starts it again. `true` restarts up to five times in a row with
   * exponential backoff; pass a schedule for other delays. The schedule starts over after a connection has lasted a minute.
   *
   * **Details**
   *
   * During a restart the state is `Starting`, and requests wait within their timeout. Requests that were in flight are retried if they
   * are idempotent; others fail with `ConnectionClosed`.
   *
   * `Codex` resumes each thread when it is used, with the settings that it had. It recovers the turns: a turn that the server completed
   * has its result, and any other turn fails with `TurnLost`. A turn that a shared server still runs is joined again.
   *
   * When the schedule has ended, every operation fails with `RestartsExhausted`.
   *
   * @default false
   */
  readonly restart?: boolean | Schedule.Schedule<unknown, AppServerError> | undefined
}

/**
 * The options of one request.
 *
 * @category models
 * @since 0.1.0
 */
export interface RequestOptions {
  /**
   * Maximum time for the response.
   *
   * @default the connection's `requestTimeout`
   */
  readonly timeout?: Duration.Input | undefined
  /** Runs just before the transport sends the request. A request that was not sent can be retried safely. */
  readonly onSend?: (() => void) | undefined
}
