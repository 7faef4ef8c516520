/** Warns of a missing login, before a turn fails without it or waits for a response. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type { ServerConnection } from "../connection/serverConnection.ts"
import { getOwn } from "../getOwn.ts"

const isMissing = (response: unknown): boolean =>
  getOwn(response, "requiresOpenaiAuth") === true && Predicate.isNullish(getOwn(response, "account"))

const warning = (codexHome: string | undefined): string => {
  const home = codexHome === undefined ? "" : ` (\`CODEX_HOME\` is \`${codexHome}\`)`
  return `Codex is not logged in${home}, and its model provider needs an OpenAI login: turns fail, or wait for a response. ` +
    "Log in with `npx codex login`, store an API key with `printenv OPENAI_API_KEY | npx codex login --with-api-key`, log in from the " +
    "program with `account/login/start`, or set `model_provider` in the configuration to another provider."
}

/**
 * Warns if the configured model provider needs an OpenAI login and the server has none. Does not warn if the check fails: turns then fail with
 * the reason.
 */
export const warnOfMissingLogin = (server: ServerConnection): Effect.Effect<void> =>
  server.checkLogin.pipe(
    Effect.flatMap((response) =>
      isMissing(response) ? Effect.logWarning(warning(server.metadata.codexHome)) : Effect.void
    ),
    Effect.ignore
  )
