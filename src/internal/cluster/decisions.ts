/** Decisions of people that a workflow waits for, and their names. */
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as Schema from "effect/Schema"
import type * as Approvals from "../approvals/model.ts"
import type * as Questions from "../questions/model.ts"

/** What a person is asked: a request for approval, or questions of the model. */
export type PersonRequest = Approvals.Request | ({ readonly _tag: "UserInput" } & Questions.UserInputRequest)

/** What identifies a request when the model repeats it after a restart. Ids of items and turns differ then. */
const identityOf = (request: PersonRequest): unknown => {
  switch (request._tag) {
    case "Command":
      return [request.kind, request.command, request.cwd, request.networkApprovalContext, request.additionalPermissions]
    case "FileChange":
      return [request.changes, request.grantRoot]
    case "Permissions":
      return [request.permissions, request.cwd]
    case "McpToolCall":
      return [request.server, request.tool, request.arguments]
    case "UserInput":
      return request.questions
  }
}

/** Returns a name that equal requests have in common. It is a cryptographic hash, because a decision counts for each request of its name. */
export const requestName = (request: PersonRequest): Effect.Effect<string> =>
  Effect.map(
    Effect.promise(() =>
      globalThis.crypto.subtle.digest(
        "SHA-256",
        new TextEncoder().encode(JSON.stringify([request._tag, identityOf(request)]))
      )
    ),
    (digest) => Hex.encode(new Uint8Array(digest)).slice(0, 32)
  )

/** A decision about any kind of request, and the answers to questions. */
export const Decision = Schema.Union([
  Schema.Literals(["accept", "acceptForSession", "acceptAlways", "decline", "cancel"]),
  Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Array(Schema.String)]))
])
