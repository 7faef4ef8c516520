import { assert, describe, it, layer } from "@effect/vitest"
import { AppServer, Codex, type Protocol, RateLimits, Turn } from "effect-codex"
import { FakeAppServer, ModelServer, TestCodex as Kit } from "effect-codex/testing"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { emit, end, killed, layer as layerScenario, receive, reject, respond, restart, settle } from "./scenario.ts"
import * as TestCodex from "./TestCodex.ts"
import { layerCodex } from "./testing/layerCodex.ts"
import { collectWarnings } from "./warnings.ts"

const optional = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

const Window = Schema.Struct({
  usedPercent: Schema.Int,
  resetsAt: optional(Schema.Int),
  windowDurationMins: optional(Schema.Int)
})

/** Updates of few limits, so that most pairs share one. Some ids are names of `Object.prototype`. */
const Update = Schema.Struct({
  limitId: optional(Schema.Literals(["codex", "codex_spark", "__proto__", "constructor"])),
  limitName: optional(Schema.String),
  primary: optional(Window),
  secondary: optional(Window),
  credits: optional(Schema.Struct({ hasCredits: Schema.Boolean, unlimited: Schema.Boolean })),
  spendControlReached: optional(Schema.Boolean),
  planType: optional(Schema.Literals(["plus", "pro"]))
})

const Updates = Schema.Array(Update)

const FullWindow = Schema.Struct({ usedPercent: Schema.Int, resetsAt: Schema.Int, windowDurationMins: Schema.Int })

/** A limit with every value that the server knows. */
const FullLimit = Schema.Struct({
  limitName: Schema.String,
  primary: FullWindow,
  secondary: FullWindow,
  spendControlReached: Schema.Boolean,
  planType: Schema.Literals(["plus", "pro"])
})

const mergeAll = (updates: ReadonlyArray<Protocol.RateLimitSnapshot>, self: RateLimits.RateLimits = { limits: {} }) =>
  updates.reduce((limits, update) => RateLimits.merge(limits, update), self)

const idOf = ({ limitId }: Protocol.RateLimitSnapshot) => limitId ?? "codex"

const getLimit = ({ limits }: RateLimits.RateLimits, id: string): Readonly<Record<string, unknown>> | undefined =>
  Object.hasOwn(limits, id) ? limits[id] as object as Readonly<Record<string, unknown>> : undefined

const at = (seconds: number) => DateTime.makeUnsafe(seconds * 1000)

describe("RateLimits.merge", () => {
  it.prop("returns the same limits if the update has no values", { updates: Updates, update: Update }, (input) => {
    const limits = mergeAll(input.updates)
    const empty = Object.fromEntries(Object.keys(input.update).map((name) => [name, null]))
    assert.strictEqual(RateLimits.merge(limits, { ...empty, limitId: idOf(input.update) }), limits)
  })

  it.prop("changes nothing the second time", { updates: Updates, update: Update }, ({ update, updates }) => {
    const once = mergeAll([...updates, update])
    assert.deepStrictEqual(RateLimits.merge(update)(once), once)
  })

  it.prop("replaces each available value, and keeps each other one", { updates: Updates, update: Update }, (input) => {
    const before = mergeAll(input.updates)
    const id = idOf(input.update)
    const after = getLimit(RateLimits.merge(before, input.update), id)
    const expected: Record<string, unknown> = { ...getLimit(before, id) }
    for (const [name, value] of Object.entries(input.update)) {
      if (value === null || name === "limitId") continue
      if (name !== "primary" && name !== "secondary") {
        expected[name] = value
        continue
      }
      const old = expected[name] as object | undefined
      expected[name] = Object.fromEntries(
        Object.keys({ ...old, ...value as object }).map((field) => [
          field,
          (value as Record<string, unknown>)[field] ?? (old as Record<string, unknown> | undefined)?.[field] ?? null
        ])
      )
    }
    for (const [name, value] of Object.entries(expected)) assert.deepStrictEqual(after?.[name], value, name)
  })

  it.prop("never clears a value", { full: FullLimit, updates: Updates }, ({ full, updates }) => {
    const sameLimit = updates.map((update) => ({ ...update, limitId: "codex" }))
    assert.isTrue(Schema.is(FullLimit)(mergeAll([full, ...sameLimit]).limits["codex"]))
  })

  it.prop("leaves other limits unchanged", { updates: Updates, update: Update }, ({ update, updates }) => {
    const before = mergeAll(updates)
    const after = RateLimits.merge(before, update)
    for (const id of Object.keys(before.limits)) {
      if (id !== idOf(update)) assert.strictEqual(getLimit(after, id), getLimit(before, id))
    }
    assert.includeMembers([...Object.keys(before.limits), idOf(update)], Object.keys(after.limits))
  })

  it.prop(
    "does not depend on the order of updates of different limits",
    { updates: Updates, one: Update, other: Update },
    ({ one, other, updates }) => {
      if (idOf(one) === idOf(other)) return
      assert.deepStrictEqual(mergeAll([...updates, one, other]), mergeAll([...updates, other, one]))
    }
  )

  it.prop(
    "merges updates one by one as it merges their combination",
    { updates: Updates, one: Update, other: Update },
    ({ one, other, updates }) => {
      const sameLimit = { ...other, limitId: idOf(one) }
      const [combined] = Object.values(mergeAll([one, sameLimit]).limits)
      const before = mergeAll(updates)
      assert.deepStrictEqual(
        mergeAll([one, sameLimit], before),
        combined === undefined ? before : RateLimits.merge(before, combined)
      )
    }
  )

  it("keeps the fields of the account", () => {
    const limits = RateLimits.fromResponse({
      accountId: "a",
      ordinaryUsageAllowed: false,
      rateLimits: { limitId: "codex", planType: "pro" },
      rateLimitsByLimitId: { codex: { limitId: "codex", planType: "pro" }, other: { limitId: "other" } }
    })
    assert.deepStrictEqual(RateLimits.merge(limits, { primary: { usedPercent: 7 } }), {
      accountId: "a",
      ordinaryUsageAllowed: false,
      limits: { codex: { limitId: "codex", planType: "pro", primary: { usedPercent: 7 } }, other: { limitId: "other" } }
    })
    // A server without limits by id.
    assert.deepStrictEqual(RateLimits.fromResponse({ rateLimits: { planType: "pro" } }), {
      limits: { codex: { planType: "pro" } }
    })
  })
})

describe("RateLimits.exceeded", () => {
  const limits: RateLimits.RateLimits = {
    limits: {
      codex: {
        primary: { usedPercent: 100, resetsAt: 500 },
        secondary: { usedPercent: 104, resetsAt: 900 },
        individualLimit: { limit: "10", used: "10", remainingPercent: 0, resetsAt: 700 }
      },
      spark: { primary: { usedPercent: 99, resetsAt: 100 }, secondary: null },
      other: { primary: { usedPercent: 100, resetsAt: 950 }, secondary: { usedPercent: 100 } }
    }
  }

  it("lists the windows without a remainder, with their resets in Unix seconds", () => {
    assert.deepStrictEqual(RateLimits.exceeded(limits), [
      { limitId: "codex", window: "primary", resetsAt: at(500) },
      { limitId: "codex", window: "secondary", resetsAt: at(900) },
      { limitId: "codex", window: "individual", resetsAt: at(700) },
      { limitId: "other", window: "primary", resetsAt: at(950) },
      { limitId: "other", window: "secondary", resetsAt: undefined }
    ])
    assert.strictEqual(DateTime.formatIso(at(1_900_000_000)), "2030-03-17T17:46:40.000Z")
  })

  it("ignores a reset that is not a valid time", () => {
    for (const resetsAt of [NaN, Infinity, 1e300]) {
      const broken = mergeAll([{ primary: { usedPercent: 100, resetsAt } }])
      assert.deepStrictEqual(RateLimits.exceeded(broken).map((window) => window.resetsAt), [undefined])
      assert.isUndefined(RateLimits.nextReset(broken, at(0)))
    }
  })

  it("finds the first limit to reset, which is when the last of its windows does", () => {
    assert.deepStrictEqual(RateLimits.nextReset(limits, at(0)), at(900))
    assert.deepStrictEqual(RateLimits.nextReset(at(899))(limits), at(900))
    assert.deepStrictEqual(RateLimits.nextReset(limits, at(900)), at(950))
    assert.isUndefined(RateLimits.nextReset(limits, at(950)))
    assert.isUndefined(RateLimits.nextReset({ limits: {} }, at(0)))
  })

  it.prop("finds a next reset that is after now and in the list", { updates: Updates, now: Schema.Int }, (input) => {
    const now = at(input.now)
    const limits = mergeAll(input.updates)
    const reset = RateLimits.nextReset(limits, now)
    const resets = RateLimits.exceeded(limits).flatMap(({ resetsAt }) => resetsAt === undefined ? [] : [resetsAt])
    assert.strictEqual(reset === undefined, !resets.some((other) => DateTime.isGreaterThan(other, now)))
    if (reset !== undefined) {
      assert.isTrue(DateTime.isGreaterThan(reset, now))
      assert.deepInclude(resets, reset)
    }
  })
})

/** The requests of the client for the limits. */
const reads = (sent: ReadonlyArray<{ readonly method?: string | undefined }>) =>
  sent.filter(({ method }) => method === "account/rateLimits/read").length

/** Runs `codex.rateLimits`, and returns what takes its next element. */
const follow = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const limits = yield* Queue.unbounded<RateLimits.RateLimits>()
  yield* codex.rateLimits.pipe(
    Stream.runForEach((next) => Queue.offer(limits, next)),
    Effect.forkScoped({ startImmediately: true })
  )
  return Queue.take(limits)
})

/** The used percentages of the windows of a limit. */
const used = ({ limits }: RateLimits.RateLimits, id = "codex") => [
  limits[id]?.primary?.usedPercent,
  limits[id]?.secondary?.usedPercent
]

/** A response of the model after which an element of the stream would follow if it changed the limits. */
const runTurn = Effect.fnUntraced(function*(limit?: Protocol.RateLimitSnapshot) {
  const model = yield* ModelServer.ModelServer
  const codex = yield* Codex.Codex
  const reply = ModelServer.text("done")
  yield* model.enqueue(limit === undefined ? reply : ModelServer.withRateLimit(reply, limit))
  return yield* Effect.flatMap(codex.startThread(), (thread) => thread.run("go"))
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("codex.rateLimits on the real server", (it) => {
  it.effect("emits the current limits, and then each change merged into them", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* Kit.logIn
      yield* model.setRateLimits(
        {
          primary: { usedPercent: 10, windowDurationMins: 300, resetsAt: 1_900_000_000 },
          secondary: { usedPercent: 20, windowDurationMins: 10_080, resetsAt: 1_900_500_000 },
          credits: { hasCredits: true, unlimited: false, balance: "5" }
        },
        { limitId: "codex_spark", limitName: "Spark", primary: { usedPercent: 88, resetsAt: 1_900_000_001 } }
      )
      const next = yield* follow
      const first = yield* next
      assert.deepInclude(first, { accountId: "account", ordinaryUsageAllowed: true })
      assert.deepInclude(first.limits["codex"], {
        planType: "pro",
        primary: { usedPercent: 10, windowDurationMins: 300, resetsAt: 1_900_000_000 },
        credits: { hasCredits: true, unlimited: false, balance: "5" }
      })
      assert.deepStrictEqual(used(first, "codex_spark"), [88, undefined])

      // This update has no values, so it is no change.
      yield* runTurn()
      yield* runTurn({ primary: { usedPercent: 30 } })
      const second = yield* next
      assert.deepStrictEqual(second.limits, {
        ...first.limits,
        codex: {
          ...first.limits["codex"],
          primary: { usedPercent: 30, windowDurationMins: 300, resetsAt: 1_900_000_000 }
        }
      })

      yield* runTurn({ limitId: "codex_spark", primary: { usedPercent: 100, resetsAt: 1_900_000_002 } })
      const third = yield* next
      assert.deepStrictEqual(third.limits["codex"], second.limits["codex"])
      assert.deepStrictEqual(RateLimits.exceeded(third), [
        { limitId: "codex_spark", window: "primary", resetsAt: at(1_900_000_002) }
      ])
    }).pipe(Effect.scoped, Effect.provide(TestCodex.layerProcess())))

  it.effect("fails with LoginRequired without a ChatGPT login", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const missing = yield* TestCodex.expectReason(Stream.runDrain(codex.rateLimits))
      assert.deepInclude(missing, { _tag: "LoginRequired", method: "account/rateLimits/read", login: "none" })
      assert.include(missing.message, "codex login")
      yield* server.request("account/login/start", { type: "apiKey", apiKey: "sk-of-this-test" })
      const other = yield* TestCodex.expectReason(Stream.runDrain(codex.rateLimits))
      assert.deepInclude(other, { _tag: "LoginRequired", login: "other" })
      yield* server.request("account/logout")
    }).pipe(Effect.provide(TestCodex.layerProcess())))

  it.effect("reads again when the login changes, and fails when it ends", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const server = yield* AppServer.AppServer
      yield* model.setRateLimits({ primary: { usedPercent: 10 } })
      yield* Kit.logIn
      const seen = yield* Queue.unbounded<ReadonlyArray<number | undefined>>()
      const ended = yield* codex.rateLimits.pipe(
        Stream.runForEach((limits) => Queue.offer(seen, used(limits))),
        TestCodex.expectReason,
        Effect.forkChild({ startImmediately: true })
      )
      assert.deepStrictEqual(yield* Queue.take(seen), [10, undefined])
      yield* model.setRateLimits({ primary: { usedPercent: 70 } })
      yield* Kit.logIn
      assert.deepStrictEqual(yield* Queue.take(seen), [70, undefined])
      yield* server.request("account/logout")
      assert.deepInclude(yield* Fiber.join(ended), { _tag: "LoginRequired", login: "none" })
    }).pipe(Effect.provide(TestCodex.layerProcess())))

  it.effect("reads again after a restart", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      yield* model.setRateLimits({ primary: { usedPercent: 10 } })
      yield* Kit.logIn
      const reason = yield* codex.rateLimits.pipe(
        Stream.tap(() => TestCodex.killServer),
        Stream.runDrain,
        TestCodex.expectReason
      )
      // The login of this test is lost with the process, which only a second read can find out.
      assert.deepInclude(reason, { _tag: "LoginRequired", login: "none" })
      assert.deepInclude(yield* server.state, { _tag: "Ready" })
    }).pipe(Effect.provide(TestCodex.layerProcess({ restart: TestCodex.quickRestart }))))

  it.effect("emits the limits of the fake server, too", () =>
    Effect.gen(function*() {
      const limits: ReadonlyArray<Protocol.RateLimitSnapshot> = [
        { planType: "pro", primary: { usedPercent: 100, windowDurationMins: 300, resetsAt: 1_900_000_000 } },
        {
          limitId: "codex_spark",
          limitName: "Spark",
          planType: "pro",
          secondary: { usedPercent: 5, windowDurationMins: 60, resetsAt: 1 }
        }
      ]
      const read = Effect.flatMap(Codex.Codex, ({ rateLimits }) => Stream.runHead(rateLimits))
      const model = yield* ModelServer.ModelServer
      yield* model.setRateLimits(...limits)
      const real = yield* Effect.provide(Effect.andThen(Kit.logIn, read), TestCodex.layerProcess())
      const fake = yield* Effect.gen(function*() {
        const fake = yield* FakeAppServer.FakeAppServer
        yield* Effect.forEach(limits, fake.rateLimits)
        return yield* read
      }).pipe(Effect.provide(layerCodex(FakeAppServer.layer())))
      assert.deepStrictEqual(
        Option.map(fake, (limits) => ({ ...limits, accountId: "account" })),
        real
      )
    }))

  it.effect("retries a turn when the exceeded limit resets", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      yield* Kit.logIn
      const resetsAt = Math.ceil((yield* Clock.currentTimeMillis) / 1000) + 2
      const limit = { primary: { usedPercent: 100, windowDurationMins: 300, resetsAt } }
      yield* model.reset
      yield* model.setRateLimits(limit)
      yield* model.enqueue(
        ModelServer.withRateLimit(
          ModelServer.httpError(429, { error: { type: "usage_limit_reached", message: "no", resets_at: resetsAt } }),
          limit
        ),
        ModelServer.text("done")
      )
      const thread = yield* codex.startThread()
      const { finalResponse } = yield* thread.run("go").pipe(Effect.retry(RateLimits.afterReset(codex)))
      assert.strictEqual(finalResponse, "done")
      const now = yield* Clock.currentTimeMillis
      assert.isAtLeast(now, resetsAt * 1000)
      // The fallback is a minute.
      assert.isBelow(now, resetsAt * 1000 + 10_000)
      // The failed turn stays in the history.
      const requests = yield* model.requests
      assert.deepStrictEqual(
        requests.map(({ userTexts }) => userTexts.filter((text) => text === "go").length),
        [1, 2]
      )
    }).pipe(Effect.provide(TestCodex.layerProcess())))
})

describe("codex.rateLimits", () => {
  const snapshot = (usedPercent: number, more: Protocol.RateLimitSnapshot = {}): Protocol.RateLimitSnapshot => ({
    limitId: "codex",
    primary: { usedPercent },
    ...more
  })

  const updated = (rateLimits: Protocol.RateLimitSnapshot) => ({
    method: "account/rateLimits/updated",
    params: { rateLimits },
    emittedAtMs: 1
  })

  const loggedIn = { method: "account/updated", params: { authMode: "chatgpt", planType: "pro" }, emittedAtMs: 1 }

  const response = (usedPercent: number) => ({ rateLimits: snapshot(usedPercent) })

  it.effect("loses no update that arrives before the response", () =>
    Effect.gen(function*() {
      const next = yield* follow
      const request = yield* receive("account/rateLimits/read")
      yield* emit(
        updated({ limitId: "other", secondary: { usedPercent: 7 } }),
        { id: request.id, result: response(1) },
        updated({ limitId: "codex", secondary: { usedPercent: 2 } })
      )
      const first = yield* next
      assert.deepStrictEqual([used(first), used(first, "other")], [[1, 2], [undefined, 7]])
      yield* emit(updated(snapshot(3)))
      assert.deepStrictEqual(used(yield* next), [3, 2])
    }).pipe(Effect.scoped, Effect.provide(layerScenario())))

  it.effect("does not mix the limits of two logins", () =>
    Effect.gen(function*() {
      const next = yield* follow
      const request = yield* receive("account/rateLimits/read")
      yield* emit({ id: request.id, result: response(1) }, loggedIn, updated(snapshot(50)))
      const second = yield* receive("account/rateLimits/read")
      // The update belongs to the new login, too.
      yield* respond(second, { rateLimits: { limitId: "codex", secondary: { usedPercent: 2 } } })
      assert.deepStrictEqual(used(yield* next), [50, 2])
    }).pipe(Effect.scoped, Effect.provide(layerScenario())))

  it.effect("ignores the failure of a read whose login has changed", () =>
    Effect.gen(function*() {
      const next = yield* follow
      const request = yield* receive("account/rateLimits/read")
      yield* emit(loggedIn)
      yield* reject(request)
      yield* respond("account/rateLimits/read", response(4))
      assert.deepStrictEqual(used(yield* next), [4, undefined])
    }).pipe(Effect.scoped, Effect.provide(layerScenario())))

  it.effect("reads again on the next connection, and emits only changes", () =>
    Effect.gen(function*() {
      const next = yield* follow
      yield* respond("account/rateLimits/read", response(1))
      assert.deepStrictEqual(used(yield* next), [1, undefined])
      yield* Effect.forkScoped(restart)
      yield* TestClock.adjust("1 second")
      yield* respond("account/rateLimits/read", response(1))
      yield* settle
      yield* emit(updated(snapshot(1)), updated(snapshot(9)))
      assert.deepStrictEqual(used(yield* next), [9, undefined])
    }).pipe(Effect.scoped, Effect.provide(layerScenario({ restart: true }))))

  it.effect("fails when the connection ends", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const ended = yield* Effect.forkChild(TestCodex.expectReason(Stream.runDrain(codex.rateLimits)), {
        startImmediately: true
      })
      yield* respond("account/rateLimits/read", response(1))
      yield* settle
      yield* end(killed)
      assert.deepInclude(yield* Fiber.join(ended), { _tag: "ConnectionClosed", signal: "SIGKILL" })
      assert.strictEqual((yield* TestCodex.expectReason(Stream.runDrain(codex.rateLimits)))._tag, "ConnectionClosed")
    }).pipe(Effect.provide(layerScenario())))

  it.effect("skips to the newest limits for a slow subscriber", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const gate = yield* Deferred.make<void>()
      const seen: Array<number | undefined> = []
      const done = yield* codex.rateLimits.pipe(
        Stream.tap((limits) => Effect.andThen(Effect.sync(() => seen.push(used(limits)[0])), Deferred.await(gate))),
        Stream.takeUntil((limits) => used(limits)[0] === 9),
        Stream.runDrain,
        Effect.forkChild({ startImmediately: true })
      )
      yield* respond("account/rateLimits/read", response(1))
      yield* settle
      for (let percent = 2; percent <= 9; percent++) yield* Effect.andThen(emit(updated(snapshot(percent))), settle)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(done)
      assert.deepStrictEqual(seen, [1, 9])
    }).pipe(Effect.provide(layerScenario())))

  it.effect("reads once for each run, and nothing without one", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fake = yield* FakeAppServer.FakeAppServer
      yield* fake.rateLimits(snapshot(1))
      assert.strictEqual(reads(yield* fake.sent), 0)
      yield* Stream.runHead(codex.rateLimits)
      yield* Stream.runHead(codex.rateLimits)
      assert.strictEqual(reads(yield* fake.sent), 2)
    }).pipe(Effect.provide(layerCodex(FakeAppServer.layer()))))
})

describe("RateLimits.afterReset", () => {
  /** Runs a turn whose script fails until `succeedsAt`, and returns the times at which its attempts started, in seconds. */
  const attempts = Effect.fnUntraced(function*(options: {
    readonly actions: FakeAppServer.Script
    readonly bounds?: RateLimits.AfterResetOptions
    readonly succeedsAt?: number
    readonly until: Duration.Input
    readonly step?: Duration.Input
  }) {
    const codex = yield* Codex.Codex
    const fake = yield* FakeAppServer.FakeAppServer
    const started: Array<number> = []
    const { actions, bounds, step = "10 seconds", succeedsAt = Infinity, until } = options
    yield* fake.onTurn((turn) =>
      Stream.unwrap(Effect.map(Clock.currentTimeMillis, (millis) => {
        started.push(millis / 1000)
        const script = millis / 1000 >= succeedsAt ? FakeAppServer.text("done") : actions(turn)
        return Effect.isEffect(script) ? Stream.make(Effect.asVoid(script)) : script
      }))
    )
    const thread = yield* codex.startThread()
    const running = yield* thread.run("go").pipe(
      Effect.retry(RateLimits.afterReset(codex, bounds)),
      Effect.map(({ finalResponse }) => finalResponse),
      Effect.exit,
      Effect.forkChild({ startImmediately: true })
    )
    // The first attempt fails before the clock advances.
    for (let round = 0; round < 5; round++) yield* settle
    const deadline = (yield* Clock.currentTimeMillis) + Duration.toMillis(until)
    while (running.pollUnsafe() === undefined && (yield* Clock.currentTimeMillis) < deadline) {
      yield* TestClock.adjust(step)
    }
    return { started, exit: yield* Fiber.join(running) }
  })

  const fails = (info: Protocol.CodexErrorInfo) => FakeAppServer.fail("no", info)

  const reports = (...limits: ReadonlyArray<Protocol.RateLimitSnapshot>): FakeAppServer.Script => () =>
    Effect.andThen(Effect.forEach(limits, FakeAppServer.rateLimits), fails("usageLimitExceeded"))

  const provideFake = Effect.provide(layerCodex(FakeAppServer.layer()))

  const done = Exit.succeed("done")

  const assertFailed = (exit: Exit.Exit<unknown, unknown>) => {
    const error = Exit.findErrorOption(exit)
    assert(Option.isSome(error))
    assert.instanceOf(error.value, Turn.TurnFailed)
  }

  it.effect("waits until the exceeded window resets, and not for other windows", () =>
    Effect.gen(function*() {
      const { exit, started } = yield* attempts({
        actions: reports(
          { primary: { usedPercent: 100, resetsAt: 3600 }, secondary: { usedPercent: 99, resetsAt: 90_000 } },
          { limitId: "spark", primary: { usedPercent: 12, resetsAt: 100 } }
        ),
        succeedsAt: 3600,
        until: "2 hours"
      })
      assert.deepStrictEqual([started, exit], [[0, 3600], done])
    }).pipe(provideFake))

  it.effect("reads the limits after each failure", () =>
    Effect.gen(function*() {
      const resets = [1000, 2000, 4000]
      const { exit, started } = yield* attempts({
        actions: () =>
          Effect.suspend(() =>
            Effect.andThen(
              FakeAppServer.rateLimits({ primary: { usedPercent: 100, resetsAt: resets.shift()! } }),
              fails("rateLimitExceeded")
            )
          ),
        succeedsAt: 4000,
        until: "2 hours"
      })
      assert.deepStrictEqual([started, exit], [[0, 1000, 2000, 4000], done])
    }).pipe(provideFake))

  it.effect("fails at once if the limit resets after the maximum wait", () =>
    Effect.gen(function*() {
      const actions = reports({ secondary: { usedPercent: 100, resetsAt: 6 * 3600 + 600 } })
      const short = yield* attempts({ actions, until: "1 minute" })
      assert.deepStrictEqual(short.started, [0])
      assertFailed(short.exit)
      const now = (yield* Clock.currentTimeMillis) / 1000
      const long = yield* attempts({
        actions,
        bounds: { maxWait: "1 day" },
        until: "1 day",
        succeedsAt: 6 * 3600 + 600,
        step: "10 minutes"
      })
      assert.deepStrictEqual([long.started, long.exit], [[now, 6 * 3600 + 600], done])
    }).pipe(provideFake))

  it.effect("waits for 1, 2, 4, 8 and 16 minutes if no reset is known, and then fails", () =>
    Effect.gen(function*() {
      const { exit, started } = yield* attempts({
        actions: reports({ primary: { usedPercent: 100 }, secondary: { usedPercent: 3, resetsAt: 500 } }),
        until: "1 hour"
      })
      assert.deepStrictEqual(started, [0, 60, 180, 420, 900, 1860])
      assertFailed(exit)
    }).pipe(provideFake))

  it.effect("waits in the same way without a login, and when the reset has passed", () =>
    Effect.gen(function*() {
      const withoutLogin = yield* attempts({
        actions: () => fails("usageLimitExceeded"),
        succeedsAt: 60,
        until: "1 hour"
      })
      assert.deepStrictEqual([withoutLogin.started, withoutLogin.exit], [[0, 60], done])
      const passed = yield* attempts({
        actions: reports({ primary: { usedPercent: 100, resetsAt: 60 } }),
        bounds: { maxWait: "90 seconds", times: 2 },
        until: "1 hour"
      })
      assert.deepStrictEqual(passed.started, [60, 120, 210])
      assertFailed(passed.exit)
    }).pipe(provideFake))

  it.effect("retries only failures of limits", () =>
    Effect.gen(function*() {
      const retried = new Map<string, boolean>()
      const infos: ReadonlyArray<Protocol.CodexErrorInfo> = [
        "usageLimitExceeded",
        "rateLimitExceeded",
        { responseTooManyFailedAttempts: { httpStatusCode: 429 } },
        { responseTooManyFailedAttempts: { httpStatusCode: 503 } },
        { httpConnectionFailed: { httpStatusCode: 429 } },
        "serverOverloaded",
        "contextWindowExceeded",
        "sessionBudgetExceeded",
        "other"
      ]
      for (const info of infos) {
        const { started } = yield* attempts({ actions: () => fails(info), bounds: { times: 1 }, until: "2 minutes" })
        retried.set(JSON.stringify(info), started.length === 2)
      }
      assert.deepStrictEqual([...retried.values()], [true, true, true, false, false, false, false, false, false])
      const codex = yield* Codex.Codex
      let runs = 0
      const unrelated = Effect.suspend(() => {
        runs++
        return Effect.fail(new Error("usageLimitExceeded"))
      })
      yield* Effect.flip(Effect.retry(unrelated, RateLimits.afterReset(codex)))
      assert.strictEqual(runs, 1)
    }).pipe(provideFake))

  it.effect("composes with other schedules, and has the wait as its output", () =>
    Effect.gen(function*() {
      const failed = { _tag: "TurnFailed", codexErrorInfo: "usageLimitExceeded" }
      const limits = mergeAll([{ primary: { usedPercent: 100, resetsAt: 30 } }])
      const schedule = RateLimits.afterReset({ rateLimits: Stream.make(limits) })
      const waits: Array<Duration.Duration> = []
      const retrying = yield* Effect.fail(failed).pipe(
        Effect.retry(schedule.pipe(
          Schedule.upTo({ times: 1 }),
          Schedule.tap(({ output }) => Effect.sync(() => waits.push(output)))
        )),
        Effect.flip,
        Effect.forkChild
      )
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(yield* Fiber.join(retrying), failed)
      assert.deepStrictEqual(waits.map(Duration.toSeconds), [30])
    }))

  it.effect("logs each wait with the time of the next attempt", () =>
    Effect.suspend(() => {
      const { containing, logger } = collectWarnings()
      return Effect.gen(function*() {
        yield* attempts({
          actions: reports({ primary: { usedPercent: 100, resetsAt: 3600 } }),
          succeedsAt: 3600,
          until: "2 hours"
        })
        assert.lengthOf(containing("1970-01-01T01:00:00.000Z"), 1)
      }).pipe(provideFake, Effect.provide(logger))
    }))

  it("rejects unknown options", () => {
    const codex = { rateLimits: Stream.empty }
    for (const options of [{ maxwait: "1 hour" }, { maxWait: "soon" }, { times: -1 }]) {
      assert.throws(() => RateLimits.afterReset(codex, options as never), /RateLimits\.afterReset: /)
    }
  })
})
