import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { promisify } from "node:util"

/** Prints which modules of `effect/ai` are loaded by the package, and which once a schema's output is asked for. */
const script = `
import { registerHooks } from "node:module"
const loaded = []
registerHooks({
  load(url, context, next) {
    if (/effect[^]dist[^]ai[^]/.test(url)) loaded.push(url)
    return next(url, context)
  }
})
await import("./src/index.ts")
const { makeOutputCodec } = await import("./src/internal/output/outputCodec.ts")
const before = loaded.length
const Effect = await import("effect/Effect")
const Schema = await import("effect/Schema")
await Effect.runPromise(makeOutputCodec(Schema.String))
console.log(JSON.stringify({ before, after: loaded.length }))
`

describe("makeOutputCodec", () => {
  it(
    "loads effect/ai when it is first called, and not with the package",
    () =>
      promisify(execFile)(process.execPath, ["--input-type=module", "--eval", script]).then(({ stdout }) => {
        const { after, before } = JSON.parse(stdout)
        assert.strictEqual(before, 0)
        assert.isAbove(after, 0)
      }),
    60_000
  )
})
