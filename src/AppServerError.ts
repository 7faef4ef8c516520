/**
 * What can go wrong between a program and `codex app-server`.
 *
 * Every operation that talks to the server fails with one {@link AppServerError}. Its `reason` says what happened and is
 * itself a tagged error, so a program handles just the reasons it cares about:
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Codex } from "effect-codex"
 *
 * export const models = Effect.gen(function*() {
 *   const codex = yield* Codex.Codex
 *   return yield* Stream.runCollect(codex.models())
 * }).pipe(
 *   Effect.catchReason("AppServerError", "Overloaded", () => Effect.succeed([]))
 * )
 * ```
 *
 * Errors carry methods, ids, sizes and causes. They never carry prompts, answers or tokens.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Protocol from "./Protocol.ts"

const TypeId = "~effect-codex/AppServerError"

const OptionalString = Schema.UndefinedOr(Schema.String)
const OptionalNumber = Schema.UndefinedOr(Schema.Number)

/** The last error that the server has reported in a turn, such as why it retries. */
const lastError = Schema.UndefinedOr(Protocol.TurnError).pipe(Schema.withConstructorDefault(Effect.undefined))

/**
 * The words of a server's error.
 *
 * @internal
 */
export const describeTurnError = ({ additionalDetails, message }: Protocol.TurnError): string =>
  additionalDetails == null || additionalDetails === "" || message.includes(additionalDetails)
    ? message
    : `${message} (${additionalDetails})`

/**
 * The sentence with the server's last error, if there is one.
 *
 * @internal
 */
export const showLastError = (error: Protocol.TurnError | undefined): string =>
  error === undefined ? "" : `. The last error that the server reported in the turn: ${describeTurnError(error)}`

const show = (value: string | undefined): string => value === undefined ? "missing" : JSON.stringify(value)

const versionField = OptionalString.pipe(Schema.withConstructorDefault(Effect.undefined))

/** The versions of the two sides, in errors that a difference between them may explain. The connection adds them. */
const versions = {
  /** The version of the server, once it is known. */
  serverVersion: versionField,
  /** The version of Codex that the protocol of this package was generated from, where that of the server is known. */
  protocolVersion: versionField
}

interface Versions {
  readonly serverVersion: string | undefined
  readonly protocolVersion: string | undefined
}

/** The versions, where they differ: one that does not is no clue. */
const showVersions = ({ protocolVersion, serverVersion }: Versions): string =>
  serverVersion === protocolVersion
    ? ""
    : ` (codex app-server is ${serverVersion}; this version of effect-codex was generated from ${protocolVersion})`

/**
 * The app-server process could not be started: the binary is missing or not executable, no binary is published for this
 * platform, or the working directory does not exist.
 *
 * @category errors
 * @since 0.1.0
 */
export class SpawnFailed extends Schema.TaggedError<SpawnFailed>()("SpawnFailed", {
  /** The binary that was to be started, when one was found. */
  command: OptionalString,
  /** The working directory that was asked for. */
  cwd: OptionalString,
  description: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    return `Cannot start codex app-server: ${this.description}`
  }
}

/**
 * The server answered `initialize`, but not in a way that makes it usable: it refused the client, or its answer names
 * neither a server nor a version.
 *
 * @category errors
 * @since 0.1.0
 */
export class InitializeFailed extends Schema.TaggedError<InitializeFailed>()("InitializeFailed", {
  description: Schema.String,
  userAgent: OptionalString,
  serverName: OptionalString,
  serverVersion: OptionalString
}) {
  override get message(): string {
    return `codex app-server did not initialize: ${this.description} (userAgent: ${show(this.userAgent)}, serverName: ${
      show(this.serverName)
    }, serverVersion: ${show(this.serverVersion)})`
  }
}

/**
 * The server is older than the oldest version that this package supports, which is `floor`. Older servers do not keep the
 * promises of this package: they lose a thread's permissions when it is resumed or forked, for one.
 *
 * The option `allowUnsupportedServer` connects all the same. A server that does not say which version of Codex it is, as a
 * test double or a build from source, is not refused.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnsupportedServer extends Schema.TaggedError<UnsupportedServer>()("UnsupportedServer", {
  serverVersion: Schema.String,
  /** The oldest supported version. */
  floor: Schema.String
}) {
  override get message(): string {
    return `codex app-server ${this.serverVersion} is not supported, because it does not keep a thread's permissions: ` +
      `update Codex to ${this.floor} or newer, or set \`allowUnsupportedServer\` to connect without that promise`
  }
}

/**
 * The connection has ended. Everything that was pending fails with it, and so does everything later.
 *
 * `exitCode` and `signal` are known when a process was behind the connection and has exited. `stderrTail` is the end of
 * what it wrote to stderr, with secrets removed.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectionClosed extends Schema.TaggedError<ConnectionClosed>()("ConnectionClosed", {
  description: Schema.String,
  exitCode: OptionalNumber,
  signal: OptionalString,
  stderrTail: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    const ended = `The connection to codex app-server has ended: ${this.description}`
    // The last words are the reason, if there is one; `stderrTail` has more, and the backtrace.
    const [words = ""] = this.stderrTail.split(/\n\s*stack backtrace:/i, 1)
    const lastWords = words.split("\n").slice(-5).join("\n").trim()
    return lastWords === "" ? ended : `${ended}\n${lastWords}`
  }
}

/**
 * The server did not answer a request in time. Whether it acted on it is unknown, unless the request was still waiting to
 * be sent (see `onSend` of a request's options). A turn that is started later all the same is interrupted.
 *
 * @category errors
 * @since 0.1.0
 */
export class RequestTimeout extends Schema.TaggedError<RequestTimeout>()("RequestTimeout", {
  method: Schema.String,
  timeoutMillis: Schema.Number
}) {
  override get message(): string {
    return `codex app-server did not answer ${this.method} within ${this.timeoutMillis} ms`
  }
}

/**
 * The server refused a request because too many were waiting (JSON-RPC code -32001). It did not act on it.
 *
 * Methods that are safe to repeat have been retried before this error is seen.
 *
 * @category errors
 * @since 0.1.0
 */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", {
  method: Schema.String
}) {
  override get message(): string {
    return `codex app-server is overloaded and refused ${this.method}; try again later`
  }
}

/**
 * The server answered a request with a JSON-RPC error for which there is no other reason. It uses code -32600 for nearly everything, so
 * `detail`, its own words, tells the cases apart.
 *
 * `ThreadNotFound`, `ThreadLocked`, `TurnEnded` and `ThreadBusy` have this error as their `cause`.
 *
 * @category errors
 * @since 0.1.0
 */
export class RequestRejected extends Schema.TaggedError<RequestRejected>()("RequestRejected", {
  method: Schema.String,
  code: Schema.Number,
  /** The server's error message. */
  detail: Schema.String,
  data: Schema.Unknown,
  ...versions
}) {
  override get message(): string {
    const detail = this.detail.length > 500 ? `${this.detail.slice(0, 500)}…` : this.detail
    return `codex app-server rejected ${this.method} (${this.code}): ${detail}${showVersions(this)}`
  }
}

/**
 * Why the server cannot find a thread.
 *
 * - `"invalidId"`: the id has not the form of a thread id.
 * - `"unknown"`: no thread with this id is stored. It was deleted, belongs to another `CODEX_HOME`, or ended with its process before
 *   a turn was run on it.
 * - `"notStored"`: the thread is open, and the server has not stored it: no turn was run on it, or it is ephemeral.
 * - `"archived"`: the thread is archived.
 * - `"notArchived"`: `thread/unarchive` finds no archived thread with this id.
 * - `"notLoaded"`: the server has not loaded the thread, or does not know it.
 * - `"deleted"`: the thread was deleted while this program held it.
 *
 * @category errors
 * @since 0.1.0
 */
export type ThreadNotFoundState =
  | "invalidId"
  | "unknown"
  | "notStored"
  | "archived"
  | "notArchived"
  | "notLoaded"
  | "deleted"

const notFound: Readonly<Record<ThreadNotFoundState, string>> = {
  invalidId: "this is not a thread id. A thread id is a UUID, as `thread.id` has it",
  unknown:
    "the server has stored no thread with this id. Check the id and the `CODEX_HOME` of the server. A thread is stored with " +
    "its first turn, until it is deleted",
  notStored: "the server has not stored it. Run a turn on the thread first; an ephemeral thread is never stored",
  archived: "it is archived. Call `codex.unarchiveThread` with its id, then `codex.resumeThread`",
  notArchived: "no archived thread has this id. Open a thread that is not archived with `codex.resumeThread`",
  notLoaded: "the server has not loaded it. Open it with `codex.resumeThread`",
  deleted: "it was deleted. Start a new thread"
}

/**
 * The server cannot find the thread that a request is about. `state` says why.
 *
 * **When to use**
 *
 * Start a new thread where a stored one is gone, or unarchive one that is archived.
 *
 * **Gotchas**
 *
 * The server has no code of its own for this, so the reason is recognized by its words. Where a server uses other words, the reason is
 * `RequestRejected`.
 *
 * @category errors
 * @since 0.1.0
 */
export class ThreadNotFound extends Schema.TaggedError<ThreadNotFound>()("ThreadNotFound", {
  method: Schema.String,
  threadId: Schema.String,
  state: Schema.Literals([
    "invalidId",
    "unknown",
    "notStored",
    "archived",
    "notArchived",
    "notLoaded",
    "deleted"
  ]),
  /** The server's own error: its code, words and data. */
  cause: RequestRejected
}) {
  override get message(): string {
    return `${this.method} cannot find thread ${this.threadId}: ${notFound[this.state]}`
  }
}

/**
 * Another app-server process has opened the thread, and only one process can write to a thread.
 *
 * **Details**
 *
 * The server refuses to resume, archive, unarchive and delete such a thread. It can be read, listed, named and forked.
 *
 * @category errors
 * @since 0.1.0
 */
export class ThreadLocked extends Schema.TaggedError<ThreadLocked>()("ThreadLocked", {
  method: Schema.String,
  threadId: Schema.String,
  /** The server's own error: its code, words and data. */
  cause: RequestRejected
}) {
  override get message(): string {
    return `${this.method} was refused: thread ${this.threadId} is open in another app-server process. End that process, or open a ` +
      "copy of the thread here with `codex.forkThread`"
  }
}

/**
 * A steer or an interrupt came too late: the turn is not the one that the thread is running.
 *
 * **Details**
 *
 * `turn.interrupt` of a turn that has ended succeeds, because nothing is left to do. `turn.steer` fails with this reason.
 *
 * **Gotchas**
 *
 * A raw `turn/interrupt` that is sent before the `turn/started` of its turn is refused with the same words. Send it with an empty
 * `turnId` then, as `turn.interrupt` does.
 *
 * @category errors
 * @since 0.1.0
 */
export class TurnEnded extends Schema.TaggedError<TurnEnded>()("TurnEnded", {
  method: Schema.String,
  threadId: Schema.String,
  turnId: Schema.String,
  /** The server's own error, or `undefined` if nothing was sent because the end of the turn was known. */
  cause: Schema.UndefinedOr(RequestRejected)
}) {
  override get message(): string {
    return `${this.method} came too late: thread ${this.threadId} is not running turn ${this.turnId}. ` +
      "Start another turn with the input instead"
  }
}

/**
 * The server sent something for `method` that this version of the protocol cannot read.
 *
 * @category errors
 * @since 0.1.0
 */
export class DecodeFailed extends Schema.TaggedError<DecodeFailed>()("DecodeFailed", {
  method: Schema.String,
  /** Where the message differs from the protocol: paths and expected types, never values. */
  issue: Schema.String,
  ...versions
}) {
  override get message(): string {
    return `Cannot read what codex app-server sent for ${this.method}: ${this.issue}${showVersions(this)}`
  }
}

/**
 * What the program asked for is not a valid request. Nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", {
  method: Schema.String,
  description: Schema.String
}) {
  override get message(): string {
    return `Invalid ${this.method} request, nothing was sent: ${this.description}`
  }
}

/** The options that the server applies when it loads a thread, and does not report. */
const unreported: ReadonlySet<string> = new Set(["config", "baseInstructions", "developerInstructions", "personality"])

/** What to do about a setting that does not hold, by method. */
const remedies: Readonly<Record<string, string>> = {
  "thread/start": "Ask for a setting that the configuration and the requirements of the server allow",
  "thread/resume":
    "A loaded thread keeps its settings: change them with the options of its next turn, or resume it in a " +
    "new process",
  "turn/start":
    "The turn was interrupted. Ask for a setting that the configuration and the requirements of the server allow",
  "thread/fork":
    "The copy stays open on the server: archive it, and ask for a setting that the configuration and the " +
    "requirements of the server allow"
}

/**
 * A thread or a turn has other settings than were asked for: permissions, model, model provider, working directory or
 * workspace roots. The thread is not handed out; the turn is interrupted.
 *
 * This happens when a thread is resumed that the server has loaded already: the server then ignores every override. It does not report
 * whether `config`, instructions and `personality` are in effect, so these fail before the thread is resumed, if it is loaded. What the
 * server has opened stays loaded there; a fork can be archived by its `threadId`.
 *
 * @category errors
 * @since 0.1.0
 */
export class SettingsNotApplied extends Schema.TaggedError<SettingsNotApplied>()("SettingsNotApplied", {
  method: Schema.String,
  threadId: Schema.String,
  /** The option whose value differs. */
  setting: Schema.Literals([
    "approvalPolicy",
    "approvalsReviewer",
    "sandbox",
    "permissions",
    "model",
    "modelProvider",
    "effort",
    "serviceTier",
    "cwd",
    "runtimeWorkspaceRoots",
    "config",
    "baseInstructions",
    "developerInstructions",
    "personality"
  ]),
  requested: Schema.Unknown,
  /** The setting that the server reports, or `undefined` if it does not report this one. */
  effective: Schema.Unknown,
  ...versions
}) {
  override get message(): string {
    if (unreported.has(this.setting)) {
      return `${this.method} cannot apply \`${this.setting}\` to thread ${this.threadId}: the server has loaded the thread, and ignores ` +
        `this option then. Leave it out, or resume the thread in a new process${showVersions(this)}`
    }
    const asked = `${this.method} asked for ${this.setting} ${JSON.stringify(this.requested)}, but`
    const outcome = this.effective === undefined
      ? `the server does not report this setting of thread ${this.threadId}, so it may not hold. Leave it out, or use a ` +
        "version of Codex that reports it"
      : `thread ${this.threadId} has ${JSON.stringify(this.effective)}. ${
        remedies[this.method] ?? "Ask for a setting that the server allows"
      }`
    return `${asked} ${outcome}${showVersions(this)}`
  }
}

/**
 * A thread was resumed or forked with tools that it does not have. A thread keeps the tools that it was started with, and the
 * protocol has no way to give it others.
 *
 * @category errors
 * @since 0.1.0
 */
export class ToolsNotApplied extends Schema.TaggedError<ToolsNotApplied>()("ToolsNotApplied", {
  method: Schema.String,
  threadId: Schema.String,
  /** The names of tools that the thread was started without. */
  missing: Schema.Array(Schema.String),
  /** The names of tools that took other parameters when the thread was started. */
  changed: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const differences = [
      ...(this.missing.length === 0 ? [] : [`has no tool ${this.missing.join(", ")}`]),
      ...(this.changed.length === 0 ? [] : [`was started with other parameters of ${this.changed.join(", ")}`])
    ]
    return `${this.method} cannot give tools to a thread: thread ${this.threadId} ${
      differences.join(" and ")
    }. Start a new thread with these tools, or leave them out`
  }
}

/**
 * A turn did not end in time, or produced no event for too long. It was interrupted, unless other callers hold it (see
 * `isInterrupted`). What it had done until then is in the thread, which can go on with another turn;
 * `thread.read({ includeTurns: true })` returns it.
 *
 * If the server has not even answered `turn/start` in that time, the turn has no id. Should it be started later all the same, it
 * is interrupted then.
 *
 * @category errors
 * @since 0.1.0
 */
export class TurnTimeout extends Schema.TaggedError<TurnTimeout>()("TurnTimeout", {
  threadId: Schema.String,
  /** Empty if the server has not named it. */
  turnId: Schema.String,
  /** `"deadline"` if the turn took too long, `"idle"` if it was silent for too long. */
  kind: Schema.Literals(["deadline", "idle"]),
  timeoutMillis: Schema.Number,
  /**
   * Whether the turn was interrupted. It goes on if other callers hold it, or if this program has only joined it: a turn of a goal or of
   * another client.
   */
  isInterrupted: Schema.Boolean,
  /** The last error that the server has reported in the turn, such as why it retries, without secrets. */
  lastError
}) {
  override get message(): string {
    if (this.turnId === "") {
      return `A turn of thread ${this.threadId} was not started within ${this.timeoutMillis} ms (${this.kind})`
    }
    const what = this.kind === "deadline" ? "did not end" : "was silent and did not go on"
    return `Turn ${this.turnId} of thread ${this.threadId} ${what} within ${this.timeoutMillis} ms; ${
      this.isInterrupted
        ? "it was interrupted"
        : "it goes on, because another caller holds it, or because a goal or another client has started it"
    }${showLastError(this.lastError)}`
  }
}

/**
 * A thread is running a turn already, and the options of a further turn cannot hold for that one. Without these options the input is
 * added to the running turn.
 *
 * Nothing was sent if this program knew of the turn (`isSent` is `false`). Another client, or a goal, may start a turn at the same
 * moment; then only the response, or what the turn shows first, tells that the input has become part of that turn (`isSent` is `true`).
 * The server takes the options for later turns then, so the settings of the thread are changed back, which needs the experimental API.
 *
 * A compaction or a review takes no input at all. `turnKind` is set then, `options` is empty, and the input is not part of any turn.
 *
 * @category errors
 * @since 0.1.0
 */
export class ThreadBusy extends Schema.TaggedError<ThreadBusy>()("ThreadBusy", {
  threadId: Schema.String,
  /** The turn that is running. Empty if the server has not named it. */
  turnId: Schema.String,
  /** The names of the options that cannot hold. */
  options: Schema.Array(Schema.String),
  /** Whether the input was sent, and is part of the running turn. */
  isSent: Schema.Boolean,
  /** The kind of the running turn if it takes no input, such as `"compact"` or `"review"`. */
  turnKind: OptionalString.pipe(Schema.withConstructorDefault(Effect.undefined)),
  /** The server's own error, if the server refused the input. */
  cause: Schema.UndefinedOr(RequestRejected).pipe(Schema.withConstructorDefault(Effect.undefined))
}) {
  override get message(): string {
    if (this.turnKind !== undefined) {
      const kind = this.turnKind === "compact" ? "compaction" : this.turnKind
      return `Thread ${this.threadId} is running a ${kind}, which takes no input; the input was not added. ` +
        `Wait for the ${kind} to end, then send the input again`
    }
    const turn = this.turnId === "" ? "a turn" : `turn ${this.turnId}`
    const names = this.options.map((name) => `\`${name}\``).join(", ")
    return this.isSent
      ? `Thread ${this.threadId} was running ${turn} already, which the input has joined; ${names} cannot hold for it. ` +
        "Wait for the running turn to end before you set them"
      : `Thread ${this.threadId} is running ${turn}, for which ${names} cannot hold; the input was not added. ` +
        "Wait for that turn to end, or leave these options out to add the input to it"
  }
}

/**
 * This program cannot follow a turn any more: the server was restarted and had not finished it, or its thread was closed. What it had
 * done until then is in the thread. If `resumable`, the thread can go on with another turn.
 *
 * @category errors
 * @since 0.1.0
 */
export class TurnLost extends Schema.TaggedError<TurnLost>()("TurnLost", {
  threadId: Schema.String,
  turnId: Schema.String,
  resumable: Schema.Boolean,
  /** What became of the turn, or why the thread could not be opened again. */
  description: Schema.String,
  /** The last error that the server has reported in the turn, such as why it retried, without secrets. */
  lastError
}) {
  override get message(): string {
    return `Turn ${this.turnId} of thread ${this.threadId} was lost: ${this.description}. ${
      this.resumable ? "The thread can go on with another turn" : "The thread could not be resumed"
    }${showLastError(this.lastError)}`
  }
}

/**
 * The server ended again and again, and will not be restarted any more. Everything that was pending fails with it, and so does
 * everything later.
 *
 * @category errors
 * @since 0.1.0
 */
export class RestartsExhausted extends Schema.TaggedError<RestartsExhausted>()("RestartsExhausted", {
  /** How often it was restarted, since it last worked for a while. */
  restarts: Schema.Number,
  /** Why it ended, or could not be started, the last time. */
  cause: Schema.Defect()
}) {
  override get message(): string {
    const last = this.cause instanceof Error ? this.cause.message : String(this.cause)
    return `codex app-server was restarted ${this.restarts} times and does not stay: ${last}`
  }
}

/**
 * Why an operation failed.
 *
 * @category errors
 * @since 0.1.0
 */
export type AppServerErrorReason =
  | SpawnFailed
  | InitializeFailed
  | UnsupportedServer
  | ConnectionClosed
  | RequestTimeout
  | Overloaded
  | RequestRejected
  | ThreadNotFound
  | ThreadLocked
  | TurnEnded
  | DecodeFailed
  | InvalidRequest
  | SettingsNotApplied
  | ThreadBusy
  | ToolsNotApplied
  | TurnTimeout
  | TurnLost
  | RestartsExhausted

/**
 * The failure of an operation that talks to `codex app-server`. Handle a single cause with `Effect.catchReason`, several
 * with `Effect.catchReasons`.
 *
 * @category errors
 * @since 0.1.0
 */
export class AppServerError extends Schema.TaggedError<AppServerError>()("AppServerError", {
  reason: Schema.Union([
    SpawnFailed,
    InitializeFailed,
    UnsupportedServer,
    ConnectionClosed,
    RequestTimeout,
    Overloaded,
    RequestRejected,
    ThreadNotFound,
    ThreadLocked,
    TurnEnded,
    DecodeFailed,
    InvalidRequest,
    SettingsNotApplied,
    ThreadBusy,
    ToolsNotApplied,
    TurnTimeout,
    TurnLost,
    RestartsExhausted
  ])
}) {
  readonly [TypeId] = TypeId

  override get message(): string {
    return this.reason.message
  }
}

/**
 * Whether a value is an {@link AppServerError}.
 *
 * @category guards
 * @since 0.1.0
 */
export const isAppServerError = (u: unknown): u is AppServerError => Predicate.hasProperty(u, TypeId)

/**
 * An {@link AppServerError} with the given reason.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (reason: AppServerErrorReason): AppServerError => new AppServerError({ reason })

/**
 * Adds the versions of the two sides to an error that has a place for them.
 *
 * @internal
 */
export const addVersions = (error: AppServerError, versions: Versions): AppServerError => {
  const { reason } = error
  switch (reason._tag) {
    case "RequestRejected":
      return reason.serverVersion === undefined ? make(new RequestRejected({ ...reason, ...versions })) : error
    case "DecodeFailed":
      return reason.serverVersion === undefined ? make(new DecodeFailed({ ...reason, ...versions })) : error
    case "SettingsNotApplied":
      return reason.serverVersion === undefined ? make(new SettingsNotApplied({ ...reason, ...versions })) : error
    default:
      return error
  }
}
