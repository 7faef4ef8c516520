/** What becomes of turns whose end was not heard: those that the server had finished have their result. */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { AppServer, Requests } from "../../AppServer.ts"
import { type AppServerError, make as appServerError, TurnLost } from "../../AppServerError.ts"
import * as Protocol from "../../Protocol.ts"
import { field } from "../connection/codec.ts"
import { immediately } from "../connection/messages.ts"
import type { ThreadOpened } from "./answers.ts"
import type { OpenThreads } from "./openThread.ts"
import type { HeldTurn, OpenTurns } from "./openTurns.ts"
import type { TurnState } from "./turnState.ts"

/** The turn is one of the last, unless others have driven the thread on meanwhile. */
const lastTurns = 20

const decodeTurn = Schema.decodeUnknownOption(Protocol.Turn)

const storedTurn = (
  server: Requests,
  threadId: string,
  turnId: string
): Effect.Effect<Option.Option<Protocol.Turn>, AppServerError> =>
  server.requestRaw("thread/turns/list", { threadId, limit: lastTurns, itemsView: "full" }).pipe(
    Effect.map((answer) => field(answer, "data")),
    // The whole thread may be had where its pages are not.
    Effect.catchReason(
      "AppServerError",
      "RequestRejected",
      () =>
        Effect.map(
          server.requestRaw("thread/read", { threadId, includeTurns: true }),
          (answer) => field(field(answer, "thread"), "turns")
        )
    ),
    Effect.map((turns) =>
      Option.fromUndefinedOr(
        (Array.isArray(turns) ? turns : []).flatMap((turn) => Option.toArray(decodeTurn(turn)))
          .find(({ id }) => id === turnId)
      )
    )
  )

/** Finds the turn that a thread was running already when it was resumed. */
export const findActive = (
  server: Requests,
  open: OpenTurns,
  { thread: { id, status } }: ThreadOpened
): Effect.Effect<void, AppServerError> =>
  field(status, "type") !== "active" || open.activeOf(id) !== undefined ? Effect.void : Effect.map(
    server.requestRaw("thread/turns/list", { threadId: id, limit: 1, itemsView: "notLoaded" }),
    (response) => {
      const turns = field(response, "data")
      const turn: unknown = Array.isArray(turns) ? turns[0] : undefined
      const turnId = field(turn, "id")
      if (field(turn, "status") === "inProgress" && Predicate.isString(turnId)) open.setActive(id, turnId)
    }
  )

/** Tells a turn what it has not heard: the items that were completed, and its end. */
const finish = (state: TurnState, turn: Protocol.Turn): void => {
  const { threadId } = state
  const known = new Set(state.items.map((item) => (item as { readonly id?: unknown }).id))
  const completedAtMs = (turn.completedAt ?? 0) * 1000
  for (const item of turn.items) {
    if (known.has((item as { readonly id?: unknown }).id)) continue
    const params = { threadId, turnId: turn.id, item, completedAtMs }
    state.onNotification({ method: "item/completed", params }, turn.id, immediately)
  }
  state.onNotification({ method: "turn/completed", params: { threadId, turn } }, turn.id, immediately)
}

const recoverTurn = (server: Requests, restarts: number) =>
  Effect.fnUntraced(function*(held: HeldTurn) {
    const { id: turnId, state, thread } = held
    const { threadId } = state
    const lost = (resumable: boolean, description: string) =>
      Effect.sync(() =>
        state.onEnd(appServerError(new TurnLost({ threadId, turnId, resumable, description })), immediately)
      )
    // No caller waits for it, so it need not be found out how far it has come.
    if (held.handles === 0) return yield* lost(true, "the server had not finished it")
    let resumable = false
    const found = yield* thread.reopen(server, restarts).pipe(
      Effect.tap(() =>
        Effect.sync(() => {
          resumable = true
        })
      ),
      Effect.andThen(storedTurn(server, threadId, turnId)),
      Effect.result
    )
    if (Result.isFailure(found)) {
      // When the server has ended once more, this is done after the next restart.
      const isOver = found.failure.reason._tag !== "ConnectionClosed"
      return isOver ? yield* lost(resumable, found.failure.message) : undefined
    }
    const turn = Option.getOrUndefined(found.success)
    if (turn?.status === "completed" || turn?.status === "failed") return finish(state, turn)
    return yield* lost(true, turn === undefined ? "the server does not know it" : "the server had not finished it")
  })

/** How long the end of a turn is waited for when its thread is said to do nothing. It follows at once, if it does. */
const lostEndGrace = Duration.seconds(5)

/**
 * Asks what became of a turn whose thread does nothing any more and whose end does not come, as when the server has left it out:
 * again and again, ever later, for what cannot be told now may be told soon.
 */
export const recoverLostEnd = (
  server: AppServer["Service"],
  { id, state }: HeldTurn
): Effect.Effect<void, never, Scope.Scope> => {
  const isOver = () => state.outcome !== undefined
  const ask = () =>
    storedTurn(server, state.threadId, id).pipe(
      Effect.map((stored) => {
        const turn = Option.getOrUndefined(stored)
        if (turn !== undefined && turn.status !== "inProgress") finish(state, turn)
      }),
      Effect.catch((error) =>
        Effect.logWarning(`Cannot tell what became of turn ${id} of thread ${state.threadId}: ${error.message}`)
      )
    )
  const recover = () =>
    Effect.suspend(() => isOver() ? Effect.void : ask()).pipe(
      Effect.repeat({ schedule: Schedule.exponential("1 second"), until: isOver }),
      Effect.delay(lostEndGrace)
    )
  return Effect.contextWith((services: Context.Context<Scope.Scope>) =>
    Effect.sync(() =>
      state.whenIdle(() => {
        if (!isOver()) Effect.runForkWith(services)(Effect.forkScoped(recover()))
      })
    )
  )
}

/**
 * Recovers all turns that run, and opens the other threads again, before anybody can use them: the server knows no thread that is
 * not open. One that cannot be opened is tried again when it is used, which tells why it cannot.
 */
export const recoverTurns = (
  server: Requests,
  open: OpenTurns,
  threads: OpenThreads
): Effect.Effect<void> =>
  Effect.gen(function*() {
    open.restarts++
    for (const state of open.compacting) {
      state.onEnd(
        appServerError(
          new TurnLost({
            threadId: state.threadId,
            turnId: "",
            resumable: true,
            description: "it is not known whether the thread was compacted"
          })
        ),
        immediately
      )
    }
    const running = [...open.held.values()].filter(({ state }) => state.outcome === undefined)
    yield* Effect.forEach(running, recoverTurn(server, open.restarts), { concurrency: 8, discard: true })
    const done = new Set(running.map(({ thread }) => thread.id))
    yield* Effect.forEach(
      threads.all().filter(({ id }) => !done.has(id)),
      (thread) => Effect.ignore(thread.reopen(server, open.restarts)),
      { concurrency: 8, discard: true }
    )
  })
