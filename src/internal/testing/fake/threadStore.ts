/** The threads and turns that the fake stores. */
import * as Clock from "effect/Clock"
import type * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Queue from "effect/Queue"
import type * as Protocol from "../../../Protocol.ts"
import type { Interrupted } from "../../../testing/TurnScript.ts"
import { reject, type Rejection } from "./methods.ts"
import { type OpenParams, openSettings, readConfig, type Settings } from "./settings.ts"

export interface StoredTurn {
  readonly id: string
  /** The id of the turn that this one works for, or its own id. */
  readonly rootTurnId: string
  status: "inProgress" | "completed" | "interrupted" | "failed"
  error: Protocol.TurnError | null
  readonly items: Array<Protocol.ThreadItem>
  /** In milliseconds. */
  readonly startedAt: number
  completedAt: number | null
}

/** The input of a turn, or of a steer. */
export type TurnInput = Pick<Protocol.TurnStartParams, "input" | "clientUserMessageId">

/** A turn in progress. */
export interface ActiveTurn {
  readonly stored: StoredTurn
  /** The turn in `turn/started`, whose id `turn/interrupt` expects. A review starts with another id than it ends with. */
  readonly started: StoredTurn
  readonly steers: Queue.Queue<TurnInput>
  readonly interrupted: Deferred.Deferred<never, Interrupted>
  /** Completed when the script has ended, by itself or by the interruption. */
  readonly stopped: Deferred.Deferred<void>
  /** Completed when `turn/interrupt` has its response, which precedes the end of the turn. */
  readonly responded: Deferred.Deferred<void>
  /** Completed when the turn has ended. */
  readonly ended: Deferred.Deferred<StoredTurn>
  /** The commands and calls in progress, by item id. */
  readonly inProgress: Map<string, Protocol.ThreadItem>
  /** Ids of the requests that the interruption left without a response. */
  readonly unresolved: Array<number>
  /** What the script does after the end of the turn. */
  readonly late: Array<Effect.Effect<unknown>>
  hasStarted: boolean
}

export const isReview = ({ started, stored }: ActiveTurn): boolean => started !== stored

/** The goal that a thread works on. */
export interface StoredGoal {
  objective: string
  status: Protocol.ThreadGoalStatus
  tokenBudget: number | null
  tokensUsed: number
  /** In milliseconds. */
  timeUsed: number
  /** When its time was counted last, in milliseconds. */
  countedAt: number
  readonly createdAt: number
  updatedAt: number
}

/** The thread that a sub-agent or a reviewer works for. */
export interface Parent {
  readonly thread: StoredThread
  readonly kind: "spawn" | "review"
}

export interface StoredThread {
  readonly id: string
  readonly forkedFromId: string | null
  readonly parent: Parent | undefined
  readonly ephemeral: boolean
  /** Whether the client receives the raw items of the model. Only a new thread can have them. */
  readonly rawEvents: boolean
  readonly createdAt: number
  updatedAt: number
  name: string | null
  preview: string
  /** Whether the thread has a file. Its first turn, its name or its archive creates one. */
  stored: boolean
  archived: boolean
  loaded: boolean
  /** Whether the server has read the thread from its file. Only then are the turns of a thread without turns listable. */
  reopened: boolean
  failed: boolean
  settings: Settings
  usage: { readonly total: Protocol.TokenUsageBreakdown; readonly last: Protocol.TokenUsageBreakdown } | undefined
  /** The turn of the last report of the usage. */
  usageTurnId: string | undefined
  readonly turns: Array<StoredTurn>
  /** The first turn that the client has not marked as read. */
  firstUnread: string | undefined
  goal: StoredGoal | undefined
  /** Commands in progress, by process id. A command that outlives its turn is a background terminal. */
  readonly processes: Map<string, Protocol.ThreadItem & { readonly type: "commandExecution" }>
  active: ActiveTurn | undefined
}

export const toSeconds = (millis: number): number => Math.floor(millis / 1000)

type NewThread = Pick<StoredThread, "settings"> & Partial<StoredThread>

type CopyParams = Pick<Protocol.ThreadForkParams, "lastTurnId">

type RawParams = Pick<Protocol.ThreadStartParams, "experimentalRawEvents">

/** Copies the history for a fork, until the last turn that it has. */
const copyHistory = (
  source: StoredThread | undefined,
  lastTurnId: string | null | undefined
): Effect.Effect<Partial<StoredThread>, Rejection> => {
  if (source === undefined) return Effect.succeed({})
  const { id: forkedFromId, name, preview, turns, usage, usageTurnId } = source
  const last = Predicate.isNullish(lastTurnId) ? turns.length - 1 : turns.findIndex(({ id }) => id === lastTurnId)
  return last < 0 && Predicate.isString(lastTurnId) ? reject(`turn not found: ${lastTurnId}`) : Effect.succeed({
    forkedFromId,
    name,
    preview,
    usage,
    usageTurnId,
    turns: turns.slice(0, last + 1).map((turn) => Object.assign({}, turn, { items: turn.items.slice() }))
  })
}

export const makeThreadStore = (threadIds = "thread") => {
  const threads = new Map<string, StoredThread>()
  let lastId = 0
  const newId = (prefix: string) => `${prefix}-${++lastId}`

  const add = (given: NewThread): Effect.Effect<StoredThread> =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      const thread: StoredThread = {
        id: newId(threadIds),
        forkedFromId: null,
        parent: undefined,
        ephemeral: false,
        rawEvents: false,
        createdAt: toSeconds(now),
        updatedAt: toSeconds(now),
        name: null,
        preview: "",
        stored: false,
        archived: false,
        loaded: true,
        reopened: false,
        failed: false,
        usage: undefined,
        usageTurnId: undefined,
        turns: [],
        firstUnread: undefined,
        goal: undefined,
        processes: new Map(),
        active: undefined,
        ...given
      }
      threads.set(thread.id, thread)
      return thread
    })

  return {
    newId,
    find: (id: string) => threads.get(id),
    all: (): ReadonlyArray<StoredThread> => [...threads.values()],

    /** Finds a thread that is loaded. */
    getLoaded: ({ threadId }: { readonly threadId: string }): Effect.Effect<StoredThread, Rejection> => {
      const thread = threads.get(threadId)
      return thread?.loaded === true ? Effect.succeed(thread) : reject(`thread not found: ${threadId}`)
    },

    /** Finds a thread that has a file, so that it can be opened again. */
    getStored: (id: string): Effect.Effect<StoredThread, Rejection> => {
      const thread = threads.get(id)
      if (thread === undefined || !thread.stored) return reject(`no rollout found for thread id ${id}`)
      return thread.archived
        ? reject(`session ${id} is archived. Run \`codex unarchive ${id}\` to unarchive it first.`)
        : Effect.succeed(thread)
    },

    /** Finds a thread that can be read. */
    getReadable: (id: string): Effect.Effect<StoredThread, Rejection> => {
      const thread = threads.get(id)
      return thread === undefined ? reject(`thread not loaded: ${id}`) : Effect.succeed(thread)
    },

    /** Creates a thread, as a copy of `source` if it is a fork. */
    create: Effect.fnUntraced(function*(params: OpenParams & CopyParams & RawParams, source?: StoredThread) {
      const method = source === undefined ? "thread/start" : "thread/fork"
      return yield* add({
        ...yield* copyHistory(source, params.lastTurnId),
        ephemeral: params.ephemeral ?? false,
        rawEvents: params.experimentalRawEvents ?? false,
        stored: source !== undefined && params.ephemeral !== true,
        settings: openSettings(method, params, yield* readConfig(params), source?.settings)
      })
    }),

    /** Creates the thread of a sub-agent or a reviewer. */
    createChild: (parent: Parent, child: NewThread) =>
      add({ parent, ephemeral: parent.thread.ephemeral, stored: !parent.thread.ephemeral, ...child }),

    /** Unloads every thread, as when the process ends. */
    unloadAll: () => {
      for (const thread of threads.values()) {
        thread.loaded = false
        thread.failed = false
        thread.processes.clear()
        thread.active = undefined
      }
    }
  }
}

export type ThreadStore = ReturnType<typeof makeThreadStore>
