/** A language for tests of threads and turns on the fake transport: what the server sends, and what the program sees. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as AppServer from "../src/AppServer.ts"
import * as AppServerError from "../src/AppServerError.ts"
import * as Codex from "../src/Codex.ts"
import * as Fake from "./FakeTransport.ts"

/** Codex on a {@link Fake.FakeTransport}. */
export const layer = (options?: AppServer.Options) =>
  Codex.layer.pipe(Layer.provideMerge(AppServer.layer(options)), Layer.provideMerge(Fake.layer))

/** The error of a connection whose server was killed. */
export const killed = AppServerError.make(
  new AppServerError.ConnectionClosed({
    description: "the server was killed by SIGKILL",
    exitCode: undefined,
    signal: "SIGKILL",
    stderrTail: ""
  })
)

/** Opens a thread, to which the server gives this id. */
export const openThread = Effect.fnUntraced(function*(id: string, options?: Codex.StartOptions) {
  const codex = yield* Codex.Codex
  const fake = yield* Fake.FakeTransport
  const opening = yield* Effect.forkChild(codex.startThread(options))
  yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse(id))
  return yield* Fiber.join(opening)
})
