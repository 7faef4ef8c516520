import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { spawn } from "node:child_process"
import { hasOnlyZombies } from "../../../src/internal/stdio/processGroup.ts"

describe.skipIf(process.platform !== "linux")("hasOnlyZombies", () => {
  it.live("is true once the last process of the group has ended and its parent has not reaped it", () =>
    Effect.gen(function*() {
      // The shell becomes `sleep`, which never reaps. Its child leads a group of its own.
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
      assert.isFalse(yield* hasOnlyZombies(group))
      process.kill(group, "SIGKILL")
      yield* hasOnlyZombies(group).pipe(
        Effect.repeat({ until: (onlyZombies) => onlyZombies, schedule: Schedule.spaced("5 millis") }),
        Effect.timeout("5 seconds")
      )
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.effect("is false for a group that does not exist, and for the group of this process", () =>
    Effect.gen(function*() {
      assert.isFalse(yield* hasOnlyZombies(2 ** 22 + 1))
      assert.isFalse(yield* hasOnlyZombies(process.pid))
    }).pipe(Effect.provide(NodeServices.layer)))
})
