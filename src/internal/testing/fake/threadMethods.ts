/** The methods that open, change, close and list threads. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Protocol from "../../../Protocol.ts"
import { getOwn, getOwnString } from "../../getOwn.ts"
import type { Clients } from "./clients.ts"
import type { Goals } from "./goals.ts"
import { type Methods, reject } from "./methods.ts"
import { openSettings, readConfig } from "./settings.ts"
import type { ThreadEvents } from "./threadEvents.ts"
import { initialPage, isListed, openedThreadJson, page, threadJson, turnsPage } from "./threadJson.ts"
import { type StoredThread, type ThreadStore, toSeconds } from "./threadStore.ts"
import type { TurnPlayer } from "./turnPlayer.ts"

interface Fake {
  readonly clients: Clients
  readonly store: ThreadStore
  readonly events: ThreadEvents
}

interface OpenFake extends Fake {
  readonly goals: Goals
  readonly player: TurnPlayer
}

/** The real server lists the turns of a thread without turns only once it has read the thread from its file. */
const checkListable = (thread: StoredThread) =>
  thread.turns.length > 0 || thread.reopened || !thread.loaded
    ? Effect.void
    : reject("list_turns is not supported yet", -32601)

/** Returns the first text of a user in injected items, which becomes the preview of a thread. */
const firstUserText = (items: ReadonlyArray<unknown>): string => {
  const message = items.find((item) => getOwn(item, "role") === "user")
  const content = getOwn(message, "content")
  return (Array.isArray(content) ? content : []).map((part) => getOwnString(part, "text")).find(Predicate.isString) ??
    ""
}

/** `thread/start`, `thread/resume`, `thread/fork` and what changes an open thread. */
export const openMethods = ({ clients, events, goals, player, store }: OpenFake) => {
  /** The response that opens a thread. The server deprecates the history in it. */
  const opened = Effect.fnUntraced(function*(
    thread: StoredThread,
    { excludeTurns, initialTurnsPage }: Pick<Protocol.ThreadResumeParams, "excludeTurns" | "initialTurnsPage">
  ) {
    if (excludeTurns !== true) yield* events.historyDeprecated("use `excludeTurns: true`")
    const opened = openedThreadJson(thread, excludeTurns !== true)
    return initialTurnsPage == null
      ? opened
      : { ...opened, initialTurnsPage: yield* initialPage(thread, initialTurnsPage) }
  })

  const started = (thread: StoredThread) => clients.notify("thread/started", { thread: threadJson(thread) })

  return {
    "thread/start": Effect.fnUntraced(function*(params) {
      const thread = yield* store.create(params)
      return { result: openedThreadJson(thread), after: started(thread) }
    }),
    "thread/resume": Effect.fnUntraced(function*(params, client) {
      const thread = yield* store.getStored(params.threadId)
      const wasLoaded = thread.loaded
      // The real server keeps the settings of a loaded thread.
      if (!wasLoaded) {
        thread.settings = openSettings("thread/resume", params, yield* readConfig(params), thread.settings)
        thread.loaded = true
        thread.reopened = true
        yield* events.status(thread, { type: "idle" })
      }
      client.unsubscribed.delete(thread.id)
      const result = yield* opened(thread, params)
      if (params.excludeTurns !== true) yield* checkListable(thread)
      const turnId = params.excludeTurns === true ? thread.usageTurnId : thread.turns.at(-1)?.id
      if (wasLoaded) return params.excludeTurns === true ? { result } : { result, after: events.usage(thread, turnId) }
      const resumeGoal = Effect.andThen(goals.updated(thread, null), player.continueGoal(thread))
      return {
        result,
        after: Effect.andThen(events.usage(thread, turnId), thread.goal === undefined ? Effect.void : resumeGoal)
      }
    }),
    "thread/fork": Effect.fnUntraced(function*(params) {
      const thread = yield* store.create(params, yield* store.getStored(params.threadId))
      const turnId = params.excludeTurns === true ? undefined : thread.turns.at(-1)?.id
      return {
        result: yield* opened(thread, params),
        after: Effect.andThen(events.usage(thread, turnId), started(thread))
      }
    }),
    "thread/unsubscribe": ({ threadId }, client) =>
      Effect.sync(() => {
        if (store.find(threadId)?.loaded !== true) return { result: { status: "notLoaded" } }
        if (client.unsubscribed.has(threadId)) return { result: { status: "notSubscribed" } }
        client.unsubscribed.add(threadId)
        return { result: { status: "unsubscribed" } }
      }),
    "thread/settings/update": Effect.fnUntraced(function*(params) {
      const thread = yield* store.getLoaded(params)
      return { result: {}, after: yield* events.override(thread, params) }
    })
  } satisfies Methods
}

/** `thread/name/set`, `thread/archive` and `thread/unarchive`. */
export const fileMethods = ({ clients, events, store }: Fake) =>
  ({
    "thread/name/set": Effect.fnUntraced(function*({ name, threadId }) {
      const thread = store.find(threadId)
      if (thread === undefined || thread.archived) {
        return yield* reject(`no rollout found for thread id ${threadId}`)
      }
      if (thread.ephemeral) {
        return yield* reject(`ephemeral thread does not support metadata updates: ${thread.id}`)
      }
      thread.name = name
      thread.stored = true
      return { result: {}, after: clients.notify("thread/name/updated", { threadId, threadName: name }) }
    }),
    "thread/inject_items": Effect.fnUntraced(function*(params) {
      const thread = yield* store.getLoaded(params)
      if (!thread.ephemeral) thread.stored = true
      if (thread.preview === "") thread.preview = firstUserText(params.items)
      return { result: {} }
    }),
    "thread/archive": Effect.fnUntraced(function*({ threadId }) {
      const thread = store.find(threadId)
      if (thread === undefined || thread.ephemeral || thread.archived) {
        return yield* reject(`no rollout found for thread id ${threadId}`)
      }
      if (thread.loaded) yield* events.status(thread, { type: "notLoaded" })
      thread.archived = true
      thread.stored = true
      thread.loaded = false
      thread.failed = false
      return { result: {}, after: clients.notify("thread/archived", { threadId }) }
    }),
    "thread/unarchive": Effect.fnUntraced(function*({ threadId }) {
      const thread = store.find(threadId)
      if (thread?.loaded === true && !thread.ephemeral) {
        return yield* reject(`thread ${threadId} already has an active writer`)
      }
      if (thread?.archived !== true) {
        return yield* reject(`no archived rollout found for thread id ${threadId}`)
      }
      thread.archived = false
      thread.updatedAt = toSeconds(yield* Clock.currentTimeMillis)
      return { result: { thread: threadJson(thread) }, after: clients.notify("thread/unarchived", { threadId }) }
    })
  }) satisfies Methods

/** `thread/list`, `thread/read` and the other methods that only read. */
export const readMethods = ({ events, store }: Fake) =>
  ({
    "thread/list": Effect.fnUntraced(function*(params) {
      const archived = params.archived ?? false
      const listed = store.all().filter((thread) =>
        thread.stored && thread.archived === archived && (archived || thread.turns.length > 0) &&
        isListed(thread, params.sourceKinds)
      )
      const key = Predicate.isNullish(params.sortKey) || params.sortKey === "created_at" ? "createdAt" : "updatedAt"
      const sorted = listed.toSorted((one, other) => one[key] - other[key])
      if (params.sortDirection !== "asc") sorted.reverse()
      // The real server omits the origin of a fork and of a sub-agent in a list.
      const entries = sorted.map((thread) =>
        Object.assign(threadJson(thread), { forkedFromId: null, sessionId: thread.id, threadSource: null })
      )
      return { result: yield* page("threads", entries, params) }
    }),
    "thread/loaded/list": Effect.fnUntraced(function*(params) {
      const loaded = store.all().filter((thread) => thread.loaded).map((thread) => thread.id)
      return { result: yield* page("loaded", loaded, loaded.length === 0 ? {} : params) }
    }),
    "thread/read": Effect.fnUntraced(function*(params) {
      const thread = yield* store.getReadable(params.threadId)
      if (params.includeTurns !== true) return { result: { thread: threadJson(thread) } }
      if (thread.ephemeral) return yield* reject("ephemeral threads do not support includeTurns")
      // The real server writes the file of a thread to read it.
      thread.stored = true
      yield* checkListable(thread)
      yield* events.historyDeprecated("omit `includeTurns` or set it to `false`")
      return { result: { thread: threadJson(thread, true) } }
    }),
    "thread/turns/list": Effect.fnUntraced(function*(params) {
      const thread = yield* store.getReadable(params.threadId)
      if (thread.ephemeral) return yield* reject("ephemeral threads do not support thread/turns/list")
      if (!thread.stored) {
        return yield* reject(
          `thread ${thread.id} is not materialized yet; thread/turns/list is unavailable before first user message`
        )
      }
      yield* checkListable(thread)
      return { result: yield* turnsPage(thread, params) }
    })
  }) satisfies Methods
