/**
 * A typed connection to `codex app-server`: requests, notifications, and the requests of the server.
 *
 * **When to use**
 *
 * Use methods that `Codex` does not wrap, subscribe to all notifications, or handle requests of the server. Most programs use `Codex`
 * instead.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { AppServerError } from "./AppServerError.ts"
import type { Options } from "./internal/connection/options.ts"
import { makeServerConnection, type PublicConnection } from "./internal/connection/serverConnection.ts"
import { withBudget } from "./internal/session/budget/rawRequests.ts"
import { makeSession, Session } from "./internal/session/session.ts"
import type { Transport } from "./Transport.ts"

export type { RequestArgs } from "./internal/connection/client.ts"
export type { ConnectionState } from "./internal/connection/connectionState.ts"
export { NotHandled } from "./internal/connection/notHandled.ts"
export type { Options, RequestOptions } from "./internal/connection/options.ts"
export type {
  /**
   * The members of {@link AppServer}, which a fake implements.
   *
   * @category models
   * @since 0.1.0
   */
  PublicConnection as Service
} from "./internal/connection/serverConnection.ts"
export type {
  /**
   * The threads and turns of a connection, for `Codex.layer`.
   *
   * **Details**
   *
   * {@link layer} provides it together with {@link AppServer}.
   *
   * **Gotchas**
   *
   * A fake {@link AppServer} works for programs that use `AppServer`, and not for `Codex`. To test a program that uses `Codex`, replace the
   * transport, as `FakeAppServer` of `effect-codex/testing` does.
   *
   * @category services
   * @since 0.1.0
   */
  Session
} from "./internal/session/session.ts"

/**
 * The service of a typed connection to an app-server.
 *
 * @category services
 * @since 0.1.0
 */
export class AppServer extends Context.Service<AppServer, PublicConnection>()("effect-codex/AppServer") {}

/**
 * Connects over the given `Transport` and initializes the server.
 *
 * **Details**
 *
 * Building the layer fails if the connection does not open or the server does not initialize. When the scope of the layer closes, every
 * pending operation fails with `ConnectionClosed`.
 *
 * Warnings of the server are logged at the level `Warn`, with the id of their thread and without secrets. They report problems of the
 * configuration, deprecations, retries of model requests, and failures to start or to log in. Each text is logged once, also if the
 * server sends it before the program can subscribe to `notifications`. Provide `References.MinimumLogLevel` around the layer to
 * disable them.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<AppServer | Session, AppServerError, Transport> =>
  Layer.effectContext(Effect.gen(function*() {
    const connection = yield* makeServerConnection(options)
    const session = yield* makeSession(connection)
    const { handle, metadata, notifications, state, states } = connection
    const { request, requestRaw } = withBudget(connection, session)
    return Context.make(AppServer, { handle, metadata, notifications, request, requestRaw, state, states }).pipe(
      Context.add(Session, session)
    )
  }))
