/**
 * Who is at the other end: what `initialize` said about the server.
 *
 * @since 0.1.0
 */
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import { InitializeFailed } from "./AppServerError.ts"

/**
 * The identity of the connected server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Metadata {
  /** The user agent that the server sends to models, as it reported it. */
  readonly userAgent: string
  /**
   * The server's own name if it gave one. Codex does not: it starts its user agent with the name of the first client that
   * initialized, so that is what stands here.
   */
  readonly serverName: string
  /** The server's version, for Codex that of the binary: `0.169.0`. */
  readonly serverVersion: string
  /** The server's `CODEX_HOME`: configuration, login and stored threads. */
  readonly codexHome: string | undefined
  /** `unix` or `windows`. */
  readonly platformFamily: string | undefined
  /** `linux`, `macos`, `windows`, … */
  readonly platformOs: string | undefined
}

const filled = (value: unknown): string | undefined => {
  const trimmed = Predicate.isString(value) ? value.trim() : ""
  return trimmed === "" ? undefined : trimmed
}

interface NameAndVersion {
  readonly name: string | undefined
  readonly version: string | undefined
}

/**
 * The name and version in a user agent: Codex's `name/1.2.3 (system) terminal (client; version)`, else `name/version`,
 * else `name version`.
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

const member = (value: unknown, name: string): unknown =>
  Predicate.isObject(value) && Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined

/**
 * Reads the server's identity from its answer to `initialize`: from `serverInfo`, which some servers add, else from the user
 * agent. Fails, with all three parts, if there is no user agent, no name or no version.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromInitialize = (response: unknown): Result.Result<Metadata, InitializeFailed> => {
  const userAgent = filled(member(response, "userAgent"))
  const serverInfo = member(response, "serverInfo")
  const parsed = parseUserAgent(userAgent ?? "")
  const serverName = filled(member(serverInfo, "name")) ?? filled(parsed.name)
  const serverVersion = filled(member(serverInfo, "version")) ?? filled(parsed.version)
  if (userAgent === undefined || serverName === undefined || serverVersion === undefined) {
    return Result.fail(
      new InitializeFailed({
        description: "its answer does not say who it is",
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
    codexHome: filled(member(response, "codexHome")),
    platformFamily: filled(member(response, "platformFamily")),
    platformOs: filled(member(response, "platformOs"))
  })
}
