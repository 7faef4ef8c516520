import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { promisify } from "node:util"

/** Prints the number of modules of `effect/ai` and of the codec that the package loads, and that typed output loads. */
const script = `
import { registerHooks } from "node:module"
const loaded = []
registerHooks({
  load(url, context, next) {
    if (/effect[^]dist[^]ai[^]|output[^]outputCodec/.test(url)) loaded.push(url)
    return next(url, context)
  }
})
await import("./src/index.ts")
const before = loaded.length
const Effect = await import("effect/Effect")
const Schema = await import("effect/Schema")
const { loadOutputCodec } = await import("./src/internal/output/loadOutputCodec.ts")
const { makeOutputCodec } = await Effect.runPromise(loadOutputCodec)
await Effect.runPromise(makeOutputCodec(Schema.String))
console.log(JSON.stringify({ before, after: loaded.length }))
`

describe("makeOutputCodec", () => {
  it(
    "loads with effect/ai when it is first called, and not with the package",
    () =>
      promisify(execFile)(process.execPath, ["--input-type=module", "--eval", script]).then(({ stdout }) => {
        const { after, before } = JSON.parse(stdout)
        assert.strictEqual(before, 0)
        assert.isAbove(after, 1)
      }),
    60_000
  )
})
