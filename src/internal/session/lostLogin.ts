/** Warns of a login that was lost in a restart of the server, before a turn fails without it. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type { ServerConnection } from "../connection/serverConnection.ts"
import { getOwn } from "../getOwn.ts"

const isLoggedOut = (response: unknown): boolean => getOwn(response, "account") === null

/**
 * Warns if the server is not logged in any more after a restart. The server keeps some logins in memory only: tokens from the program, and
 * any login with `cli_auth_credentials_store = "ephemeral"`.
 */
export const warnOfLostLogin = (server: ServerConnection): Effect.Effect<void, never, Scope.Scope> =>
  Effect.suspend(() => {
    let authMode: string | null = null
    return Effect.all([
      server.addNotificationHandler("account/updated", (params) => {
        authMode = params.authMode ?? null
      }),
      server.addRestartHandler((client) =>
        authMode === null ? Effect.void : client.requestRaw("account/read", {}).pipe(
          Effect.orElseSucceed(() => undefined),
          Effect.filterOrElse(Predicate.not(isLoggedOut), () => {
            const warning =
              `codex app-server was restarted and lost the login of this program (\`${authMode}\`), which it keeps in memory ` +
              "only. Send `account/login/start` when `AppServer.states` is `Ready`, before you run another turn."
            authMode = null
            return Effect.logWarning(warning)
          })
        )
      )
    ], { discard: true })
  })
