/**
 * Decodes only those fields of a response that a handle needs. So a newer server may describe a thread in another way.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type AppServerError, DecodeFailed, make as appServerError } from "../../../AppServerError.ts"
import type { ServerClient } from "../../connection/client.ts"
import type { RequestOptions } from "../../connection/options.ts"

const requestFor = <A>(schema: Schema.Codec<A>) => {
  const decode = Schema.decodeUnknownEffect(schema)
  return (
    server: Pick<ServerClient, "requestRaw" | "withVersions">,
    method: string,
    params: object,
    options?: RequestOptions
  ): Effect.Effect<A, AppServerError> =>
    Effect.flatMap(server.requestRaw(method, params, options), (response) =>
      Effect.mapError(
        decode(response),
        (error) => server.withVersions(appServerError(new DecodeFailed({ method, issue: error.message })))
      ))
}

const ThreadOpened = Schema.Struct({
  thread: Schema.Struct({
    id: Schema.String,
    forkedFromId: Schema.optionalKey(Schema.Unknown),
    parentThreadId: Schema.optionalKey(Schema.Unknown),
    path: Schema.optionalKey(Schema.Unknown),
    status: Schema.optionalKey(Schema.Unknown)
  }),
  approvalPolicy: Schema.optionalKey(Schema.Unknown),
  approvalsReviewer: Schema.optionalKey(Schema.Unknown),
  sandbox: Schema.optionalKey(Schema.Unknown),
  activePermissionProfile: Schema.optionalKey(Schema.Unknown),
  model: Schema.optionalKey(Schema.Unknown),
  modelProvider: Schema.optionalKey(Schema.Unknown),
  reasoningEffort: Schema.optionalKey(Schema.Unknown),
  serviceTier: Schema.optionalKey(Schema.Unknown),
  cwd: Schema.optionalKey(Schema.Unknown),
  runtimeWorkspaceRoots: Schema.optionalKey(Schema.Unknown)
})

/** A thread's id and the settings that the server reports for it. */
export type ThreadOpened = typeof ThreadOpened.Type

/** Sends `thread/start`, `thread/resume` or `thread/fork`. */
export const requestThread = requestFor(ThreadOpened)

/** Sends `turn/start`. */
export const requestTurn = requestFor(Schema.Struct({ turn: Schema.Struct({ id: Schema.String }) }))
