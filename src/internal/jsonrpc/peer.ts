/**
 * Our end of the conversation, on any transport: JSON-RPC without the `jsonrpc` member, one message a line.
 *
 * The reader makes one synchronous step per batch of lines: parse, classify, settle, hand on. It runs nobody else's code
 * and never waits, so nobody can hold it up. Whatever wakes a fiber is done after the batch, and in a flood after several.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberMap from "effect/FiberMap"
import * as FiberSet from "effect/FiberSet"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import {
  type AppServerError,
  ConnectionClosed,
  isAppServerError,
  make as appServerError,
  Overloaded,
  RequestRejected
} from "../../AppServerError.ts"
import type { Connection } from "../../Transport.ts"
import { getOwn } from "../connection/codec.ts"
import { redactInJson } from "../stdio/redact.ts"
import type { Cancellation, IncomingNotification, IncomingRequest, ReadBatch, RequestId, Response } from "./messages.ts"
import { type OnFailure, type Outcome, OutgoingRequests, type Request } from "./outgoingRequests.ts"
import { stringify } from "./stringify.ts"

export interface Peer {
  /** Sends a request and waits for the answer, or for what is done when it fails. */
  readonly request: (request: Request, onFailure?: OnFailure) => Effect.Effect<unknown, AppServerError>
  readonly notify: (method: string, params?: unknown) => Effect.Effect<void, AppServerError>
  /** Why the connection has ended, once it has. */
  readonly ended: () => AppServerError | undefined
  /** The server's requests whose handlers can still answer them. */
  readonly asked: () => Iterable<IncomingRequest>
}

/** The server's code for a request that it refused because its queue is full. */
const overloadedCode = -32001

const rejection = (method: string, error: unknown, redact: Connection["redact"]): AppServerError => {
  const code = Predicate.hasProperty(error, "code") && Predicate.isNumber(error.code) ? error.code : -32603
  if (code === overloadedCode) return appServerError(new Overloaded({ method }))
  const detail = Predicate.hasProperty(error, "message") && Predicate.isString(error.message)
    ? error.message
    : "the server gave no message"
  const data = Predicate.hasProperty(error, "data") ? error.data : undefined
  return appServerError(
    redact === undefined
      ? new RequestRejected({ method, code, detail, data })
      : new RequestRejected({ method, code, detail: redact(detail), data: redactInJson(data, redact) })
  )
}

/** From so many lines in one step on, more are probably on their way. */
const floodLines = 64

/** When so many lines were read, whoever they are for is woken. */
const maxHeldLines = 8192

/** So many answered requests are remembered that could be replayed. */
const rememberedAnswers = 256

const identityOf = ({ id, method, params }: IncomingRequest): string =>
  JSON.stringify([
    id,
    method,
    ...["threadId", "turnId", "itemId", "callId", "approvalId", "startedAtMs"].map((name) => {
      const value = getOwn(params, name)
      return Predicate.isString(value) || Predicate.isNumber(value) ? value : null
    })
  ])

const isRequestId = (id: unknown): id is RequestId => Predicate.isString(id) || Predicate.isNumber(id)

export const makePeer = Effect.fnUntraced(function*(connection: Connection, handlers: {
  /** How many requests may be unanswered at once. */
  readonly maxInFlight: number
  /** For how many milliseconds one of them keeps others from being sent. */
  readonly placeMillis: number
  /** Takes a line that need not be parsed, as `onNotification` would take what it says. */
  readonly takeLine: (line: string, batch: ReadBatch) => boolean
  /** Called in the reader's batch: it must be quick and leave waking to `defer`. */
  readonly onNotification: (notification: IncomingNotification, batch: ReadBatch, line: string) => void
  /** Run in a fiber of its own, which is interrupted when the connection ends or its request is withdrawn. */
  readonly onRequest: (request: IncomingRequest) => Effect.Effect<Response>
  /** Called with each request of the server that is answered, or was resolved elsewhere. */
  readonly onAnswered: (request: IncomingRequest) => void
  /** Whether a notification withdraws requests that wait for an answer. */
  readonly withdraw: (notification: IncomingNotification) => Cancellation | undefined
  /** What to answer to a request that nobody answers any more. */
  readonly withdrawn: (request: IncomingRequest) => Response
  /** The method that has the server ask again what it has no answer to yet. */
  readonly replayedBy: string
  readonly onEnd: (error: AppServerError, batch: ReadBatch) => void
}): Effect.fn.Return<Peer, never, Scope.Scope> {
  /** The server's requests that have no answer yet. Whoever takes one out of here answers it. */
  const asked = new Map<RequestId, IncomingRequest>()
  /** Those of them that are declined as soon as their handlers have ended. */
  const ending = new WeakSet<IncomingRequest>()
  /** How many requests for a replay were sent, and how many of them are not answered yet. */
  let replays = 0
  let replaying = 0
  /** How many replays each request has certainly not been part of. */
  const replaysBefore = new WeakMap<IncomingRequest, number>()
  /** What was answered while a replay could be on its way. */
  const answered = new Set<string>()
  const answering = yield* FiberMap.make<RequestId>()
  const runAnswer = yield* FiberMap.runtime(answering)()
  let ended: AppServerError | undefined

  const { direct } = connection
  const background = yield* FiberSet.make<void>()
  const runInBackground = yield* FiberSet.runtime(background)()
  const dispatcher = yield* Effect.withFiberSucceed((fiber) => fiber.currentDispatcher)

  const table = yield* OutgoingRequests.make(handlers.maxInFlight, handlers.placeMillis, (line, request) => {
    if (request.method === handlers.replayedBy) {
      replays++
      replaying++
    }
    if (direct !== undefined) return sendSoon(line)
    runInBackground(connection.send(line)).addObserver((exit) => {
      if (Exit.isFailure(exit)) table.complete(request, exit)
    })
  })

  let outgoing: Array<string> = []
  const flush = () => {
    if (outgoing.length === 0) return
    const lines = outgoing
    outgoing = []
    try {
      direct?.send(lines)
    } catch (cause) {
      end(appServerError(
        new ConnectionClosed({
          description: `the transport cannot send: ${String(cause)}`,
          exitCode: undefined,
          signal: undefined,
          stderrTail: "",
          cause
        })
      ))
    }
  }

  /** Requests that are made in one go are sent in one go. */
  const sendSoon = (line: string) => {
    if (outgoing.push(line) === 1) queueMicrotask(flush)
  }

  const write = (message: object, method: string) =>
    Effect.suspend(() =>
      Effect.flatMap(Effect.fromResult(stringify(message, method)), (line) => {
        flush()
        return connection.send(line!)
      })
    )

  const remove = (request: IncomingRequest) => {
    asked.delete(request.id)
    handlers.onAnswered(request)
  }

  const remember = (request: IncomingRequest) => {
    if (replaysBefore.get(request) === replays) return
    answered.add(identityOf(request))
    if (answered.size > rememberedAnswers) answered.delete(answered.keys().next().value!)
  }

  // Answers get written whatever they hold: silence would leave the server waiting.
  const writeAnswer = (request: IncomingRequest, answer: Response) =>
    Effect.suspend(() => {
      if (asked.get(request.id) !== request) return Effect.void
      remove(request)
      remember(request)
      return write({ id: request.id, ...answer }, request.method).pipe(
        Effect.catch((error) =>
          write({ id: request.id, error: { code: -32603, message: error.message } }, request.method)
        ),
        Effect.ignore
      )
    }).pipe(Effect.uninterruptible)

  const answer = (request: IncomingRequest) =>
    Effect.flatMap(handlers.onRequest(request), (answer) => writeAnswer(request, answer))

  let deferred: Array<() => void> = []
  let hurried = false
  let reports: Array<string> = []
  const batch: ReadBatch = {
    afterBatch: (action) => {
      deferred.push(action)
      hurried = true
    },
    whenIdle: (action) => {
      deferred.push(action)
    },
    flush: () => {
      hurried = true
    },
    warn: (warning) => {
      reports.push(warning)
    }
  }

  const outcomeOf = (message: object, method: string): Outcome => {
    if (!("error" in message) || message.error === undefined || message.error === null) {
      return Exit.succeed("result" in message ? message.result : undefined)
    }
    // A transport that cannot redact must not leave anybody waiting.
    try {
      return Exit.fail(rejection(method, message.error, connection.redact))
    } catch (defect) {
      return Exit.die(defect)
    }
  }

  const settle = (id: RequestId, message: object) => {
    const request = table.take(id)
    if (request === undefined) {
      reports.push("Ignored an answer to no request that is waiting")
      return
    }
    const outcome = outcomeOf(message, request.method)
    batch.afterBatch(() => table.complete(request, outcome))
  }

  /** Answers in a fiber. One that ends without an answer, interrupted or broken, has the request declined. */
  const start = (request: IncomingRequest, answering: Effect.Effect<void>) =>
    runAnswer(request.id, answering).addObserver((exit) => {
      if (asked.get(request.id) !== request) return
      const declined = writeAnswer(request, handlers.withdrawn(request))
      runAnswer(
        request.id,
        Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)
          ? Effect.andThen(Effect.ignoreCause(Effect.logError(`Cannot answer ${request.method}`, exit.cause)), declined)
          : declined
      )
    })

  const receiveRequest = (request: IncomingRequest) => {
    // The server replays what is not answered when a thread is resumed, and one handler is enough.
    if (asked.has(request.id) || (answered.size > 0 && answered.has(identityOf(request)))) return
    asked.set(request.id, request)
    replaysBefore.set(request, replays - replaying)
    batch.afterBatch(() => start(request, answer(request)))
  }

  const withdraw = ({ matches, isResponded }: Cancellation) => {
    for (const request of asked.values()) {
      if (!matches(request)) continue
      if (isResponded) remove(request)
      else ending.add(request)
      batch.afterBatch(() => runAnswer(request.id, Effect.void))
    }
  }

  const receive = (line: string) => {
    if (handlers.takeLine(line, batch) || line.trim() === "") return
    let message: unknown
    try {
      message = JSON.parse(line)
    } catch {
      reports.push(`Skipped a line that is not JSON (${line.length} characters)`)
      return
    }
    if (!Predicate.isObject(message)) {
      reports.push(`Skipped a line that is not a message (${line.length} characters)`)
      return
    }
    const { id, method } = message as { readonly id?: unknown; readonly method?: unknown }
    if (Predicate.isString(method)) {
      if (isRequestId(id)) {
        receiveRequest({ id, method, params: Predicate.hasProperty(message, "params") ? message.params : undefined })
        return
      }
      const notification = message as unknown as IncomingNotification
      const withdrawal = asked.size === 0 ? undefined : handlers.withdraw(notification)
      if (withdrawal !== undefined) withdraw(withdrawal)
      handlers.onNotification(notification, batch, line)
      return
    }
    if (isRequestId(id) && ("result" in message || "error" in message || table.has(id))) {
      settle(id, message)
      return
    }
    reports.push(`Skipped a message of unknown kind (${line.length} characters)`)
  }

  const wake = () => {
    const actions = deferred
    deferred = []
    hurried = false
    held = 0
    // The server can go on while those who are woken do.
    flush()
    for (const action of actions) {
      // A fiber's observer may throw, and that must not be felt by those who come after it.
      try {
        action()
      } catch (error) {
        reports.push(`Something that an answer or an event woke has thrown: ${String(error)}`)
      }
    }
  }

  const end = (error: AppServerError) => {
    if (ended !== undefined) return
    ended = error
    table.end(error, batch)
    asked.clear()
    handlers.onEnd(error, batch)
    wake()
  }

  /** Lines that were read since somebody was woken, and steps that were made. */
  let held = 0
  let steps = 0
  let isWakeScheduled = false

  /** Wakes whoever is to be woken when the flood is over. */
  const wakeLater = (lastStep: number) => {
    isWakeScheduled = true
    dispatcher.scheduleTask(() => {
      isWakeScheduled = false
      if (steps === lastStep) wake()
      else if (deferred.length > 0) wakeLater(steps)
    }, 0)
  }

  const read = (lines: ReadonlyArray<string>) => {
    for (const line of lines) {
      // Whatever one line does, the next ones are read. Nesting that JSON has room for may be too deep for all else.
      try {
        receive(line)
      } catch (error) {
        reports.push(`Skipped a line that cannot be handled (${line.length} characters): ${String(error)}`)
      }
    }
    steps++
    held += lines.length
    // A step that long is one of a flood. Each fiber that is woken costs as much as several lines, so in a flood they are
    // woken for several steps at once.
    const isFlood = isWakeScheduled || lines.length >= floodLines
    if (!isFlood || hurried || held >= maxHeldLines) wake()
    else if (deferred.length > 0 && !isWakeScheduled) wakeLater(steps)
    if (reports.length > 0) {
      const texts = reports
      reports = []
      // A logger that throws must not end the connection.
      runInBackground(
        Effect.ignoreCause(Effect.forEach(texts, (text) => Effect.logWarning(text), { discard: true }))
      )
    }
  }

  const received = direct === undefined
    ? Stream.runForEachArray(connection.incoming, (lines) => Effect.sync(() => read(lines)))
    : direct.receive(read)
  yield* received.pipe(
    Effect.onExit((exit) =>
      Effect.andThen(
        Effect.sync(() => {
          const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
          end(
            isAppServerError(error) ? error : appServerError(
              new ConnectionClosed({
                description: "the transport ended",
                exitCode: undefined,
                signal: undefined,
                stderrTail: "",
                ...(Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)
                  ? { cause: Cause.squash(exit.cause) }
                  : {})
              })
            )
          )
        }),
        FiberMap.clear(answering)
      )
    ),
    Effect.exit,
    Effect.forkScoped({ startImmediately: true })
  )
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      flush()
      end(appServerError(
        new ConnectionClosed({
          description: "the scope of the connection was closed",
          exitCode: undefined,
          signal: undefined,
          stderrTail: ""
        })
      ))
    })
  )

  return {
    ended: () => ended,
    asked: () => [...asked.values()].filter((request) => !ending.has(request)),
    notify: (method, params) =>
      Effect.suspend(() => ended === undefined ? write({ method, params }, method) : Effect.fail(ended)),
    request: (request, onFailure) => {
      if (request.method !== handlers.replayedBy) return table.run(request, onFailure)
      return Effect.suspend(() => {
        const ended = Effect.sync(() => {
          if (request.isSent) replaying--
        })
        return Effect.ensuring(table.run(request, onFailure), ended)
      })
    }
  }
})
