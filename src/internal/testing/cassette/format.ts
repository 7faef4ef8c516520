/** The file format of cassettes, its errors, and how a file is read. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

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
  /** The version of the server in its response to `initialize`, or `null` without a response. */
  server: Schema.NullOr(Schema.String),
  /** The start of the recording, in ISO 8601. */
  recordedAt: Schema.String,
  /** The names of properties that were redacted besides the default ones. */
  redacted: Schema.Array(Schema.String),
  /** The named paths of the recording. */
  paths: Schema.Record(Schema.String, Schema.String)
})

export type Header = typeof Header.Type

const position = {
  /** The index of the connection, omitted for the first. */
  connection: Schema.optionalKey(Schema.Int),
  /** Milliseconds since the connection was opened. */
  at: Schema.Number
}

/**
 * Every other line of a cassette: a message, a line that is not JSON, or the end of a connection.
 *
 * **Details**
 *
 * A connection without an end was cut off. Such a cassette is not replayed.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Entry = Schema.Union([
  Schema.Struct({ direction: Schema.Literals(["client", "server"]), ...position, message: Schema.Json }),
  Schema.Struct({ direction: Schema.Literals(["client", "server"]), ...position, text: Schema.String }),
  Schema.Struct({
    direction: Schema.Literal("end"),
    ...position,
    /** The side that ended the connection. */
    by: Schema.Literals(["client", "server"]),
    /** The failure that ended the connection, if any. */
    error: Schema.optionalKey(Schema.Struct({
      description: Schema.String,
      exitCode: Schema.NullOr(Schema.Number),
      signal: Schema.NullOr(Schema.String),
      stderrTail: Schema.String
    }))
  })
])

export type Entry = typeof Entry.Type

/**
 * A cassette cannot be written or read.
 *
 * @category errors
 * @since 0.1.0
 */
export class CassetteError extends Schema.TaggedError<CassetteError>()("CassetteError", {
  path: Schema.String,
  /** The number of the line that cannot be read, from 1. */
  line: Schema.UndefinedOr(Schema.Number),
  description: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    return `Cassette ${this.path}${this.line === undefined ? "" : `, line ${this.line}`}: ${this.description}`
  }
}

/**
 * The program sent a message that the recording does not have, or not at this point.
 *
 * @category errors
 * @since 0.1.0
 */
export class CassetteMismatch extends Schema.TaggedError<CassetteMismatch>()("CassetteMismatch", {
  path: Schema.String,
  /** The method of the unexpected message. For a response, the method of the server's request. */
  method: Schema.String,
  /** The recorded message that is closest, if one is similar. */
  expected: Schema.UndefinedOr(Schema.Json),
  /** The message that the program sent, without secrets. */
  actual: Schema.Json,
  /** The difference, for a person to read. */
  diff: Schema.String
}) {
  override get message(): string {
    return `Cassette ${this.path}: ${this.diff}`
  }
}

export const decodeJson = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Json))

const decodeHeader = Schema.decodeUnknownResult(Schema.fromJsonString(Header))
const decodeVersion = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Struct({ cassette: Schema.Json })))
const decodeEntry = Schema.decodeUnknownResult(Schema.fromJsonString(Entry))

/** A recording, as its file has it. */
export interface Cassette {
  readonly path: string
  readonly header: Header
  readonly entries: ReadonlyArray<Entry>
}

/** Reads a cassette, and checks that every connection in it has an end. */
export const load = Effect.fnUntraced(function*(path: string): Effect.fn.Return<
  Cassette,
  CassetteError,
  FileSystem.FileSystem
> {
  const fs = yield* FileSystem.FileSystem
  const invalid = (line: number | undefined, description: string, cause?: unknown) =>
    new CassetteError({ path, line, description, ...(cause === undefined ? {} : { cause }) })

  const text = yield* Effect.mapError(fs.readFileString(path), (cause) =>
    invalid(
      undefined,
      cause.reason._tag === "NotFound"
        ? "The file does not exist. Record it first"
        : `The file cannot be read: ${cause.message}`,
      cause
    ))
  const [first = "", ...rest] = text.replace(/\n$/, "").split("\n")
  const version = Option.getOrUndefined(decodeVersion(first))?.cassette
  if (version === undefined) return yield* invalid(1, "This line is not the header of a cassette")
  if (version !== 1) {
    return yield* invalid(
      1,
      `The file has version \`${JSON.stringify(version)}\` of the format, and this version of effect-codex reads ` +
        "version 1. Record it again"
    )
  }
  const header = yield* Effect.mapError(
    Effect.fromResult(decodeHeader(first)),
    (error) => invalid(1, `This line is not the header of a cassette: ${error.message}`)
  )
  const entries = yield* Effect.forEach(rest, (line, index) =>
    Effect.mapError(
      Effect.fromResult(decodeEntry(line)),
      (error) => invalid(index + 2, `This line is not an entry of a cassette: ${error.message}`)
    ))
  const ended = new Set(entries.flatMap((entry) => entry.direction === "end" ? [entry.connection ?? 0] : []))
  if (entries.some(({ connection }) => !ended.has(connection ?? 0))) {
    return yield* invalid(rest.length + 1, "The file stops before the end of the recording. Record it again")
  }
  return { path, header, entries }
})
