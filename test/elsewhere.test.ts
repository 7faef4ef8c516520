/** Servers that another program starts, on another machine or in a container. The programs are scripts that stand for them. */
import { assert, layer } from "@effect/vitest"
import { AppServer, Codex } from "effect-codex"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { codexBinary } from "../src/internal/stdio/codexBinary.ts"
import * as TestCodex from "./TestCodex.ts"

/** Passes its arguments after the host to a shell, as `ssh` does. */
const ssh = `#!/bin/sh
[ "$1" = host ] || exit 64
shift
exec /bin/sh -c "$*"
`

/** Passes its arguments after the image on unchanged, as `docker run -i --rm IMAGE` does. */
const docker = `#!/bin/sh
[ "$1 $2 $3 $4" = "run -i --rm image" ] || exit 64
shift 4
exec "$@"
`

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Server elsewhere", (it) => {
  it.effect.each(
    [
      ["ssh", ssh, ["host"]],
      ["docker", docker, ["run", "-i", "--rm", "image"]]
    ] as const
  )("runs a turn through %s, and ends with its scope", ([name, script, args]) =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { root } = yield* CodexEnvironment.CodexEnvironment
      const command = `${root}/${name}`
      yield* fs.writeFileString(command, script, { mode: 0o755 })
      const codexPath = [command, ...args, TestCodex.codexPath ?? (yield* codexBinary)]
      const pid = yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        yield* TestCodex.script(thread, ModelServer.text("from afar"))
        assert.strictEqual((yield* thread.run("go")).finalResponse, "from afar")
        const server = yield* AppServer.AppServer
        return (yield* server.request("server/diagnostics")).process.id
      }).pipe(Effect.provide(TestCodex.layerProcess({ codexPath })))
      assert.throws(() => process.kill(pid, 0))
    }))
})
