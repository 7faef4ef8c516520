/**
 * Approval requests: before it acts, Codex asks whether it may run a command, change files, get permissions or call a tool.
 *
 * **When to use**
 *
 * Pass an {@link Approver}, one typed handler for each kind of request or an `ApprovalPolicy` for all of them, as the option `approvals`
 * of a thread or a turn, or provide it to a program with {@link layer}. Handlers are Effects: they may need services, wait, and use
 * Codex itself.
 *
 * **Details**
 *
 * The handlers of the turn's option come first, then those of the thread's option, then those that {@link layer} provides: in the context
 * where the turn is started, where the thread was opened, and where the `Codex` layer was built. A sub-agent has the handlers of the
 * turn and the thread that it works for.
 *
 * Requests fail closed. A request is declined, with a warning in the log, if no handler decides, if a handler fails or dies, and if the
 * request does not decode. Each request gets one response.
 *
 * A handler is interrupted when another client responds to its request, when the turn ends, and when the connection closes.
 *
 * **Gotchas**
 *
 * Requests reach a program only if the thread asks for them: with `approvalPolicy: "on-request"` (or `"untrusted"`) and
 * `approvalsReviewer: "user"`. The default of new threads, `auto_review`, lets a model decide instead. MCP tools ask under
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
 * Makes a policy of an {@link Approver}, with the services that it needs from the current context.
 *
 * **When to use**
 *
 * To provide approvals to one effect: `Effect.provideService(effect, Approvals.Approvals, policy)`. {@link layer} does it as a layer.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <const A extends Approver<any>>(
  approver: A & NoExcessProperties<A, Handlers>
): Effect.Effect<Policy, never, Services<A>> =>
  Effect.map(handlerContext<Services<A>>(), (context) => providePolicy<Services<A>>(approver, context))

/**
 * Provides an {@link Approver} to a program: it decides about the requests of the threads and turns that the program starts.
 *
 * **Details**
 *
 * It decides for the program that it is provided to, and not for other programs on the same `Codex`. The option `approvals` of a
 * thread or a turn comes first. Where two of these layers are nested, a turn has the inner one; combine approvers with
 * `ApprovalPolicy.firstOf` to have both.
 *
 * **Gotchas**
 *
 * A turn that joins a running turn has the handlers of the running turn.
 *
 * The approver decides about a thread for as long as the thread is open. Its services may be closed by then if the layer was provided to the
 * call that opened the thread only.
 *
 * An approver that is neither a function nor an object of handlers, or that has a handler under an unknown name, is a defect: a
 * `TypeError`. As the option of a thread or a turn it fails with `InvalidRequest`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <const A extends Approver<any>>(
  approver: A & NoExcessProperties<A, Handlers>
): Layer.Layer<never, never, Services<A>> => Layer.effect(Approvals, make<A>(approver))

/**
 * Every request of every thread and its outcome, from the moment the stream is run. A slow subscriber never applies backpressure.
 *
 * @category streams
 * @since 0.1.0
 */
export const audit: Stream.Stream<AuditEntry, never, Codex.Codex> = Stream.unwrap(
  Effect.map(Codex.Codex, ({ approvals }) => approvals)
)
