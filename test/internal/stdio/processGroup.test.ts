import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { spawn } from "node:child_process"
import { hasOnlyZombies } from "../../../src/internal/stdio/processGroup.ts"

describe.skipIf(process.platform !== "linux")("a process group", () => {
  it.live("has only zombies when its last process has ended and nobody has asked about it", () =>
    Effect.gen(function*() {
      // A shell that becomes a program which asks about no child, and whose child has a group of its own.
      const parent = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn("sh", ["-c", "setsid sh -c 'echo $$; exec sleep 60' 'a ) R 1 name' & exec sleep 60"], {
            stdio: ["ignore", "pipe", "ignore"]
          })
        ),
        (parent) => Effect.sync(() => parent.kill("SIGKILL"))
      )
      const group = yield* Effect.callback<number>((resume) => {
        parent.stdout.once("data", (chunk) => resume(Effect.succeed(Number(chunk))))
      })
      assert.isAbove(group, 1)
      assert.isFalse(hasOnlyZombies(group))
      process.kill(group, "SIGKILL")
      yield* Effect.sync(() => hasOnlyZombies(group)).pipe(
        Effect.repeat({ until: (onlyZombies) => onlyZombies, schedule: Schedule.spaced("5 millis") }),
        Effect.timeout("5 seconds")
      )
    }).pipe(Effect.scoped))

  it("is none that is not there, nor one's own", () => {
    assert.isFalse(hasOnlyZombies(2 ** 22 + 1))
    assert.isFalse(hasOnlyZombies(process.pid))
  })
})
