/** Writes the messages of connections to a cassette. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type { PlatformError } from "effect/PlatformError"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { AppServerError } from "../../../AppServerError.ts"
import * as Metadata from "../../../Metadata.ts"
import type { Connection } from "../../../Transport.ts"
import { isLoginCheck, isLoginCheckResponse, loginCheck } from "../../connection/loginCheck.ts"
import { packageVersion } from "../../version.ts"
import { CassetteError, decodeJson, type Entry, type Header } from "./format.ts"
import { makeJsonRedact, type Redact } from "./redact.ts"

/**
 * What a recording redacts, and the paths that it names.
 *
 * @category models
 * @since 0.1.0
 */
export interface RecordOptions {
  /**
   * Redacts these fields and values, too.
   *
   * **Details**
   *
   * A recording always redacts credentials of well-known forms, properties with names such as `accessToken`, `apiKey` or
   * `password`, and the secrets of the transport: `StdioTransport` has those that its `env` has as `Redacted`.
   *
   * **Gotchas**
   *
   * A secret that the server splits over two messages, as a streamed text can be, is not recognized.
   */
  readonly redact?: {
    /** Names of properties whose strings and numbers are replaced, at any depth. */
    readonly fields?: ReadonlyArray<string> | undefined
    /** Texts that are replaced everywhere. */
    readonly values?: ReadonlyArray<string | Redacted.Redacted<string>> | undefined
  } | undefined
  /**
   * Paths that differ in another run, by a name of your choice, such as `{ workspace: "/tmp/abc" }`.
   *
   * **Details**
   *
   * Only paths that the program does not first send as a `cwd` or a `path` need a name. Pass the same names to `replay`.
   */
  readonly paths?: { readonly [name: string]: string } | undefined
}

type RecordedLine =
  & { readonly connection: number; readonly at: number; readonly redact: Redact }
  & (
    | { readonly direction: "client" | "server"; readonly line: string }
    | { readonly direction: "end"; readonly by: "client" | "server"; readonly error: AppServerError | undefined }
  )

const toEntry = (line: RecordedLine): Entry => {
  const { redact } = line
  const position = { ...(line.connection === 0 ? {} : { connection: line.connection }), at: line.at }
  if (line.direction === "end") {
    const { by, direction, error } = line
    if (error === undefined) return { direction, ...position, by }
    const reason = error.reason._tag === "ConnectionClosed" ? error.reason : undefined
    return {
      direction,
      ...position,
      by,
      error: {
        description: redact.text(reason?.description ?? error.message),
        exitCode: reason?.exitCode ?? null,
        signal: reason?.signal ?? null,
        stderrTail: redact.text(reason?.stderrTail ?? "")
      }
    }
  }
  const { direction } = line
  return Option.match(decodeJson(line.line), {
    onNone: () => ({ direction, ...position, text: redact.text(line.line) }),
    onSome: (message) => ({ direction, ...position, message: redact.json(message) })
  })
}

const decodeInitialized = Schema.decodeUnknownOption(Schema.Struct({
  direction: Schema.Literal("server"),
  message: Schema.Struct({
    result: Schema.Struct({
      userAgent: Schema.String,
      serverInfo: Schema.optional(Schema.NullOr(Schema.Struct({
        name: Schema.optional(Schema.NullOr(Schema.String)),
        version: Schema.optional(Schema.NullOr(Schema.String))
      })))
    })
  })
}))

/** The version of the server, if the entry is the response to `initialize`. */
const getServerVersion = (entry: Entry): string | undefined =>
  Option.getOrUndefined(
    Option.map(decodeInitialized(entry), ({ message: { result } }) =>
      Result.match(Metadata.fromInitialize(result), {
        onFailure: () => result.userAgent,
        onSuccess: ({ serverVersion }) => serverVersion
      }))
  )

/** Formats lines, and withholds them until the header can name the server. */
const makeFormatter = (makeHeader: (server: string | null) => Header) => {
  let headerWritten = false
  let withheld = ""
  const header = (server: string | null): string => {
    headerWritten = true
    return `${JSON.stringify(makeHeader(server))}\n${withheld}`
  }
  return {
    line: (line: RecordedLine): string => {
      const entry = toEntry(line)
      const text = JSON.stringify(entry) + "\n"
      if (headerWritten) return text
      withheld += text
      const server = getServerVersion(entry)
      return server === undefined ? "" : header(server)
    },
    flush: (): string => headerWritten ? "" : header(null)
  }
}

const openFile = Effect.fnUntraced(
  function*(path: string) {
    const fs = yield* FileSystem.FileSystem
    const directory = path.replace(/[\\/][^\\/]*$/, "")
    if (directory !== path && directory !== "") yield* fs.makeDirectory(directory, { recursive: true })
    return yield* fs.open(path, { flag: "w" })
  },
  (effect, path) =>
    Effect.mapError(
      effect,
      (cause: PlatformError) =>
        new CassetteError({ path, line: undefined, description: `The file cannot be written: ${cause.message}`, cause })
    )
)

/** Opens a cassette. A fiber writes to it, so that connections never wait for the disk. */
export const makeRecorder = Effect.fnUntraced(function*(path: string, options: RecordOptions) {
  const fields = options.redact?.fields ?? []
  const values = (options.redact?.values ?? []).map((value) =>
    Redacted.isRedacted(value) ? Redacted.value(value) : value
  )
  const recordedAt = DateTime.formatIso(yield* DateTime.now)
  const file = yield* openFile(path)
  const queue = yield* Queue.unbounded<RecordedLine | { readonly flushed: Deferred.Deferred<void> }, Cause.Done>()
  const format = makeFormatter((server) => ({
    cassette: 1,
    sdk: packageVersion,
    server,
    recordedAt,
    redacted: fields,
    paths: options.paths ?? {}
  }))
  const encoder = new TextEncoder()

  let failed = false
  const write = Effect.fnUntraced(
    function*(lines: ReadonlyArray<RecordedLine>, isFlush: boolean) {
      if (failed) return
      const text = lines.map(format.line).join("") + (isFlush ? format.flush() : "")
      if (text !== "") yield* file.writeAll(encoder.encode(text))
    },
    Effect.catchCause((cause) => {
      failed = true
      const error = Cause.squash(cause)
      return Effect.logWarning(
        `Cassette ${path} cannot be written. The connection continues without a recording: ${
          Predicate.isError(error) ? error.message : String(error)
        }`
      )
    })
  )

  const writer = yield* Stream.fromQueue(queue).pipe(
    Stream.runForEachArray((batch) => {
      const lines = batch.filter((item): item is RecordedLine => !("flushed" in item))
      const flushes = batch.filter((item) => "flushed" in item)
      return Effect.andThen(
        write(lines, flushes.length > 0),
        Effect.forEach(flushes, ({ flushed }) => Deferred.succeed(flushed, undefined), { discard: true })
      )
    }),
    Effect.forkScoped
  )
  yield* Effect.addFinalizer(() => Effect.andThen(Queue.end(queue), Fiber.await(writer)))

  return {
    write: (line: RecordedLine) => Queue.offerUnsafe(queue, line),
    flush: Effect.gen(function*() {
      const flushed = yield* Deferred.make<void>()
      if (yield* Queue.offer(queue, { flushed })) yield* Deferred.await(flushed)
    }),
    redactWith: (removeSecrets: Connection["redact"]) => makeJsonRedact(fields, values, removeSecrets)
  }
})

type Recorder = Effect.Success<ReturnType<typeof makeRecorder>>

/** Opens a connection, and records it under an index. */
export const recordConnection = Effect.fnUntraced(function*(
  recorder: Recorder,
  connect: Effect.Effect<Connection, AppServerError, Scope.Scope>,
  connection: number
): Effect.fn.Return<Connection, AppServerError, Scope.Scope> {
  const clock = yield* Clock.Clock
  const start = clock.currentTimeMillisUnsafe()
  let redact = recorder.redactWith(undefined)
  const position = () => ({ connection, at: clock.currentTimeMillisUnsafe() - start, redact })
  // The response to the login check has the user's account.
  let awaitsCheck = false
  let ended = false
  const end = (by: "client" | "server", error?: AppServerError) => {
    if (ended) return
    ended = true
    recorder.write({ ...position(), direction: "end", by, error })
  }
  // Added before the connection opens, so that it runs after the connection has closed.
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      end("client")
      return recorder.flush
    })
  )
  const inner = yield* connect
  redact = recorder.redactWith(inner.redact)
  return {
    redact: inner.redact,
    incoming: inner.incoming.pipe(
      Stream.mapArray((lines) => {
        for (const line of lines) {
          if (awaitsCheck && Option.exists(decodeJson(line), isLoginCheckResponse)) awaitsCheck = false
          else recorder.write({ ...position(), direction: "server", line })
        }
        return lines
      }),
      Stream.onExit((exit) =>
        Effect.sync(() => {
          const error = Exit.findErrorOption(exit)
          if (Exit.isFailure(exit) && Option.isNone(error)) return
          end("server", Option.getOrUndefined(error))
        })
      )
    ),
    send: (line: string) =>
      Effect.suspend(() => {
        if (line.includes(loginCheck.method) && Option.exists(decodeJson(line), isLoginCheck)) awaitsCheck = true
        else recorder.write({ ...position(), direction: "client", line })
        return inner.send(line)
      })
  }
})
