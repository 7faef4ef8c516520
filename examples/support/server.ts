/** A `codex app-server` that listens on a socket, with the scripted or the live model. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"
import { CodexOptions } from "./codex.ts"

const codex = fileURLToPath(new URL("bin/codex.js", import.meta.resolve("@openai/codex/package.json")))

/** Starts a server on a free port of this machine, until the scope closes, and returns its URL. */
export const startServer = Effect.gen(function*() {
  const spawner = yield* ChildProcessSpawner
  const { cwd, env = {} } = yield* CodexOptions
  const child = yield* spawner.spawn(
    ChildProcess.make(process.execPath, [codex, "app-server", "--listen", "ws://127.0.0.1:0"], {
      cwd,
      env: Object.fromEntries(
        Object.entries(env).map(([name, value]) => [name, Redacted.isRedacted(value) ? Redacted.value(value) : value])
      ),
      extendEnv: true
    })
  )
  const url = yield* Deferred.make<string>()
  yield* child.stderr.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) => {
      const found = /listening on: (\S+)/.exec(line)?.[1]
      return found === undefined ? Effect.void : Deferred.succeed(url, found)
    }),
    Effect.forkScoped
  )
  return yield* Deferred.await(url)
})
