/** The server: the page, its script, and the calls of `ViewRpcs` over a WebSocket. */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { type Approvals, Codex } from "effect-codex"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as RpcSerialization from "effect/rpc/RpcSerialization"
import * as RpcServer from "effect/rpc/RpcServer"
import * as Stream from "effect/Stream"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"
import { rolldown } from "rolldown"
import { toUpdates } from "./updates.ts"
import { PageError, ViewRpcs } from "./ViewRpcs.ts"

/** An approver that waits for the decision of a page. */
const makeApprovals = Effect.sync(() => {
  const pending = new Map<string, Deferred.Deferred<"accept" | "decline">>()
  const ask = (approvalId: string) =>
    Effect.suspend(() => {
      const decision = Deferred.makeUnsafe<"accept" | "decline">()
      pending.set(approvalId, decision)
      return Effect.ensuring(Deferred.await(decision), Effect.sync(() => pending.delete(approvalId)))
    })
  const approvals: Approvals.Approver = {
    command: ({ approvalId, itemId }) => ask(approvalId ?? itemId),
    fileChange: ({ itemId }) => ask(itemId)
  }
  return {
    approvals,
    decide: (approvalId: string, decision: "accept" | "decline") =>
      Effect.suspend(() => {
        const deferred = pending.get(approvalId)
        return deferred === undefined ? Effect.void : Deferred.succeed(deferred, decision)
      })
  }
})

const toPageError = ({ message }: Error) => new PageError({ message })

const Handlers = ViewRpcs.toLayer(Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const scope = yield* Effect.scope
  const { approvals, decide } = yield* makeApprovals
  const thread = yield* codex.startThread({
    approvalPolicy: "on-request",
    approvalsReviewer: "user",
    approvals,
    config: { "tools.update_plan.enabled": true }
  })

  // One subscription from the start on has what the server does not store, such as the text in progress. Pages read its newest view.
  const views = yield* Stream.broadcast(thread.view, { capacity: 1, strategy: "sliding", replay: 1 })

  // The turn belongs to the server, so it continues when the page is closed.
  const start = Effect.fnUntraced(function*(prompt: string) {
    const started = yield* Deferred.make<void, PageError>()
    yield* thread.turn(prompt).pipe(
      Effect.mapError(toPageError),
      Effect.onExit((exit) => Deferred.done(started, Exit.asVoid(exit))),
      Effect.flatMap((turn) => turn.result),
      Effect.scoped,
      Effect.ignore,
      Effect.forkIn(scope)
    )
    yield* Deferred.await(started)
  })

  const stop = Effect.fnUntraced(function*(turnId: string) {
    const turn = yield* thread.currentTurn
    if (Option.isSome(turn) && turn.value.id === turnId) yield* turn.value.interrupt
  }, Effect.scoped)

  return ViewRpcs.of({
    Watch: () =>
      views.pipe(
        // At most 20 updates a second. Meanwhile the view skips to the newest.
        Stream.throttle({ cost: (views) => views.length, units: 1, duration: "50 millis" }),
        toUpdates,
        Stream.mapError(toPageError)
      ),
    Start: ({ prompt }) => start(prompt),
    Stop: ({ turnId }) => Effect.mapError(stop(turnId), toPageError),
    Decide: ({ approvalId, decision }) => Effect.asVoid(decide(approvalId, decision))
  })
}))

/** Bundles the script of the page. A program with a build does this once, at build time. */
const bundlePage = Effect.promise(async () => {
  const bundle = await rolldown({
    input: fileURLToPath(new URL("page.ts", import.meta.url)),
    platform: "browser",
    // The first condition selects the sources of this repository.
    resolve: { conditionNames: ["@effect-codex/source", "browser", "import", "default"] }
  })
  const { output: [chunk] } = await bundle.generate({ format: "esm", minify: true, codeSplitting: false })
  await bundle.close()
  return chunk.code
})

/** Only this server's script runs on the page, and only this server's page may use it. */
const headers = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "cache-control": "no-store"
}

/** Rejects requests of other pages. A browser sends the origin of the page with each WebSocket. */
const checkOrigin = (own: string) =>
  HttpRouter.middleware(
    (response) =>
      Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) => {
        const { origin, upgrade } = headers
        const isAllowed = origin === undefined ? upgrade === undefined : origin === own
        return isAllowed ? response : Effect.succeed(HttpServerResponse.empty({ status: 403 }))
      }),
    { global: true }
  )

/** The address of the page. */
export class PageAddress extends Context.Service<PageAddress, string>()("examples/PageAddress") {}

const Routes = Layer.unwrap(Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const { address } = yield* HttpServer.HttpServer
  const html = yield* fs.readFileString(fileURLToPath(new URL("page.html", import.meta.url)))
  const script = yield* bundlePage
  const origin = HttpServer.formatAddress(address)
  // Other users of this machine can connect to the port. They do not know the path.
  const path = `/${globalThis.crypto.randomUUID()}` as const
  return Layer.mergeAll(
    Layer.succeed(PageAddress, `${origin}${path}/`),
    checkOrigin(origin),
    HttpRouter.add("GET", `${path}/`, HttpServerResponse.setHeaders(HttpServerResponse.html(html), headers)),
    HttpRouter.add(
      "GET",
      `${path}/page.js`,
      HttpServerResponse.text(script, { contentType: "text/javascript", headers })
    ),
    RpcServer.layerHttp({ group: ViewRpcs, path: `${path}/rpc`, protocol: "websocket" }).pipe(
      Layer.provide([Handlers, RpcSerialization.layerNdjson])
    )
  )
}))

/** Serves a thread on a port of loopback. */
export const layer = HttpRouter.serve(Routes, { disableLogger: true, disableListenLog: true }).pipe(
  // An open page does not delay the end of the server.
  Layer.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0, gracefulShutdownTimeout: 0 }))
)
