/**
 * Requests of Codex for approval to run a command, change files, get permissions or call a tool, and the handlers that decide.
 *
 * **When to use**
 *
 * Pass an {@link Approver} as the option `approvals` of a thread or a turn, or provide it to a program with {@link layer}. An approver is
 * an `ApprovalPolicy` for all requests, or a typed handler for each kind. Handlers are Effects: they may need services, wait, and use
 * Codex.
 *
 * **Details**
 *
 * The handlers of the turn's option decide first, then those of the thread's option, then those that {@link layer} provides: in the
 * context where the turn is started, where the thread was opened, and where the `Codex` layer was built. A sub-agent has the handlers of
 * the turn and the thread that it works for.
 *
 * Requests fail closed. If no handler decides, a handler fails or dies, or the request does not decode, the request is declined and a
 * warning is logged. Each request gets exactly one response.
 *
 * A handler is interrupted when another client responds to its request, when the turn ends, and when the connection closes.
 *
 * **Gotchas**
 *
 * A program receives requests only from threads with `approvalPolicy: "on-request"` (or `"untrusted"`) and
 * `approvalsReviewer: "user"`. With `auto_review`, the default of new threads, a model decides instead. MCP tools send requests under
 * either policy.
 *
 * **Example** (Approving one command)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Approvals, Codex } from "effect-codex"
 *
 * const approvals = Approvals.layer({
 *   command: ({ argv }) =>
 *     Effect.succeed(argv?.join(" ") === "npm test" ? Approvals.accept : Approvals.decline)
 * })
 *
 * export const program = Effect.gen(function*() {
 *   const codex = yield* Codex.Codex
 *   const thread = yield* codex.startThread({ approvalPolicy: "on-request", approvalsReviewer: "user" })
 *   return yield* thread.run("Run the tests")
 * }).pipe(Effect.provide(approvals))
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Codex from "./Codex.ts"
import {
  Approvals,
  type Approver,
  type AuditEntry,
  type Handlers,
  type Policy,
  type Services
} from "./internal/approvals/model.ts"
import { providePolicy } from "./internal/approvals/toPolicy.ts"
import { handlerContext } from "./internal/handlers/handlerContext.ts"
import type { NoExcessProperties } from "./internal/handlers/handlerServices.ts"

export * from "./internal/approvals/model.ts"
export type { NoExcessProperties } from "./internal/handlers/handlerServices.ts"

/**
 * Makes a policy from an {@link Approver}, with the services of the current context.
 *
 * **When to use**
 *
 * Provide approvals to one effect: `Effect.provideService(effect, Approvals.Approvals, policy)`. Use {@link layer} for a whole program.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <const A extends Approver<unknown>>(
  approver: A & NoExcessProperties<A, Handlers>
): Effect.Effect<Policy, never, Services<A>> =>
  Effect.map(handlerContext<Services<A>>(), (context) => providePolicy(approver as Approver<Services<A>>, context))

/**
 * Provides an {@link Approver} to a program. It decides about the requests of threads and turns that the program starts.
 *
 * **Details**
 *
 * Other programs on the same `Codex` are not affected. The option `approvals` of a thread or a turn decides first. If two of these layers
 * are nested, a turn has the inner one; combine approvers with `ApprovalPolicy.firstOf` to have both.
 *
 * **Gotchas**
 *
 * A turn that joins a running turn has the handlers of the running turn.
 *
 * The approver decides about a thread until the thread closes. If the layer is provided only to the call that opens the thread, its
 * services may be released before that.
 *
 * An approver that is neither a function nor an object of handlers, or that has a handler with an unknown name, is a defect: a
 * `TypeError`. As an option of a thread or a turn, it fails with `InvalidRequest`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <const A extends Approver<unknown>>(
  approver: A & NoExcessProperties<A, Handlers>
): Layer.Layer<never, never, Services<A>> => Layer.effect(Approvals, make<A>(approver))

/**
 * Emits every request of every thread and its outcome, from the moment the stream is run.
 *
 * **Details**
 *
 * A slow subscriber never applies backpressure.
 *
 * @category streams
 * @since 0.1.0
 */
export const audit: Stream.Stream<AuditEntry, never, Codex.Codex> = Stream.unwrap(
  Effect.map(Codex.Codex, ({ approvals }) => approvals)
)
