/**
 * The error of every operation that uses `codex app-server`, and its reasons.
 *
 * **When to use**
 *
 * Handle one reason with `Effect.catchReason`, and several with `Effect.catchReasons`.
 *
 * **Details**
 *
 * Every operation fails with the same {@link AppServerError}. Its `reason` is a tagged error.
 *
 * Errors contain methods, ids, sizes and causes. They never contain prompts, output of the model or tokens.
 *
 * **Example** (Handling an overloaded server)
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
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { describeUsed, Limit, Reserve, Used } from "./internal/budget/used.ts"
import * as Protocol from "./Protocol.ts"

const TypeId = "~effect-codex/AppServerError"

const OptionalString = Schema.UndefinedOr(Schema.String)
const OptionalNumber = Schema.UndefinedOr(Schema.Number)

/** The last error that the server reported in a turn, such as the reason of a retry. */
const lastError = Schema.UndefinedOr(Protocol.TurnError).pipe(Schema.withConstructorDefault(Effect.undefined))

/**
 * Formats an error that the server reported in a turn.
 *
 * @internal
 */
export const describeTurnError = ({ additionalDetails, message }: Protocol.TurnError): string =>
  additionalDetails == null || additionalDetails === "" || message.includes(additionalDetails)
    ? message
    : `${message} (${additionalDetails})`

/**
 * Formats the last error of the server as a sentence, or as the empty string if there is none.
 *
 * @internal
 */
export const showLastError = (error: Protocol.TurnError | undefined): string =>
  error === undefined ? "" : `. The last error that the server reported in the turn: ${describeTurnError(error)}`

const show = (value: string | undefined): string => value === undefined ? "missing" : `\`${value}\``

const showNames = (names: ReadonlyArray<string>): string => names.map((name) => `\`${name}\``).join(", ")

const versionField = OptionalString.pipe(Schema.withConstructorDefault(Effect.undefined))

/** The versions of server and protocol, because a difference can explain the error. The connection adds them. */
const versions = {
  /** The version of the server, if it is known. */
  serverVersion: versionField,
  /** The version of Codex that this package was generated from, if the version of the server is known. */
  protocolVersion: versionField
}

interface Versions {
  readonly serverVersion: string | undefined
  readonly protocolVersion: string | undefined
}

/** Formats the versions if they differ. Equal versions explain nothing. */
const showVersions = ({ protocolVersion, serverVersion }: Versions): string =>
  serverVersion === protocolVersion
    ? ""
    : ` (codex app-server is ${serverVersion}; this version of effect-codex was generated from ${protocolVersion})`

/**
 * The app-server process did not start.
 *
 * **Details**
 *
 * Possible causes: the binary is missing or not executable, or no binary is published for this platform. The working directory may be
 * missing, or the option `config` not valid.
 *
 * @category errors
 * @since 0.1.0
 */
export class SpawnFailed extends Schema.TaggedError<SpawnFailed>()("SpawnFailed", {
  /** The binary, if one was found. */
  command: OptionalString,
  /** The working directory from the options. */
  cwd: OptionalString,
  description: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    return `Cannot start codex app-server: ${this.description}`
  }
}

/**
 * The socket to a server did not open.
 *
 * **Details**
 *
 * Possible causes: no server listens at the address, the server refused the token, or another program listens there. TLS may have failed,
 * or the platform's WebSocket may not support the address.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectFailed extends Schema.TaggedError<ConnectFailed>()("ConnectFailed", {
  /** The address, without its query. */
  url: Schema.String,
  /** The HTTP status with which the server refused the handshake, if it sent one. */
  status: OptionalNumber,
  description: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    return `Cannot connect to codex app-server at \`${this.url}\`: ${this.description}`
  }
}

/**
 * The server did not initialize: it rejected the client, or its response has no user agent, name or version.
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
    return `Cannot initialize codex app-server (userAgent: ${show(this.userAgent)}, serverName: ${
      show(this.serverName)
    }, serverVersion: ${show(this.serverVersion)}): ${this.description}`
  }
}

/**
 * The server is older than the oldest version that this package supports.
 *
 * **Details**
 *
 * Older servers lose the permissions of a thread when it is resumed or forked, for example. The option
 * `allowUnsupportedServer` connects to such a server. A server without a version of Codex, such as a test double or a build from
 * source, is accepted.
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
    return `Version \`${this.serverVersion}\` of codex app-server is not supported, because it does not keep the permissions of a ` +
      `thread. Update Codex to \`${this.floor}\` or newer, or set \`allowUnsupportedServer: true\` to connect anyway`
  }
}

/**
 * The connection has ended. Every pending and every later operation fails with this reason.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectionClosed extends Schema.TaggedError<ConnectionClosed>()("ConnectionClosed", {
  description: Schema.String,
  /** The exit code of the server process, if it exited by itself. */
  exitCode: OptionalNumber,
  /** The signal that ended the server process, if one did. */
  signal: OptionalString,
  /** The last lines that the server process wrote to stderr, without secrets. */
  stderrTail: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    const ended = `The connection to codex app-server has ended: ${this.description}`
    // A process that fails writes the reason last, before the backtrace if there is one.
    const [beforeBacktrace = ""] = this.stderrTail.split(/\n\s*stack backtrace:/i, 1)
    const lastLines = beforeBacktrace.split("\n").slice(-5).join("\n").trim()
    return lastLines === "" ? ended : `${ended}\n${lastLines}`
  }
}

/**
 * The server sent no response to a request in time.
 *
 * **Gotchas**
 *
 * The server may have processed the request, unless it was still in the queue. The request option `onSend` shows whether it was sent.
 * A turn that starts after the timeout is interrupted.
 *
 * @category errors
 * @since 0.1.0
 */
export class RequestTimeout extends Schema.TaggedError<RequestTimeout>()("RequestTimeout", {
  method: Schema.String,
  timeoutMillis: Schema.Number
}) {
  override get message(): string {
    return `Request \`${this.method}\` timed out: codex app-server sent no response within ${this.timeoutMillis} ms. The request may ` +
      "have been processed: check that before you send it again, or set a longer `requestTimeout`"
  }
}

/**
 * The server refused a request because too many were waiting (JSON-RPC code -32001).
 *
 * **Details**
 *
 * The server did not process the request. Idempotent requests are retried before they fail with this reason.
 *
 * @category errors
 * @since 0.1.0
 */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", {
  method: Schema.String
}) {
  override get message(): string {
    return `Codex app-server is overloaded and refused \`${this.method}\`. Send the request again later`
  }
}

/**
 * The server rejected a request with a JSON-RPC error that has no other reason.
 *
 * **Details**
 *
 * The server uses the code -32600 for nearly every error; `detail` distinguishes them. `ThreadNotFound`, `ThreadLocked`,
 * `LoginRequired`, `TurnEnded` and `ThreadBusy` have this error as their `cause`.
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
    return `Codex app-server rejected \`${this.method}\` (code ${this.code}): ${detail}${showVersions(this)}`
  }
}

/**
 * The reasons why the server cannot find a thread.
 *
 * **Details**
 *
 * - `"invalidId"`: the text is not a thread id.
 * - `"unknown"`: no thread with this id is stored. It was deleted, is in another `CODEX_HOME`, or its process ended before its first
 *   turn.
 * - `"notStored"`: the thread is open and not stored, because it had no turn or is ephemeral.
 * - `"archived"`: the thread is archived.
 * - `"notArchived"`: no archived thread has this id, so `thread/unarchive` fails.
 * - `"notLoaded"`: the server has not loaded the thread, or does not know it.
 * - `"deleted"`: the thread was deleted while this program had it open.
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
  invalidId: "the id is not valid. Pass a UUID, such as `thread.id`",
  unknown:
    "no thread with this id is stored. Check the id and the `CODEX_HOME` of the server. The server stores a thread with its " +
    "first turn",
  notStored: "the thread is not stored. Run a turn on the thread first; the server never stores an ephemeral thread",
  archived: "the thread is archived. Call `codex.unarchiveThread` with its id, then `codex.resumeThread`",
  notArchived: "no archived thread has this id. Open a thread that is not archived with `codex.resumeThread`",
  notLoaded: "the server has not loaded the thread. Open it with `codex.resumeThread`",
  deleted: "the thread was deleted. Start a new thread"
}

/**
 * The server cannot find the thread of a request. `state` is the reason.
 *
 * **When to use**
 *
 * Start a new thread if the stored one was deleted, or unarchive the thread if it is archived.
 *
 * **Gotchas**
 *
 * The server has no code for this error, so this package recognizes its message. With another message the reason is
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
  /** The error of the server, with its code, message and data. */
  cause: RequestRejected
}) {
  override get message(): string {
    return `Request \`${this.method}\` cannot find thread \`${this.threadId}\`: ${notFound[this.state]}`
  }
}

/**
 * Another app-server process has the thread open, and only one process can write to a thread.
 *
 * **Details**
 *
 * The server refuses to resume, archive, unarchive and delete the thread. Programs can read, list, name and fork it.
 *
 * @category errors
 * @since 0.1.0
 */
export class ThreadLocked extends Schema.TaggedError<ThreadLocked>()("ThreadLocked", {
  method: Schema.String,
  threadId: Schema.String,
  /** The error of the server, with its code, message and data. */
  cause: RequestRejected
}) {
  override get message(): string {
    return `Codex app-server refused \`${this.method}\`: thread \`${this.threadId}\` is open in another app-server process. End that ` +
      "process, or open a copy of the thread with `codex.forkThread`"
  }
}

/**
 * The request needs a ChatGPT login, which the server does not have.
 *
 * **Details**
 *
 * `login` is `"none"` if Codex is not logged in, and `"other"` if it is logged in with something else, such as an API key.
 *
 * @category errors
 * @since 0.1.0
 */
export class LoginRequired extends Schema.TaggedError<LoginRequired>()("LoginRequired", {
  method: Schema.String,
  login: Schema.Literals(["none", "other"]),
  /** The error of the server, with its code, message and data. */
  cause: RequestRejected
}) {
  override get message(): string {
    const login = this.login === "none" ? "is not logged in" : "has another login, such as an API key"
    return `Request \`${this.method}\` needs a ChatGPT login, and Codex ${login}. Log in with \`npx codex login\`, or from the program ` +
      "with `account/login/start`"
  }
}

/**
 * A steer or an interrupt came too late: the thread is not running this turn.
 *
 * **Details**
 *
 * `turn.steer` fails with this reason. `turn.interrupt` succeeds, because nothing is left to interrupt.
 *
 * **Gotchas**
 *
 * The server rejects a raw `turn/interrupt` before the `turn/started` of its turn with the same message. Send it with an empty
 * `turnId` then, as `turn.interrupt` does.
 *
 * @category errors
 * @since 0.1.0
 */
export class TurnEnded extends Schema.TaggedError<TurnEnded>()("TurnEnded", {
  method: Schema.String,
  threadId: Schema.String,
  turnId: Schema.String,
  /** The error of the server, or `undefined` if this program knew that the turn had ended and sent nothing. */
  cause: Schema.UndefinedOr(RequestRejected)
}) {
  override get message(): string {
    return `Request \`${this.method}\` came too late: thread \`${this.threadId}\` is not running turn \`${this.turnId}\`. ` +
      "Start another turn with the input instead"
  }
}

/**
 * The server sent a message for `method` that this version of the protocol cannot decode.
 *
 * @category errors
 * @since 0.1.0
 */
export class DecodeFailed extends Schema.TaggedError<DecodeFailed>()("DecodeFailed", {
  method: Schema.String,
  /** The difference between the message and the protocol: paths and expected types, never values. */
  issue: Schema.String,
  ...versions
}) {
  override get message(): string {
    return `Cannot decode the message that codex app-server sent for \`${this.method}\`${
      showVersions(this)
    }. Update effect-codex, or ` +
      `report this issue: ${this.issue}`
  }
}

/**
 * The arguments of an operation are not valid. Nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", {
  method: Schema.String,
  description: Schema.String
}) {
  override get message(): string {
    return `Invalid \`${this.method}\` request, nothing was sent: ${this.description}`
  }
}

/** The options that the server applies when it loads a thread, and never reports. */
const unreported: ReadonlySet<string> = new Set(["config", "baseInstructions", "developerInstructions", "personality"])

const allowedSetting = "a setting that the configuration and the requirements of the server allow"

/** The remedy for a setting that does not hold, by method. */
const remedies: Readonly<Record<string, string>> = {
  "thread/start": `Request ${allowedSetting}`,
  "thread/resume":
    "A loaded thread keeps its settings. Change them with the options of its next turn, or resume the thread in a new process",
  "turn/start": `The turn was interrupted. Request ${allowedSetting}`,
  "thread/fork": `The copy stays open on the server. Archive it, and request ${allowedSetting}`
}

/**
 * A thread or a turn has other settings than requested.
 *
 * **Details**
 *
 * Settings are the permissions, model, model provider, working directory and workspace roots. The operation returns no thread,
 * and interrupts the turn.
 *
 * The server ignores every setting in the request to resume a thread that it has loaded already. It does not report `config`, instructions
 * and `personality`, so these fail before such a thread is resumed.
 *
 * **Gotchas**
 *
 * The thread stays loaded on the server. A fork can be archived by its `threadId`.
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
  /** The value from the options. */
  requested: Schema.Unknown,
  /** The value that the server reports, or `undefined` if it does not report this setting. */
  effective: Schema.Unknown,
  ...versions
}) {
  override get message(): string {
    const method = `Request \`${this.method}\``
    const thread = `thread \`${this.threadId}\``
    if (unreported.has(this.setting)) {
      return `${method} cannot apply \`${this.setting}\` to ${thread}, because the server has loaded the thread already. ` +
        `Omit the option, or resume the thread in a new process${showVersions(this)}`
    }
    const outcome = this.effective === undefined
      ? `the server does not report this setting of ${thread}, so it may not hold. Omit the option, or use a version of Codex that ` +
        "reports it"
      : `${thread} has ${JSON.stringify(this.effective)}. ${remedies[this.method] ?? `Request ${allowedSetting}`}`
    return `${method} set \`${this.setting}\` to ${JSON.stringify(this.requested)}, but ${outcome}${showVersions(this)}`
  }
}

/**
 * A thread was resumed or forked with tools that it does not have.
 *
 * **Details**
 *
 * A thread keeps the tools that it was started with. The protocol cannot add or change them.
 *
 * @category errors
 * @since 0.1.0
 */
export class ToolsNotApplied extends Schema.TaggedError<ToolsNotApplied>()("ToolsNotApplied", {
  method: Schema.String,
  threadId: Schema.String,
  /** The names of tools that the thread was started without. */
  missing: Schema.Array(Schema.String),
  /** The names of tools that had other parameters when the thread was started. */
  changed: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const differences = [
      ...(this.missing.length === 0 ? [] : [`without ${showNames(this.missing)}`]),
      ...(this.changed.length === 0 ? [] : [`with other parameters of ${showNames(this.changed)}`])
    ]
    return `Request \`${this.method}\` cannot change the tools of a thread: thread \`${this.threadId}\` was started ${
      differences.join(" and ")
    }. Start a new thread with these tools, or omit them`
  }
}

/**
 * A turn exceeded its deadline, or produced no event for longer than its idle timeout.
 *
 * **Details**
 *
 * The turn is interrupted, unless other callers use it; see `isInterrupted`. Its items so far are in the thread, which accepts another
 * turn; `thread.read({ includeTurns: true })` returns them.
 *
 * `turnId` is empty if the server sent no response to `turn/start` in time. A turn that starts later is interrupted.
 *
 * @category errors
 * @since 0.1.0
 */
export class TurnTimeout extends Schema.TaggedError<TurnTimeout>()("TurnTimeout", {
  threadId: Schema.String,
  /** The id of the turn, or the empty string if the server has not sent it. */
  turnId: Schema.String,
  /** The limit that the turn exceeded: its deadline, or its idle timeout. */
  kind: Schema.Literals(["deadline", "idle"]),
  timeoutMillis: Schema.Number,
  /**
   * Whether the turn was interrupted. It continues if other callers use it, or if a goal or another client started it.
   */
  isInterrupted: Schema.Boolean,
  /** The last error that the server reported in the turn, such as the reason of a retry, without secrets. */
  lastError
}) {
  override get message(): string {
    const limit = `${this.kind === "deadline" ? "deadline" : "idle timeout"} of ${this.timeoutMillis} ms`
    if (this.turnId === "") {
      return `The server did not start a turn on thread \`${this.threadId}\` within the ${limit}. Check the connection, or set a longer limit`
    }
    const what = this.kind === "deadline" ? `did not end within its ${limit}` : `produced no event within its ${limit}`
    return `Turn \`${this.turnId}\` of thread \`${this.threadId}\` ${what}. ${
      this.isInterrupted
        ? "The turn was interrupted. Set a longer limit, or start another turn to continue"
        : "The turn continues, because another caller uses it, or because a goal or another client started it"
    }${showLastError(this.lastError)}`
  }
}

/**
 * A thread is running a turn for which the options of the caller cannot hold, or which accepts no input.
 *
 * **When to use**
 *
 * Wait for the running turn to end, or omit the options: a call without them joins the running turn.
 *
 * **Details**
 *
 * If this program knows of the running turn, nothing is sent, and `isSent` is `false`.
 *
 * Another client or a goal may start a turn at the same moment. The response or the events of the turn then show that the input
 * joined that turn, and `isSent` is `true`. The server applies the options to later turns, so the settings of the thread are changed
 * back, which needs the experimental API.
 *
 * A compaction or a review accepts no input. `turnKind` is set then, `options` is empty, and the input is in no turn.
 *
 * @category errors
 * @since 0.1.0
 */
export class ThreadBusy extends Schema.TaggedError<ThreadBusy>()("ThreadBusy", {
  threadId: Schema.String,
  /** The id of the running turn, or the empty string if the server has not sent it. */
  turnId: Schema.String,
  /** The names of the options that cannot hold for the running turn. */
  options: Schema.Array(Schema.String),
  /** Whether the input was sent and joined the running turn. */
  isSent: Schema.Boolean,
  /** The kind of the running turn if it accepts no input, such as `"compact"` or `"review"`. */
  turnKind: OptionalString.pipe(Schema.withConstructorDefault(Effect.undefined)),
  /** The error of the server, if the server refused the input. */
  cause: Schema.UndefinedOr(RequestRejected).pipe(Schema.withConstructorDefault(Effect.undefined))
}) {
  override get message(): string {
    const thread = `Thread \`${this.threadId}\``
    if (this.turnKind !== undefined) {
      const kind = this.turnKind === "compact" ? "compaction" : this.turnKind
      return `${thread} is running a ${kind}, which accepts no input; the input was not added. ` +
        `Wait for the ${kind} to end, then send the input again`
    }
    const turn = this.turnId === "" ? "a turn" : `turn \`${this.turnId}\``
    const names = showNames(this.options)
    return this.isSent
      ? `${thread} was running ${turn}, and the input joined that turn, for which these options cannot hold: ${names}. ` +
        "Wait for the turn to end before you set them"
      : `${thread} is running ${turn}, for which these options cannot hold: ${names}; the input was not sent. ` +
        "Wait for the turn to end, or omit these options to join it"
  }
}

/**
 * A budget is used up.
 *
 * **Details**
 *
 * A budget that is used up starts no further turn, and sends nothing for it. Running turns continue until they exceed a limit. Then the
 * budget interrupts all of them.
 *
 * **Gotchas**
 *
 * The server reports usage when a model request completes, so `used` may be larger than `limit`. The `reserve` of a budget prevents
 * that.
 *
 * @category errors
 * @since 0.1.0
 */
export class BudgetExceeded extends Schema.TaggedError<BudgetExceeded>()("BudgetExceeded", {
  /** The limits of the budget. */
  limit: Limit,
  /** The parts of the limits that stay unused, 0 by default. */
  reserve: Reserve,
  /** What the budget has used, in total and by thread. */
  used: Used
}) {
  override get message(): string {
    return `The budget is used up: ${
      describeUsed(this.limit, this.reserve, this.used)
    }. It starts no further turn. Set a higher limit, or start the work in another budget`
  }
}

/**
 * A turn of a budget with prices runs on a model without a price.
 *
 * **Details**
 *
 * If the model is known before the turn starts, nothing is sent. Otherwise the turns of the budget are interrupted, as if it were
 * exceeded: a sub-agent may choose another model, for example.
 *
 * @category errors
 * @since 0.1.0
 */
export class PriceMissing extends Schema.TaggedError<PriceMissing>()("PriceMissing", {
  threadId: Schema.String,
  /** The name of the model, or the empty string if the server has not named it. */
  model: Schema.String
}) {
  override get message(): string {
    if (this.model === "") {
      return `The budget has prices, and the model of thread \`${this.threadId}\` is unknown. ` +
        "Name the `model` in the request, or open the thread with `Codex`"
    }
    return `The budget has no price for the model \`${this.model}\` of thread \`${this.threadId}\`. ` +
      "Add its price to `prices`"
  }
}

/**
 * This program can no longer follow a turn.
 *
 * **Details**
 *
 * The server was restarted before it completed the turn, or the thread was closed. The items of the turn so far are in the thread. If
 * `resumable`, the thread accepts another turn.
 *
 * @category errors
 * @since 0.1.0
 */
export class TurnLost extends Schema.TaggedError<TurnLost>()("TurnLost", {
  threadId: Schema.String,
  turnId: Schema.String,
  /** Whether the thread accepts another turn. */
  resumable: Schema.Boolean,
  /** The state of the turn, or the reason why the thread could not be resumed. */
  description: Schema.String,
  /** The last error that the server reported in the turn, such as the reason of a retry, without secrets. */
  lastError
}) {
  override get message(): string {
    const turn = this.turnId === "" ? "A turn" : `Turn \`${this.turnId}\``
    return `${turn} of thread \`${this.threadId}\` was lost: ${this.description}. ${
      this.resumable
        ? "Start another turn on the thread to continue"
        : "The thread could not be resumed. Correct the cause, then call `codex.resumeThread`"
    }${showLastError(this.lastError)}`
  }
}

/**
 * The connection kept ending, and the restart schedule has ended. Every pending and every later operation fails with this reason.
 *
 * @category errors
 * @since 0.1.0
 */
export class RestartsExhausted extends Schema.TaggedError<RestartsExhausted>()("RestartsExhausted", {
  /** The number of restarts since a connection last lasted a minute. */
  restarts: Schema.Number,
  /** The error that ended the last connection, or that prevented it. */
  cause: Schema.Defect()
}) {
  override get message(): string {
    const last = this.cause instanceof Error ? this.cause.message : String(this.cause)
    return `The connection to codex app-server kept ending; gave up after ${this.restarts} ${
      this.restarts === 1 ? "restart" : "restarts"
    }. ` +
      `Last error: ${last}`
  }
}

/**
 * The reasons of an {@link AppServerError}.
 *
 * @category errors
 * @since 0.1.0
 */
export type AppServerErrorReason =
  | SpawnFailed
  | ConnectFailed
  | InitializeFailed
  | UnsupportedServer
  | ConnectionClosed
  | RequestTimeout
  | Overloaded
  | RequestRejected
  | ThreadNotFound
  | ThreadLocked
  | LoginRequired
  | TurnEnded
  | DecodeFailed
  | InvalidRequest
  | SettingsNotApplied
  | ThreadBusy
  | ToolsNotApplied
  | TurnTimeout
  | BudgetExceeded
  | PriceMissing
  | TurnLost
  | RestartsExhausted

/**
 * The failure of an operation that uses `codex app-server`.
 *
 * **When to use**
 *
 * Handle one reason with `Effect.catchReason`, and several with `Effect.catchReasons`.
 *
 * @category errors
 * @since 0.1.0
 */
export class AppServerError extends Schema.TaggedError<AppServerError>()("AppServerError", {
  reason: Schema.Union([
    SpawnFailed,
    ConnectFailed,
    InitializeFailed,
    UnsupportedServer,
    ConnectionClosed,
    RequestTimeout,
    Overloaded,
    RequestRejected,
    ThreadNotFound,
    ThreadLocked,
    LoginRequired,
    TurnEnded,
    DecodeFailed,
    InvalidRequest,
    SettingsNotApplied,
    ThreadBusy,
    ToolsNotApplied,
    TurnTimeout,
    BudgetExceeded,
    PriceMissing,
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
 * Tests if a value is an {@link AppServerError}.
 *
 * @category guards
 * @since 0.1.0
 */
export const isAppServerError = (u: unknown): u is AppServerError => Predicate.hasProperty(u, TypeId)

/**
 * Makes an {@link AppServerError} with a reason.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (reason: AppServerErrorReason): AppServerError => new AppServerError({ reason })

/**
 * Adds the versions of server and protocol to an error whose reason has them.
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
