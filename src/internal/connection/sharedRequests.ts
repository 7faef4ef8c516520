/**
 * Handles the requests of a server that outlives its connections. On the next connection the server repeats the requests without a response.
 * Their handlers continue meanwhile, so no handler runs twice for one request.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import { toIdentity } from "../jsonrpc/incomingRequests.ts"
import type { IncomingRequest, Response } from "../jsonrpc/messages.ts"

type ResponseFiber = Fiber.Fiber<Response>

/** Maximum number of responses that are kept, because they may be lost with their connection. */
const maxResponses = 64

export class SharedRequests {
  private readonly fibers = new Map<string, ResponseFiber>()
  private readonly runFork: (handler: Effect.Effect<Response>) => ResponseFiber

  private constructor(runFork: (handler: Effect.Effect<Response>) => ResponseFiber) {
    this.runFork = runFork
  }

  /** Interrupts all handlers when the scope closes. */
  static readonly make: Effect.Effect<SharedRequests, never, Scope.Scope> = Effect.map(
    Effect.flatMap(FiberSet.make<Response>(), (fibers) => FiberSet.runtime(fibers)()),
    (runFork) => new SharedRequests((handler) => runFork(handler))
  )

  /**
   * Runs the handler of a request, or waits for the handler that runs since an earlier connection. An interrupt because of the end of the
   * connection leaves the handler running; any other one interrupts the handler.
   */
  handle(
    request: IncomingRequest,
    handler: Effect.Effect<Response>,
    hasConnection: () => boolean
  ): Effect.Effect<Response> {
    return Effect.suspend(() => {
      const key = toIdentity(request)
      const fiber = this.fibers.get(key) ?? this.start(key, handler)
      return Effect.onInterrupt(
        Fiber.join(fiber),
        () => hasConnection() ? Effect.andThen(this.remove(key, fiber), Fiber.interrupt(fiber)) : Effect.void
      )
    })
  }

  /** Interrupts the handlers of the requests that the server has not repeated: they have a response, or their turn has ended. */
  readonly retain = (pending: ReadonlyArray<IncomingRequest>): Effect.Effect<void> =>
    Effect.suspend(() => {
      const keys = new Set(pending.map(toIdentity))
      const stale = [...this.fibers].filter(([key, fiber]) => !keys.has(key) && fiber.pollUnsafe() === undefined)
      for (const [key] of stale) this.fibers.delete(key)
      return Fiber.interruptAll(stale.map(([, fiber]) => fiber))
    })

  private start(key: string, handler: Effect.Effect<Response>): ResponseFiber {
    const fiber = this.runFork(handler)
    this.fibers.set(key, fiber)
    fiber.addObserver((exit) => {
      if (exit._tag === "Failure" && this.fibers.get(key) === fiber) this.fibers.delete(key)
      const ended = [...this.fibers].filter(([, other]) => other.pollUnsafe() !== undefined)
      for (const [oldest] of ended.slice(0, -maxResponses)) this.fibers.delete(oldest)
    })
    return fiber
  }

  private remove(key: string, fiber: ResponseFiber): Effect.Effect<void> {
    return Effect.sync(() => {
      if (this.fibers.get(key) === fiber) this.fibers.delete(key)
    })
  }
}
