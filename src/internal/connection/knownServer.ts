/** What a client knows of its server, from the current connection. */
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import { addVersions, type AppServerError } from "../../AppServerError.ts"
import type { Metadata } from "../../Metadata.ts"
import * as Protocol from "../../Protocol.ts"
import type { Connection } from "../../Transport.ts"
import { getSupport } from "./serverVersion.ts"

export class KnownServer {
  private removeSecrets: (text: string) => string = identity
  private version: string | undefined
  /** Number of requests in flight whose deprecation is known, so its notice is not logged. */
  private deprecatedRequests = 0
  /** Whether the server outlives the connection. */
  isShared = false

  connected(connection: Connection): void {
    this.removeSecrets = connection.redact ?? identity
    this.isShared = connection.isShared === true
  }

  initialized({ serverVersion }: Metadata): void {
    this.version = getSupport(serverVersion) === "unknown" ? undefined : serverVersion
  }

  /** Runs a request that the server calls deprecated, without a log of its notice. */
  readonly withoutDeprecation = <A, E>(request: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      this.deprecatedRequests++
      return Effect.ensuring(
        request,
        Effect.sync(() => {
          this.deprecatedRequests--
        })
      )
    })

  /** Whether a warning is expected. */
  readonly isExpected = (method: string): boolean => method === "deprecationNotice" && this.deprecatedRequests > 0

  /** Removes the secrets of the transport from text of the server. */
  readonly redact = (text: string): string => this.removeSecrets(text)

  /** Adds the versions of both sides to an error. */
  readonly withVersions = (error: AppServerError): AppServerError =>
    this.version === undefined
      ? error
      : addVersions(error, { serverVersion: this.version, protocolVersion: Protocol.version })
}
