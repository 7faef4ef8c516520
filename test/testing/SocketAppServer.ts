/** The real app-server behind sockets, for tests with several clients. */
import { Transport } from "effect-codex"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { codexBinary } from "../../src/internal/stdio/codexBinary.ts"
import { CodexEnvironment } from "../../src/testing/CodexEnvironment.ts"
import { codexPath } from "../TestCodex.ts"

/** Opens a socket. Each text message is one line. */
const connectTo = (url: string) =>
  Effect.gen(function*() {
    const incoming = yield* Queue.unbounded<string, Cause.Done>()
    const socket = yield* Effect.acquireRelease(
      Effect.sync(() => new WebSocket(url)),
      (socket) => Effect.sync(() => socket.close())
    )
    socket.addEventListener("message", ({ data }) => Queue.offerUnsafe(incoming, String(data)))
    yield* Effect.callback<void>((resume) => socket.addEventListener("open", () => resume(Effect.void)))
    return {
      incoming: Stream.fromQueue(incoming),
      send: (line) => Effect.sync(() => socket.send(line))
    } satisfies Transport.Connection
  })

/** Starts an app-server in the {@link CodexEnvironment}, and returns the transport of its clients. */
export const make = Effect.gen(function*() {
  const environment = yield* CodexEnvironment
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const args = ["app-server", "--listen", "ws://127.0.0.1:0"]
  const process = yield* spawner.spawn(ChildProcess.make(codexPath ?? (yield* codexBinary), args, {
    cwd: environment.workspace,
    env: environment.env,
    extendEnv: true,
    forceKillAfter: "2 seconds"
  }))
  const urls = yield* Queue.unbounded<string>()
  yield* process.stderr.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) => Queue.offerAll(urls, /ws:\/\/[\d.]+:\d+/.exec(line) ?? [])),
    Effect.forkScoped
  )
  const url = yield* Queue.take(urls).pipe(Effect.timeout("10 seconds"))
  return Transport.Transport.of({ connect: connectTo(url) })
})
