/** The options of a connection and of its requests. */
import type * as Duration from "effect/Duration"
import type * as Schedule from "effect/Schedule"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"

/**
 * The options of a connection.
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
   * Whether to connect to a server that is older than the oldest supported version, 0.166.0, which otherwise fails with
   * `UnsupportedServer`. Such a server may lose a thread's permissions, and leave out what the types of `Protocol` say it
   * sends. A server whose version is unknown is always accepted.
   *
   * @default false
   */
  readonly allowUnsupportedServer?: boolean | undefined
  /** Methods of notifications that the server does not send. Turns do not end without `turn/completed`. */
  readonly optOutNotificationMethods?: ReadonlyArray<string> | undefined
  /**
   * Maximum time for the response to a request, retries included.
   *
   * @default "60 seconds"
   */
  readonly requestTimeout?: Duration.Input | undefined
  /**
   * Maximum number of requests in flight; more wait in a queue. From about 200 the server refuses requests, and from about 250 it
   * drops responses. A request that waits for longer than `requestTimeout`, as its own timeout may allow, does not count any more.
   *
   * @default 128
   */
  readonly maxInFlight?: number | undefined
  /**
   * Whether to connect again when the connection has ended: `true` for up to five times in a row with exponential backoff, or a
   * schedule. The schedule starts anew when a connection has lasted a minute.
   *
   * Meanwhile the state is `Starting`, and requests wait, within their timeout. Requests that were in flight are retried if they are
   * idempotent; others fail with `ConnectionClosed`. `Codex` resumes its threads, with the settings that they had, when they are
   * used, and recovers their turns: a turn that the server had finished has its result, any other fails with `TurnLost`. When
   * the schedule has ended everything fails with `RestartsExhausted`.
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
  /** Called just before the transport gets the request. A request that it never got can be sent again safely. */
  readonly onSend?: (() => void) | undefined
}
