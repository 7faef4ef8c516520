/** Reads the tools that a stored thread was started with, from its file: the protocol has no request for them. */
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { AppServerError } from "../../../AppServerError.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { getOwn, getOwnString } from "../../getOwn.ts"
import type { ThreadOpened } from "../threads/responses.ts"

/** The JSON Schema of the arguments of each tool, by name. */
export type RegisteredTools = ReadonlyMap<string, unknown>

/** The first line of the file of a thread. */
const SessionMeta = Schema.fromJsonString(Schema.Struct({
  type: Schema.Literal("session_meta"),
  payload: Schema.Struct({
    dynamic_tools: Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.Struct({
      name: Schema.String,
      inputSchema: Schema.optionalKey(Schema.Unknown)
    }))))
  })
}))

const decodeMeta = Schema.decodeUnknownOption(SessionMeta)

/** Reads the first line of a file. `fs/readFile` sends the whole file, so it is used only where `head` cannot run. */
const readHead = (server: ServerConnection, path: string): Effect.Effect<string, AppServerError> =>
  server.request("command/exec", {
    command: ["head", "-n", "1", path],
    sandboxPolicy: { type: "dangerFullAccess" },
    // The line also contains the instructions, which may be long.
    disableOutputCap: true
  })
    .pipe(
      Effect.flatMap(({ exitCode, stdout }) => exitCode === 0 ? Effect.succeed(stdout) : readFirstLine(server, path)),
      Effect.catchReason("AppServerError", "RequestRejected", () => readFirstLine(server, path))
    )

const readFirstLine = (server: ServerConnection, path: string): Effect.Effect<string, AppServerError> =>
  Effect.map(server.request("fs/readFile", { path }), ({ dataBase64 }) => {
    const text = Option.getOrElse(Result.getSuccess(Base64.decodeString(dataBase64)), () => "")
    return text.slice(0, Math.max(0, text.indexOf("\n")))
  })

/** Returns the path of the file of a thread. An ephemeral fork has no file, and the tools of its original, which `id` names. */
const getThreadPath = (
  server: ServerConnection,
  id: string,
  { thread }: ThreadOpened
): Effect.Effect<string | undefined, AppServerError> =>
  Predicate.isString(thread.path) ? Effect.succeed(thread.path) : Effect.map(
    server.requestRaw("thread/read", { threadId: id }),
    (response) => getOwnString(getOwn(response, "thread"), "path")
  )

/** Reads the tools that a stored thread was started with. Returns `undefined` if its file cannot be read. */
export const readStoredTools = (
  server: ServerConnection,
  id: string,
  opened: ThreadOpened
): Effect.Effect<RegisteredTools | undefined> =>
  getThreadPath(server, id, opened).pipe(
    Effect.flatMap((path) => path === undefined ? Effect.succeed("") : readHead(server, path)),
    Effect.map((line) =>
      Option.getOrUndefined(Option.map(
        decodeMeta(line.trim()),
        ({ payload }) => new Map((payload.dynamic_tools ?? []).map(({ inputSchema, name }) => [name, inputSchema]))
      ))
    ),
    Effect.orElseSucceed(() => undefined)
  )
