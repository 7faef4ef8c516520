import { assert, describe, it, layer } from "@effect/vitest"
import { AppServer } from "effect-codex"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { TurnState } from "../src/internal/session/turns/turnState.ts"
import * as Fake from "./FakeTransport.ts"
import { layer as layerFake, openThread } from "./scenario.ts"
import * as TestCodex from "./TestCodex.ts"

layer(TestCodex.layer({ restart: TestCodex.quickRestart }), { excludeTestServices: true })(
  "Abandoned turn on a killed server",
  (it) => {
    it.effect("is complete after the restart, so that its interruption returns early", () =>
      Effect.gen(function*() {
        const thread = yield* TestCodex.startThread
        yield* TestCodex.script(thread, TestCodex.halfMessage, ModelServer.text("after"))
        const requested = yield* TestCodex.nextRequest
        const running = yield* Effect.forkChild(thread.run("hang"))
        yield* requested
        yield* TestCodex.killServer
        const since = yield* Clock.currentTimeMillis
        yield* Fiber.interrupt(running)
        assert.isBelow((yield* Clock.currentTimeMillis) - since, 4_000)
        assert.strictEqual((yield* thread.run("again")).finalResponse, "after")
      }))
  }
)

describe("Abandoned turn", () => {
  it.effect("buffers no text when the server does not end it", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const server = yield* AppServer.AppServer
      const thread = yield* openThread("t")
      const states: Array<TurnState> = []
      const { setTurnId } = TurnState.prototype
      TurnState.prototype.setTurnId = function(...args) {
        states.push(this)
        return setTurnId.apply(this, args)
      }
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          TurnState.prototype.setTurnId = setTurnId
        })
      )
      const running = yield* Effect.forkChild(thread.run("go"))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* fake.emit(Fake.turnStarted("t", "u"), Fake.delta("t", "u", "i", "x".repeat(100_000)))
      yield* Effect.yieldNow
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(running))
      yield* fake.takeMethod("turn/interrupt")
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(interrupting)
      yield* fake.emit(Fake.delta("t", "u", "i", "y".repeat(100_000)))
      yield* fake.emit(Fake.messageCompleted("t", "u", "i", "z".repeat(100_000)))
      const list = yield* Effect.forkChild(server.requestRaw("model/list"))
      yield* fake.reply(yield* fake.takeMethod("model/list"), {})
      yield* Fiber.join(list)
      const [state] = states
      assert(state !== undefined)
      assert.isBelow(JSON.stringify([state.items, state["buffer"]]).length, 10_000)
      // The turn ends late, and its state completes.
      yield* fake.emit(Fake.turnCompleted("t", "u", "interrupted"))
      yield* Effect.yieldNow
      assert.isDefined(state.exit)
    }).pipe(Effect.scoped, Effect.provide(layerFake())))

  it.effect("completes when the connection ends", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const named = yield* Effect.forkChild(thread.run("named"))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* fake.emit(Fake.turnStarted("t", "u"))
      yield* Effect.yieldNow
      const unnamed = yield* Effect.forkChild(thread.run("unnamed"))
      yield* fake.takeMethod("turn/start")
      const interrupting = yield* Effect.forkChild(Fiber.interruptAll([named, unnamed]))
      yield* fake.takeMethod("turn/interrupt").pipe(Effect.timeoutOption("1 millis"), Effect.forkChild)
      yield* Effect.yieldNow
      yield* fake.end()
      // The test clock does not advance, so no timeout ends the wait.
      yield* Fiber.join(interrupting)
    }).pipe(Effect.provide(layerFake())))
})

/** A server that exits after `exit`, and ignores the end of stdin. */
const slowServer = `#!/bin/sh
while read -r line; do
  case "$line" in
    *'"initialize"'*) echo '{"id":1,"result":{"userAgent":"slow/0.169.0 (x) y (z; 1)","codexHome":"/","platformFamily":"unix","platformOs":"linux"}}' ;;
    *'"exit"'*) exit 1 ;;
  esac
done
exec sleep 60
`

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("AppServer.layer after a restart", (it) => {
  it.effect("fails pending requests at once when it closes, before the process has exited", () =>
    Effect.gen(function*() {
      const environment = yield* CodexEnvironment.CodexEnvironment
      const path = yield* Path.Path
      const fs = yield* FileSystem.FileSystem
      const script = path.join(environment.root, "slow.sh")
      yield* fs.writeFileString(script, slowServer)
      yield* fs.chmod(script, 0o755)
      const scope = yield* Scope.make()
      const services = yield* Layer.buildWithScope(
        TestCodex.layerProcess({ codexPath: script, restart: TestCodex.quickRestart, closeTimeout: "1 second" }),
        scope
      )
      yield* Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const wire = yield* TestCodex.Wire
        const restarted = yield* TestCodex.nextRestart
        yield* Effect.ignore(server.requestRaw("exit"))
        yield* restarted
        const waiting = yield* Effect.forkChild(Effect.exit(server.requestRaw("model/list", {})))
        yield* wire.awaitSent(({ method }) => method === "model/list")
        const since = yield* Clock.currentTimeMillis
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
        assert.isTrue(Exit.isFailure(yield* Fiber.join(waiting)))
        assert.isBelow((yield* Clock.currentTimeMillis) - since, 500)
        yield* Fiber.join(closing)
        assert.isAtLeast((yield* Clock.currentTimeMillis) - since, 900)
      }).pipe(Effect.provide(services))
    }))
})
