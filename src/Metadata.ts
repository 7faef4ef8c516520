/**
 * Who is at the other end: what `initialize` said about the server.
 *
 * @since 0.1.0
 */
import * as Result from "effect/Result"
import { InitializeFailed } from "./AppServerError.ts"
import type * as Protocol from "./Protocol.ts"

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

const filled = (value: string | null | undefined): string | undefined => {
  const trimmed = value?.trim()
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

/**
 * What some servers add to the answer to `initialize`; Codex 0.169 does not.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServerInfo {
  readonly name?: string | null | undefined
  readonly version?: string | null | undefined
}

/**
 * Reads the server's identity from its answer to `initialize`: from `serverInfo` where it is given, else from the user
 * agent. Fails, with all three parts, if there is no user agent, no name or no version.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromInitialize = (
  response: Partial<Protocol.InitializeResponse> & { readonly serverInfo?: ServerInfo | null | undefined }
): Result.Result<Metadata, InitializeFailed> => {
  const userAgent = filled(response.userAgent)
  const parsed = parseUserAgent(userAgent ?? "")
  const serverName = filled(response.serverInfo?.name) ?? filled(parsed.name)
  const serverVersion = filled(response.serverInfo?.version) ?? filled(parsed.version)
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
    codexHome: response.codexHome,
    platformFamily: response.platformFamily,
    platformOs: response.platformOs
  })
}
