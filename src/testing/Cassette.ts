/**
 * Records what a program and a server say to each other, and plays the server's part from the recording for ever after.
 *
 * {@link record} goes around any transport and writes a file; {@link replay} is a transport that needs nothing but that
 * file. The program does not change:
 *
 * ```ts
 * import * as NodeServices from "@effect/platform-node/NodeServices"
 * import { Layer } from "effect"
 * import { AppServer, Codex, StdioTransport } from "effect-codex"
 * import { Cassette } from "effect-codex/testing"
 *
 * const path = "test/cassettes/greeting.jsonl"
 *
 * const transport = process.env.RECORD === "1"
 *   ? Cassette.record(path).pipe(Layer.provide(StdioTransport.layer()))
 *   : Cassette.replay(path)
 *
 * export const layer = Codex.layer.pipe(
 *   Layer.provideMerge(AppServer.layer()),
 *   Layer.provide(transport),
 *   Layer.provide(NodeServices.layer)
 * )
 * ```
 *
 * **What is matched**
 *
 * A message of the program takes the first recorded one that has not been taken and has the same method and the same
 * params; an answer to the server the one with the same id and content. These may differ:
 *
 * - the ids of the program's requests, and who it says it is in `initialize`,
 * - absolute paths in properties such as `cwd` and `path`, one for one and the same everywhere; from then on the server's
 *   messages have the program's paths. Of two paths that end alike, what they begin with is exchanged:
 *   `/tmp/a/project` for `/tmp/b/project` makes `/tmp/a/home` be `/tmp/b/home`,
 * - properties named in `ignore`,
 * - what was redacted,
 * - the `turnId` of `turn/interrupt` if either is empty,
 * - which of several equal requests for a new thread, made at once, got which thread, as long as the program has not used
 *   them. Two fibers that open a thread each may come in any order.
 *
 * Everything else fails the connection with a {@link CassetteMismatch}, which is the `cause` of the `ConnectionClosed` that
 * the program's requests fail with.
 *
 * **What is sent, and when**
 *
 * The server's messages come in the recorded order, each after the program has sent everything that it had sent before
 * that message in the recording. So a program hears nothing earlier than it did then, and its own messages may come in
 * another order where its fibers do not wait for each other. When the program waits for an answer that the recording has
 * only after a message which does not come, that is a mismatch too, after two seconds.
 *
 * **What is left out**
 *
 * The check of the login that `Codex.layer` makes, with `account/read`, is passed on but not recorded, because its response has the
 * user's account. A recording does not respond to it. `account/read` requests of the program are recorded and matched as any other.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { PlatformError } from "effect/PlatformError"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type AppServerError, ConnectionClosed, make as appServerError } from "../AppServerError.ts"
import { isLoginCheck, isLoginCheckResponse, loginCheck } from "../internal/connection/loginCheck.ts"
import { assertOptions, type Kinds, object, oneOf, recordOf, string, strings } from "../internal/options.ts"
import {
  compareMessages,
  type Comparison,
  describeDifferences,
  Names,
  type Renaming
} from "../internal/testing/cassetteMatch.ts"
import { isJsonObject, makeJsonRedact, type Redact } from "../internal/testing/cassetteRedact.ts"
import { packageVersion } from "../internal/version.ts"
import * as Metadata from "../Metadata.ts"
import { type Connection, Transport } from "../Transport.ts"

// ---------------------------------------------------------------------------------------------------------------------
// File format
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The first line of a cassette.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Header = Schema.Struct({
  /** The version of the file format. */
  cassette: Schema.Literal(1),
  /** The version of this package. */
  sdk: Schema.String,
  /** The version of the server as its answer to `initialize` has it; `null` if it never answered. */
  server: Schema.NullOr(Schema.String),
  /** When the recording began, in ISO 8601. */
  recordedAt: Schema.String,
  /** The names of properties that were redacted besides the usual ones. */
  redacted: Schema.Array(Schema.String),
  /** The paths that were named when this was recorded. */
  paths: Schema.Record(Schema.String, Schema.String)
})

const place = {
  /** Which connection it was; left out for the first. */
  connection: Schema.optionalKey(Schema.Int),
  /** Milliseconds since that connection was opened. */
  at: Schema.Number
}

/**
 * Every other line of a cassette: a message, a line that was not JSON, or the end of the connection. A connection without an
 * end was cut off, and is not played.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Entry = Schema.Union([
  Schema.Struct({ direction: Schema.Literals(["client", "server"]), ...place, message: Schema.Json }),
  Schema.Struct({ direction: Schema.Literals(["client", "server"]), ...place, text: Schema.String }),
  Schema.Struct({
    direction: Schema.Literal("end"),
    ...place,
    /** Who ended it. */
    by: Schema.Literals(["client", "server"]),
    /** Why, if it ended with a failure. */
    error: Schema.optionalKey(Schema.Struct({
      description: Schema.String,
      exitCode: Schema.NullOr(Schema.Number),
      signal: Schema.NullOr(Schema.String),
      stderrTail: Schema.String
    }))
  })
])

type Entry = typeof Entry.Type

// ---------------------------------------------------------------------------------------------------------------------
// Errors
// ---------------------------------------------------------------------------------------------------------------------

/**
 * A cassette cannot be written or read.
 *
 * @category errors
 * @since 0.1.0
 */
export class CassetteError extends Schema.TaggedError<CassetteError>()("CassetteError", {
  path: Schema.String,
  /** The line of the file that cannot be read, from 1. */
  line: Schema.UndefinedOr(Schema.Number),
  description: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    return `Cassette ${this.path}${this.line === undefined ? "" : `, line ${this.line}`}: ${this.description}`
  }
}

/**
 * The program sent what the recording does not have, or not where it has it.
 *
 * @category errors
 * @since 0.1.0
 */
export class CassetteMismatch extends Schema.TaggedError<CassetteMismatch>()("CassetteMismatch", {
  path: Schema.String,
  /** The method of the message that was not expected; for an answer that of the server's request. */
  method: Schema.String,
  /** The recorded message that comes closest, if any does. */
  expected: Schema.UndefinedOr(Schema.Json),
  /** What the program sent, without secrets. */
  actual: Schema.Json,
  /** What differs, to be read by people. */
  diff: Schema.String
}) {
  override get message(): string {
    return `Cassette ${this.path}: ${this.diff}`
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Record
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What is kept out of a recording.
 *
 * @category models
 * @since 0.1.0
 */
export interface RecordOptions {
  /**
   * What is redacted besides credentials of well-known forms, properties with names such as `accessToken`, `apiKey` or
   * `password`, and what the transport knows to be a secret, as `StdioTransport` does of what its `env` has as `Redacted`. A secret that the server splits over two messages, as a streamed text can be, is not recognized.
   */
  readonly redact?: {
    /** Names of properties whose strings and numbers are replaced, at any depth. */
    readonly fields?: ReadonlyArray<string> | undefined
    /** Texts that are replaced wherever they occur. */
    readonly values?: ReadonlyArray<string | Redacted.Redacted<string>> | undefined
  } | undefined
  /**
   * Paths that will be others in another run, by a name of your choice, such as `{ workspace: "/tmp/abc" }`. It is only
   * needed for what is not sent as a `cwd` or a `path` first; give {@link replay} the same names.
   */
  readonly paths?: { readonly [name: string]: string } | undefined
}

const recordKinds: Kinds<RecordOptions> = { redact: object, paths: recordOf(string) }

type Line =
  & { readonly connection: number; readonly at: number; readonly redact: Redact }
  & (
    | { readonly direction: "client" | "server"; readonly line: string }
    | { readonly direction: "end"; readonly by: "client" | "server"; readonly error: AppServerError | undefined }
  )

const decodeJson = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Json))

const toEntry = (line: Line): Entry => {
  const { redact } = line
  const place = { ...(line.connection === 0 ? {} : { connection: line.connection }), at: line.at }
  if (line.direction === "end") {
    const { by, direction, error } = line
    if (error === undefined) return { direction, ...place, by }
    const reason = error.reason._tag === "ConnectionClosed" ? error.reason : undefined
    return {
      direction,
      ...place,
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
    onNone: () => ({ direction, ...place, text: redact.text(line.line) }),
    onSome: (message) => ({ direction, ...place, message: redact.json(message) })
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

/** Who the server is, if this is its answer to `initialize`. */
const serverOf = (entry: Entry): string | undefined =>
  Option.getOrUndefined(
    Option.map(decodeInitialized(entry), ({ message: { result } }) =>
      Result.match(Metadata.fromInitialize(result), {
        onFailure: () => result.userAgent,
        onSuccess: ({ serverVersion }) => serverVersion
      }))
  )

const cannotWrite = (path: string) => (cause: PlatformError): CassetteError =>
  new CassetteError({ path, line: undefined, description: `it cannot be written: ${cause.message}`, cause })

/** Writes lines in a fiber of its own, so that the connection never waits for the disk. */
const makeWriter = Effect.fnUntraced(function*(path: string, options: RecordOptions) {
  const fs = yield* FileSystem.FileSystem
  const fields = options.redact?.fields ?? []
  const values = (options.redact?.values ?? []).map((value) =>
    Redacted.isRedacted(value) ? Redacted.value(value) : value
  )
  const recordedAt = DateTime.formatIso(yield* DateTime.now)
  const directory = path.replace(/[\\/][^\\/]*$/, "")
  if (directory !== path && directory !== "") {
    yield* Effect.mapError(fs.makeDirectory(directory, { recursive: true }), cannotWrite(path))
  }
  const file = yield* Effect.mapError(fs.open(path, { flag: "w" }), cannotWrite(path))
  const queue = yield* Queue.unbounded<Line | { readonly flushed: Deferred.Deferred<void> }, Cause.Done>()

  let headerWritten = false
  /** What came before the server said who it is. */
  let early = ""
  const toText = (line: Line): string => {
    const entry = toEntry(line)
    const text = JSON.stringify(entry) + "\n"
    if (headerWritten) return text
    early += text
    const server = serverOf(entry)
    return server === undefined ? "" : header(server)
  }
  const header = (server: string | null): string => {
    headerWritten = true
    const value: typeof Header.Type = {
      cassette: 1,
      sdk: packageVersion,
      server,
      recordedAt,
      redacted: fields,
      paths: options.paths ?? {}
    }
    return `${JSON.stringify(value)}\n${early}`
  }

  let broken = false
  const encoder = new TextEncoder()
  const write = Effect.fnUntraced(
    function*(lines: ReadonlyArray<Line>, isFlush: boolean) {
      if (broken) return
      let text = lines.map(toText).join("")
      if (isFlush && !headerWritten) text += header(null)
      if (text !== "") yield* file.writeAll(encoder.encode(text))
    },
    Effect.catchCause((cause) => {
      broken = true
      const error = Cause.squash(cause)
      return Effect.logWarning(
        `Cassette ${path} cannot be written any more, and the connection goes on without it: ${
          Predicate.isError(error) ? error.message : String(error)
        }`
      )
    })
  )

  const writing = yield* Stream.fromQueue(queue).pipe(
    Stream.runForEachArray((batch) => {
      const lines = batch.filter((item): item is Line => !("flushed" in item))
      const flushes = batch.filter((item) => "flushed" in item)
      return Effect.andThen(
        write(lines, flushes.length > 0),
        Effect.forEach(flushes, ({ flushed }) => Deferred.succeed(flushed, undefined), { discard: true })
      )
    }),
    Effect.forkScoped
  )
  const flush = Effect.gen(function*() {
    const flushed = yield* Deferred.make<void>()
    if (yield* Queue.offer(queue, { flushed })) yield* Deferred.await(flushed)
  })
  yield* Effect.addFinalizer(() => Effect.andThen(Queue.end(queue), Fiber.await(writing)))

  return {
    write: (line: Line) => Queue.offerUnsafe(queue, line),
    flush,
    redactWith: (removeSecrets: Connection["redact"]) => makeJsonRedact(fields, values, removeSecrets)
  }
})

/**
 * A {@link Transport} that writes down what goes over the one below it. The file is written anew, with its directory.
 *
 * Every line is redacted before it is written, and is on disk when the scope of its connection has closed. What is JSON
 * comes back as the same JSON, though not as the same bytes. All connections of the layer go into the one file.
 *
 * Building the layer fails if the file cannot be opened. If it cannot be written later, that is reported in the log, and
 * the connection goes on.
 *
 * @category layers
 * @since 0.1.0
 */
export const record = (
  path: string,
  options: RecordOptions = {}
): Layer.Layer<Transport, CassetteError, Transport | FileSystem.FileSystem> =>
  Layer.effect(
    Transport,
    Effect.gen(function*() {
      assertOptions("Cassette.record", recordKinds, options)
      const transport = yield* Transport
      const writer = yield* makeWriter(path, options)
      let connections = 0

      const connect = Effect.gen(function*() {
        const clock = yield* Clock.Clock
        const connection = connections++
        const start = clock.currentTimeMillisUnsafe()
        let redact = writer.redactWith(undefined)
        const now = () => ({ connection, at: clock.currentTimeMillisUnsafe() - start, redact })
        // The response to the check of the login has the user's account.
        let awaitsCheck = false
        let ended = false
        const end = (by: "client" | "server", error?: AppServerError) => {
          if (ended) return
          ended = true
          writer.write({ ...now(), direction: "end", by, error })
        }
        // Before the connection is opened, so that it runs when whatever is behind that has gone.
        yield* Effect.addFinalizer(() =>
          Effect.suspend(() => {
            end("client")
            return writer.flush
          })
        )
        const inner = yield* transport.connect
        redact = writer.redactWith(inner.redact)
        return {
          redact: inner.redact,
          incoming: inner.incoming.pipe(
            Stream.mapArray((lines) => {
              for (const line of lines) {
                if (awaitsCheck && Option.exists(decodeJson(line), isLoginCheckResponse)) awaitsCheck = false
                else writer.write({ ...now(), direction: "server", line })
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
              else writer.write({ ...now(), direction: "client", line })
              return inner.send(line)
            })
        }
      })

      return Transport.of({ connect })
    })
  )

// ---------------------------------------------------------------------------------------------------------------------
// Replay
// ---------------------------------------------------------------------------------------------------------------------

/**
 * How a recording is played.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReplayOptions {
  /**
   * `"none"`, the default, sends what may be sent at once. `"recorded"` lets as much time pass before each message of the
   * server as there was between it and the message before; under `TestClock` that is virtual time.
   */
  readonly timing?: "none" | "recorded" | undefined
  /**
   * Names of properties, at any depth, that may be different from the recorded ones, such as random ids and times that the
   * program makes. A string of 8 characters or more that stands there replaces the recorded one in what the server sends.
   */
  readonly ignore?: ReadonlyArray<string> | undefined
  /** What the paths that {@link record} was given are in this run, by the same names. */
  readonly paths?: { readonly [name: string]: string } | undefined
}

const replayKinds: Kinds<ReplayOptions> = {
  timing: oneOf("none", "recorded"),
  ignore: strings,
  paths: recordOf(string)
}

const decodeLine = {
  header: Schema.decodeUnknownResult(Schema.fromJsonString(Header)),
  version: Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Struct({ cassette: Schema.Json }))),
  entry: Schema.decodeUnknownResult(Schema.fromJsonString(Entry))
}

const load = Effect.fnUntraced(function*(path: string) {
  const fs = yield* FileSystem.FileSystem
  const broken = (line: number | undefined, description: string, cause?: unknown) =>
    new CassetteError({ path, line, description, ...(cause === undefined ? {} : { cause }) })

  const text = yield* Effect.mapError(fs.readFileString(path), (cause) =>
    broken(
      undefined,
      cause.reason._tag === "NotFound"
        ? "there is no such file; record it first"
        : `it cannot be read: ${cause.message}`,
      cause
    ))
  const [first = "", ...rest] = text.replace(/\n$/, "").split("\n")
  const version = Option.getOrUndefined(decodeLine.version(first))?.cassette
  if (version === undefined) return yield* broken(1, "this is not the header of a cassette")
  if (version !== 1) {
    return yield* broken(
      1,
      `it has version ${JSON.stringify(version)} of the format, and this version of effect-codex reads version 1`
    )
  }
  const header = yield* Effect.mapError(
    Effect.fromResult(decodeLine.header(first)),
    (error) => broken(1, `this is not the header of a cassette: ${error.message}`)
  )
  const entries = yield* Effect.forEach(rest, (line, index) =>
    Effect.mapError(
      Effect.fromResult(decodeLine.entry(line)),
      (error) => broken(index + 2, `this is not a line of a cassette: ${error.message}`)
    ))
  const ended = new Set(entries.flatMap((entry) => entry.direction === "end" ? [entry.connection ?? 0] : []))
  if (entries.some(({ connection }) => !ended.has(connection ?? 0))) {
    return yield* broken(rest.length + 1, "it stops here, before the end of the recording; record it again")
  }
  return { path, header, entries }
})

/** A message that the program sent in the recording. */
interface Sent {
  readonly line: number
  readonly kind: string
  readonly method: string
  readonly message: Schema.Json
  readonly arrived: Deferred.Deferred<void>
  /** Where the recording has the answer. */
  answered: number | undefined
  /** The program's counterpart, once it has sent it. */
  taken: { readonly id: Schema.Json | undefined } | undefined
}

/** A thread, the request that opened it, and where that is answered. */
interface Opened {
  readonly by: Sent
  readonly line: number
  readonly step: Step
}

type Step =
  & { readonly line: number; readonly at: number }
  & (
    | { readonly type: "await"; readonly sent: Sent }
    | { readonly type: "send"; readonly message: Schema.Json; readonly answers: Sent | undefined }
    | { readonly type: "sendText"; readonly text: string }
    | { readonly type: "end"; readonly error: Extract<Entry, { direction: "end" }>["error"] }
  )

/** Messages of different kinds are never counterparts of each other. */
const kindOf = (message: Schema.Json): string => {
  if (!isJsonObject(message)) return "a value"
  const { id, method } = message
  if (Predicate.isString(method)) return id === undefined ? `notification ${method}` : `request ${method}`
  return id === undefined ? "an object" : `the answer to request ${JSON.stringify(id)} of the server`
}

/** What of a message is compared. Ids of requests are the program's own affair, and so is what it calls itself. */
const comparable = (message: Schema.Json): Schema.Json => {
  if (!isJsonObject(message) || message["method"] === undefined) return message
  const { id: _id, ...rest } = message
  if (message["method"] !== "initialize" || !isJsonObject(message["params"])) return rest
  const { clientInfo: _clientInfo, ...params } = message["params"]
  return { ...rest, params }
}

const isThreadAnswer = (
  message: Schema.Json
): message is { readonly result: { readonly thread: { readonly id: string } } } =>
  isJsonObject(message) && isJsonObject(message["result"]) && isJsonObject(message["result"]["thread"]) &&
  Predicate.isString(message["result"]["thread"]["id"])

const isSameRequest = (one: Sent, other: Sent): boolean => {
  if (one.kind !== other.kind) return false
  const { cost, differences } = compareMessages(comparable(one.message), comparable(other.message), one.method, {
    names: new Names(),
    ignore: new Set(),
    exchange: () => undefined
  })
  return differences.length === 0 && cost === 0
}

const mentions = (message: Schema.Json, thread: string): boolean =>
  JSON.stringify(message).includes(JSON.stringify(thread))

const describe = ({ kind, line }: Sent): string => `${kind} (line ${line})`

/** What one connection of the recording comes to: what to do one after the other, and which threads were opened. */
const toScript = Effect.fnUntraced(function*(entries: ReadonlyArray<Entry>, connection: number) {
  const steps: Array<Step> = []
  const sent: Array<Sent> = []
  const threads = new Map<string, Opened>()
  const asked = new Map<Schema.Json, string>()

  for (const [index, entry] of entries.entries()) {
    if ((entry.connection ?? 0) !== connection) continue
    const place = { line: index + 2, at: entry.at }
    if (entry.direction === "end") {
      if (entry.by === "server") steps.push({ ...place, type: "end", error: entry.error })
      continue
    }
    const message = "message" in entry ? entry.message : entry.text
    const id = isJsonObject(message) ? message["id"] : undefined
    const method = isJsonObject(message) && Predicate.isString(message["method"]) ? message["method"] : undefined
    if (entry.direction === "client") {
      const client: Sent = {
        line: place.line,
        kind: "message" in entry ? kindOf(message) : "text",
        method: method ?? (id === undefined ? undefined : asked.get(id)) ?? "",
        message,
        arrived: yield* Deferred.make<void>(),
        answered: undefined,
        taken: undefined
      }
      sent.push(client)
      steps.push({ ...place, type: "await", sent: client })
    } else if ("text" in entry) {
      steps.push({ ...place, type: "sendText", text: entry.text })
    } else {
      if (method !== undefined && id !== undefined) asked.set(id, method)
      // An id may be used again once it has been answered.
      const answers = method === undefined && id !== undefined
        ? sent.findLast((client) =>
          isJsonObject(client.message) && client.message["id"] === id && client.kind.startsWith("request ")
        )
        : undefined
      if (answers !== undefined) answers.answered ??= place.line
      const step: Step = { ...place, type: "send", message, answers }
      if (answers === undefined || !isThreadAnswer(message) || threads.has(message.result.thread.id)) {
        steps.push(step)
        continue
      }
      // Equal requests that were open at once are answered at once: which fiber gets which thread is then of no account.
      const twin = [...threads.values()].findLast(({ by, line }) => line > answers.line && isSameRequest(by, answers))
      steps.splice(twin === undefined ? steps.length : steps.indexOf(twin.step) + 1, 0, step)
      threads.set(message.result.thread.id, { by: answers, line: twin?.line ?? place.line, step })
    }
  }
  return { steps, sent, threads }
})

/** How long the program may keep the recording waiting before that is worth a word. */
const patience = Duration.seconds(2)

/** In real time, also under a `TestClock`: a test that is stuck is to end. */
const realTime = Effect.provideService(Clock.Clock, Clock.Clock.defaultValue())

const play = Effect.fnUntraced(function*(
  cassette: Effect.Success<ReturnType<typeof load>>,
  connection: number,
  options: ReplayOptions
): Effect.fn.Return<Connection, never, Scope.Scope> {
  const { header, path } = cassette
  const { sent, steps, threads } = yield* toScript(cassette.entries, connection)
  const toClient = yield* Queue.unbounded<string, AppServerError | Cause.Done>()
  const redact = makeJsonRedact(header.redacted, [])
  const ignore = new Set(options.ignore)
  let names = new Names().with(
    Object.entries(options.paths ?? {}).flatMap(([name, actual]) => {
      const recorded = Object.hasOwn(header.paths, name) ? header.paths[name] : undefined
      return recorded === undefined ? [] : [{ recorded, actual, from: 0 }]
    })
  )
  let ended = false
  let received = 0

  /** The threads that the program has sent something about. */
  const used = new Set<string>()

  const exchange = (recorded: string, actual: string): Renaming | undefined => {
    const wanted = threads.get(recorded)
    const given = threads.get(actual)
    if (wanted === undefined || given === undefined || used.has(actual)) return undefined
    // Until they were used there was no telling them apart.
    const uses = sent.filter(({ message }) => mentions(message, recorded))
    const firstUse = sent.find(({ message }) => mentions(message, recorded) || mentions(message, actual))?.line ?? 0
    return wanted.line < firstUse && given.line < firstUse && uses.every(({ taken }) => taken === undefined) &&
        isSameRequest(wanted.by, given.by)
      ? { recorded, actual, from: uses[0]!.line }
      : undefined
  }

  const compare = (expected: Sent, actual: Schema.Json): Comparison =>
    compareMessages(comparable(expected.message), comparable(actual), expected.method, { names, ignore, exchange })

  const fail = (mismatch: CassetteMismatch) => {
    ended = true
    return Queue.fail(
      toClient,
      appServerError(
        new ConnectionClosed({
          description: mismatch.message,
          exitCode: undefined,
          signal: undefined,
          stderrTail: "",
          cause: mismatch
        })
      )
    )
  }

  const mismatchOf = (kind: string, message: Schema.Json): CassetteMismatch => {
    const left = sent.filter(({ taken }) => taken === undefined)
    const closest = left
      .filter((candidate) => candidate.kind === kind)
      .map((candidate) => ({ candidate, differences: compare(candidate, message).differences }))
      .sort((a, b) => a.differences.length - b.differences.length)[0]
    const method = isJsonObject(message) && Predicate.isString(message["method"]) ? message["method"] : undefined
    return new CassetteMismatch({
      path,
      method: method ?? sent.find((other) => other.kind === kind)?.method ?? "",
      expected: closest?.candidate.message,
      actual: message,
      diff: closest !== undefined
        ? `the program sent ${kind}, which is not in the recording. Closest is line ${closest.candidate.line} (- recorded, + sent):\n${
          describeDifferences(closest.differences)
        }`
        : `the program sent ${kind}, which the recording does not have${
          sent.some((other) => other.kind === kind) ? " any more" : ""
        }. ${
          left.length === 0
            ? "Everything in it has been sent"
            : `Still to be sent are ${left.slice(0, 5).map(describe).join(", ")}${left.length > 5 ? ", …" : ""}`
        }`
    })
  }

  const send = (line: string) =>
    Effect.suspend(() => {
      if (ended) return Effect.void
      const decoded = decodeJson(line)
      if (Option.isSome(decoded) && isLoginCheck(decoded.value)) return Effect.void
      received++
      const message = Option.match(decoded, { onNone: () => redact.text(line), onSome: redact.json })
      const kind = Option.isNone(decoded) ? "text" : kindOf(message)
      let best: { readonly candidate: Sent; readonly comparison: Comparison } | undefined
      for (const candidate of sent) {
        if (candidate.taken !== undefined || candidate.kind !== kind) continue
        const comparison = compare(candidate, message)
        if (comparison.differences.length > 0) continue
        if (best === undefined || comparison.cost < best.comparison.cost) best = { candidate, comparison }
        if (comparison.cost === 0) break
      }
      if (best === undefined) return fail(mismatchOf(kind, message))
      names = names.with(best.comparison.renamings)
      best.candidate.taken = {
        id: Option.isSome(decoded) && isJsonObject(decoded.value) ? decoded.value["id"] : undefined
      }
      for (const thread of threads.keys()) if (mentions(message, thread)) used.add(thread)
      return Deferred.succeed(best.candidate.arrived, undefined)
    }).pipe(Effect.asVoid)

  /** Waits for the program to send its counterpart of a recorded message. */
  const awaitArrival = Effect.fnUntraced(function*(expected: Sent) {
    let warned = false
    while (expected.taken === undefined) {
      const before = received
      const arrived = yield* Deferred.await(expected.arrived).pipe(Effect.timeoutOption(patience), realTime)
      if (Option.isSome(arrived)) return
      if (before !== received) continue
      const ahead = sent.find(({ answered, line, taken }) =>
        taken !== undefined && line > expected.line && answered !== undefined
      )
      if (ahead !== undefined) {
        yield* fail(
          new CassetteMismatch({
            path,
            method: ahead.method,
            expected: expected.message,
            actual: ahead.message,
            diff: `the program waits for the answer to ${describe(ahead)}, but has not sent what was sent before it: ${
              sent.filter(({ line, taken }) => taken === undefined && line < ahead.line).map(describe).join(", ")
            }`
          })
        )
        return yield* Effect.never
      }
      if (!warned) {
        warned = true
        yield* Effect.logWarning(
          `Cassette ${path}: the recording goes on when the program has sent ${describe(expected)}`
        )
      }
    }
  })

  const emit = (line: string) =>
    // The program may keep up, as it can with a server: nothing reaches it in one heap.
    Effect.andThen(Queue.offer(toClient, line), Effect.yieldNow)

  const run = Effect.fnUntraced(function*(step: Step) {
    switch (step.type) {
      case "await":
        return yield* awaitArrival(step.sent)
      case "sendText":
        return yield* emit(step.text)
      case "send": {
        // The news of a thread belongs to its opening, which is before it was used, whenever it comes.
        const isOpening = isJsonObject(step.message) && step.message["method"] === "thread/started"
        const message = names.toActual(step.message, isOpening ? 0 : step.line)
        const id = step.answers?.taken?.id
        return yield* emit(JSON.stringify(id === undefined || !isJsonObject(message) ? message : { ...message, id }))
      }
      case "end": {
        ended = true
        return yield* step.error === undefined ? Queue.end(toClient) : Queue.fail(
          toClient,
          appServerError(
            new ConnectionClosed({
              description: step.error.description,
              exitCode: step.error.exitCode ?? undefined,
              signal: step.error.signal ?? undefined,
              stderrTail: step.error.stderrTail
            })
          )
        )
      }
    }
  })

  yield* Effect.forEach(steps, (step, index) => {
    const gap = step.at - (steps[index - 1]?.at ?? 0)
    return options.timing === "recorded" && step.type !== "await" && gap > 0
      ? Effect.andThen(Effect.sleep(Duration.millis(gap)), run(step))
      : run(step)
  }, { discard: true }).pipe(Effect.forkScoped)

  yield* Effect.addFinalizer(() => {
    const left = sent.filter(({ taken }) => taken === undefined)
    return ended || left.length === 0
      ? Effect.void
      : Effect.logWarning(
        `Cassette ${path}: ${left.length} recorded message(s) of the program were not sent, the first is ${
          describe(left[0]!)
        }`
      )
  })

  return { incoming: Stream.fromQueue(toClient), send }
})

/**
 * A {@link Transport} that plays the server's part from a file that {@link record} has written. What is matched, and what
 * is sent when, is described at the top of this module.
 *
 * Building the layer fails if the file is missing, has another version or cannot be read. Each connection is played once,
 * in the order they were recorded in. A connection that the server ended ends the same way; one that the program closed
 * stays open until the program closes it.
 *
 * @category layers
 * @since 0.1.0
 */
export const replay = (
  path: string,
  options: ReplayOptions = {}
): Layer.Layer<Transport, CassetteError, FileSystem.FileSystem> =>
  Layer.effect(
    Transport,
    Effect.gen(function*() {
      assertOptions("Cassette.replay", replayKinds, options)
      const cassette = yield* load(path)
      const recorded = Math.max(0, ...cassette.entries.map(({ connection }) => connection ?? 0)) + 1
      let connections = 0
      return Transport.of({
        connect: Effect.suspend(() => {
          const connection = connections++
          return connection < recorded ? play(cassette, connection, options) : Effect.fail(
            appServerError(
              new ConnectionClosed({
                description: `cassette ${path} has ${recorded} connection(s), and this is one more`,
                exitCode: undefined,
                signal: undefined,
                stderrTail: ""
              })
            )
          )
        })
      })
    })
  )
