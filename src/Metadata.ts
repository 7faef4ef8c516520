/**
 * The identity of the server, from its response to `initialize`.
 *
 * @since 0.1.0
 */
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import { InitializeFailed } from "./AppServerError.ts"
import { getOwn } from "./internal/getOwn.ts"

/**
 * The name, version and platform of the connected server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Metadata {
  /** The user agent that the server sends to model providers. */
  readonly userAgent: string
  /**
   * The name of the server. Codex does not send its own name: its user agent starts with the name of the first client that
   * initialized, so this is the name of that client.
   */
  readonly serverName: string
  /** The version of the server; for Codex the version of the binary, such as `0.169.0`. */
  readonly serverVersion: string
  /** The path of the server's `CODEX_HOME`, which contains configuration, login and stored threads. */
  readonly codexHome: string | undefined
  /** The family of the server's platform: `unix` or `windows`. */
  readonly platformFamily: string | undefined
  /** The operating system of the server: `linux`, `macos`, `windows`, … */
  readonly platformOs: string | undefined
}

const nonEmptyString = (value: unknown): string | undefined => {
  const trimmed = Predicate.isString(value) ? value.trim() : ""
  return trimmed === "" ? undefined : trimmed
}

interface NameAndVersion {
  readonly name: string | undefined
  readonly version: string | undefined
}

/**
 * Parses the name and version in a user agent: `name/1.2.3 (system) terminal (client; version)` of Codex, else `name/version`, else
 * `name version`.
 */
const parseUserAgent = (userAgent: string): NameAndVersion => {
  const codex = /^(.*?)\/(\d+\.\d+\.\d+\S*) \(/.exec(userAgent)
  if (codex !== null) return { name: codex[1], version: codex[2] }
  const slash = userAgent.indexOf("/")
  if (slash !== -1) return { name: userAgent.slice(0, slash), version: userAgent.slice(slash + 1) }
  const space = userAgent.search(/\s/)
  return space === -1
    ? { name: userAgent, version: undefined }
    : { name: userAgent.slice(0, space), version: userAgent.slice(space) }
}

/**
 * Decodes the response to `initialize`.
 *
 * **Details**
 *
 * The name and version are those in `serverInfo`, which some servers add, or else those in the user agent. Fails with
 * `InitializeFailed` if the user agent, the name or the version is missing.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromInitialize = (response: unknown): Result.Result<Metadata, InitializeFailed> => {
  const userAgent = nonEmptyString(getOwn(response, "userAgent"))
  const serverInfo = getOwn(response, "serverInfo")
  const parsed = parseUserAgent(userAgent ?? "")
  const serverName = nonEmptyString(getOwn(serverInfo, "name")) ?? nonEmptyString(parsed.name)
  const serverVersion = nonEmptyString(getOwn(serverInfo, "version")) ?? nonEmptyString(parsed.version)
  if (userAgent === undefined || serverName === undefined || serverVersion === undefined) {
    return Result.fail(
      new InitializeFailed({
        description:
          "the response to `initialize` must have a user agent with name and version. Check that the process is `codex app-server`",
        userAgent,
        serverName,
        serverVersion
      })
    )
  }
  return Result.succeed({
    userAgent,
    serverName,
    serverVersion,
    codexHome: nonEmptyString(getOwn(response, "codexHome")),
    platformFamily: nonEmptyString(getOwn(response, "platformFamily")),
    platformOs: nonEmptyString(getOwn(response, "platformOs"))
  })
}
