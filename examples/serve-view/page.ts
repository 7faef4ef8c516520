/** The script of the page: it renders the updates of the server, and sends what the person does. */
import type { ThreadView } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as RpcClient from "effect/rpc/RpcClient"
import * as RpcSerialization from "effect/rpc/RpcSerialization"
import * as Schedule from "effect/Schedule"
import * as Socket from "effect/socket/Socket"
import * as Stream from "effect/Stream"
import { renderThread } from "./render.ts"
import { applyUpdate } from "./updates.ts"
import { ViewRpcs } from "./ViewRpcs.ts"

const find = <A extends Element>(selector: string): A => document.querySelector<A>(selector)!

const turns = find("#turns")
const connection = find("#connection")
const form = find<HTMLFormElement>("form")
const stop = find<HTMLButtonElement>("#stop")

const program = Effect.gen(function*() {
  const client = yield* RpcClient.make(ViewRpcs)

  /** Runs a call, and shows its error. */
  const run = <E extends { readonly message: string }>(call: Effect.Effect<void, E>): void => {
    Effect.runFork(Effect.catch(call, (error) => Effect.sync(() => connection.textContent = error.message)))
  }

  let view: ThreadView.ThreadView | undefined
  const runningTurn = () => view?.turns.findLast(({ status }) => status === "inProgress")

  form.addEventListener("submit", (event) => {
    event.preventDefault()
    run(client.Start({ prompt: String(new FormData(form).get("prompt")) }))
    form.reset()
  })
  stop.addEventListener("click", () => {
    const turn = runningTurn()
    if (turn !== undefined) run(client.Stop({ turnId: turn.turnId }))
  })

  yield* client.Watch().pipe(
    Stream.runForEach((update) =>
      Effect.sync(() => {
        view = applyUpdate(view, update)
        renderThread(turns, view, (approvalId, decision) => run(client.Decide({ approvalId, decision })))
        stop.disabled = runningTurn() === undefined
        connection.textContent = ""
      })
    ),
    Effect.tapError((error) => Effect.sync(() => connection.textContent = `Disconnected: ${error.message}`)),
    // The first update of the next connection is the whole thread again.
    Effect.retry(Schedule.spaced("1 second"))
  )
}).pipe(Effect.scoped)

const url = new URL("rpc", location.href)
url.protocol = "ws:"

const Client = RpcClient.layerProtocolSocket().pipe(
  Layer.provide(Socket.layerWebSocket(url.href)),
  Layer.provide([Socket.layerWebSocketConstructorGlobal, RpcSerialization.layerNdjson])
)

Effect.runFork(Effect.provide(program, Client))
