/** Initializes a server. Fails if the server is too old. */
import * as Effect from "effect/Effect"
import {
  type AppServerError,
  InitializeFailed,
  make as appServerError,
  UnsupportedServer
} from "../../AppServerError.ts"
import * as Metadata from "../../Metadata.ts"
import * as Protocol from "../../Protocol.ts"
import type { Peer } from "../jsonrpc/peer.ts"
import { packageVersion } from "../version.ts"
import type { Client } from "./client.ts"
import type { Options } from "./options.ts"
import { floor, getSupport } from "./serverVersion.ts"

const toParams = (options: Options): Protocol.ClientRequests["initialize"]["params"] => ({
  clientInfo: options.clientInfo ?? { name: "effect-codex", title: "effect-codex", version: packageVersion },
  capabilities: {
    experimentalApi: options.experimentalApi ?? true,
    requestAttestation: options.requestAttestation ?? false,
    ...(options.optOutNotificationMethods === undefined
      ? {}
      : { optOutNotificationMethods: options.optOutNotificationMethods })
  }
})

const unnamed = { userAgent: undefined, serverName: undefined, serverVersion: undefined }

/** Makes the check that fails for a server that is too old. It logs once if the server has another version than the protocol. */
const makeCheckVersion = (options: Options) => {
  let isLogged = false
  return Effect.fnUntraced(function*({ serverVersion }: Metadata.Metadata): Effect.fn.Return<void, AppServerError> {
    const support = getSupport(serverVersion)
    if (support === "unsupported" && options.allowUnsupportedServer !== true) {
      return yield* appServerError(new UnsupportedServer({ serverVersion, floor }))
    }
    if (support === "same" || support === "unknown" || isLogged) return
    isLogged = true
    yield* Effect.logWarning(
      `Connected to codex app-server \`${serverVersion}\`, but this version of effect-codex was generated from ` +
        `\`${Protocol.version}\`. What has changed between them may not work.` +
        (support === "unsupported"
          ? ` Before \`${floor}\`, threads lose their permissions when they are resumed or forked.`
          : "")
    )
  })
}

/** Makes the handshake, which runs on each new connection. */
export const makeHandshake = (options: Options) => {
  const checkVersion = makeCheckVersion(options)
  return Effect.fnUntraced(function*(
    peer: Peer,
    client: Client,
    redact: (text: string) => string
  ): Effect.fn.Return<Metadata.Metadata, AppServerError> {
    const response = yield* client.requestRaw("initialize", toParams(options)).pipe(
      Effect.catchReason("AppServerError", "RequestRejected", ({ detail }) =>
        Effect.fail(appServerError(
          new InitializeFailed({ description: `the server refused this client: ${detail}`, ...unnamed })
        )))
    )
    const metadata = yield* Effect.mapError(
      Effect.fromResult(Metadata.fromInitialize(response)),
      ({ description, serverName, serverVersion, userAgent }) =>
        appServerError(
          new InitializeFailed({
            description,
            userAgent: userAgent && redact(userAgent),
            serverName: serverName && redact(serverName),
            serverVersion: serverVersion && redact(serverVersion)
          })
        )
    )
    yield* checkVersion(metadata)
    yield* peer.notify("initialized")
    return metadata
  })
}
