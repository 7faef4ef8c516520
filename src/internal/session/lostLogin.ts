/** Reports a login that a restart of the server has ended, before a turn fails for it. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type { ServerConnection } from "../connection/serverConnection.ts"
import { getOwn } from "../getOwn.ts"

const isLoggedOut = (response: unknown): boolean => getOwn(response, "account") === null

/**
 * Warns when the server was restarted and is not logged in any more. The server keeps some logins in memory only: tokens that the
 * program has supplied, and any login with `cli_auth_credentials_store = "ephemeral"`.
 */
export const warnOfLostLogin = (server: ServerConnection): Effect.Effect<void, never, Scope.Scope> =>
  Effect.suspend(() => {
    let authMode: string | null = null
    return Effect.all([
      server.addNotificationHandler("account/updated", (params) => {
        authMode = params.authMode ?? null
      }),
      server.addRestartHandler((requests) =>
        authMode === null ? Effect.void : requests.requestRaw("account/read", {}).pipe(
          Effect.orElseSucceed(() => undefined),
          Effect.filterOrElse(Predicate.not(isLoggedOut), () => {
            const warning =
              `codex app-server was restarted and has lost the login of this program (${authMode}), which it keeps in ` +
              "memory only. Send `account/login/start` again when `AppServer.states` is `Ready`, before you run another turn"
            authMode = null
            return Effect.logWarning(warning)
          })
        )
      )
    ], { discard: true })
  })
