import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as AppServer from "effect-codex/AppServer"
import type { AppServerError } from "effect-codex/AppServerError"
import * as Protocol from "effect-codex/Protocol"
import type * as Thread from "effect-codex/Thread"
import * as Arbitrary from "effect/Arbitrary"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import { encodeParams } from "../src/internal/connection/codec.ts"
import * as CodexEnvironment from "../src/testing/CodexEnvironment.ts"
import * as TestCodex from "./TestCodex.ts"

/** The literal members of an open enum. */
type KnownEffort<E> = E extends string ? string extends E ? never : E : never

type AnyCodec = Schema.Codec<unknown>

const clientRequests: Record<string, { readonly params: AnyCodec | undefined; readonly result: AnyCodec }> =
  Protocol.clientRequests
const serverRequests: Record<string, { readonly params: AnyCodec | undefined; readonly result: AnyCodec }> =
  Protocol.serverRequests
const serverNotifications: Record<string, { readonly params: AnyCodec }> = Protocol.serverNotifications

/** The schemas of all messages of the server, which contain the other received definitions. */
const received: ReadonlyArray<readonly [name: string, schema: AnyCodec]> = [
  ...Object.entries(clientRequests).map(([method, spec]) => [method, spec.result] as const),
  ...Object.entries(serverRequests).map(([method, spec]) => [method, spec.params!] as const),
  ...Object.entries(serverNotifications).map(([method, spec]) => [method, spec.params] as const)
]

/** Samples of each schema, which the property tests share. */
const sampled = new Map<AnyCodec, ReadonlyArray<unknown>>()
const samples = Effect.fnUntraced(function*(schema: AnyCodec) {
  const values = sampled.get(schema) ??
    (yield* Arbitrary.sampleEffect(Arbitrary.schema(schema), { count: 8, seed: "protocol", size: 12 }))
  sampled.set(schema, values)
  return values
})

const decode = <A>(schema: Schema.Codec<A>, input: unknown) => Schema.decodeUnknownEffect(schema)(input)

// -----------------------------------------------------------------------------
// Changes of a newer or a broken server
// -----------------------------------------------------------------------------

type Json = Readonly<Record<string, unknown>>

interface Changes {
  readonly string: (value: string) => string
  readonly object: (value: Json) => Json
  readonly variant: (value: Json, tag: string) => Json
  readonly keyed: (value: Json) => Json
}

const isJson = (u: unknown): u is Json => typeof u === "object" && u !== null && !Array.isArray(u)

const resolve = (ast: SchemaAST.AST): SchemaAST.AST => SchemaAST.isSuspend(ast) ? resolve(ast.thunk()) : ast

const accepts = (ast: SchemaAST.AST, value: unknown): boolean => Schema.is(Schema.make<AnyCodec>(ast))(value)

/** Changes a value from the leaves up. Only its schema distinguishes an open object from a map. */
const change = (schema: SchemaAST.AST, value: unknown, changes: Changes): unknown => {
  const ast = resolve(schema)
  const fields = (objects: SchemaAST.Objects, value: Json): Json => {
    const out: Record<string, unknown> = { ...value }
    for (const { name, type } of objects.propertySignatures) {
      if (typeof name === "string" && Object.hasOwn(value, name)) out[name] = change(type, value[name], changes)
    }
    return out
  }
  if (SchemaAST.isUnion(ast)) {
    const member = ast.types.find((type) => accepts(type, value))
    return member === undefined ? value : change(member, value, changes)
  }
  if (SchemaAST.isArrays(ast) && Array.isArray(value)) return value.map((item) => change(ast.rest[0]!, item, changes))
  if (SchemaAST.isObjects(ast) && ast.indexSignatures.length > 0 && isJson(value)) {
    const { type } = ast.indexSignatures[0]!
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, change(type, item, changes)]))
  }
  if (!SchemaAST.isDeclaration(ast)) return value
  const known = resolve(ast.typeParameters[0]!)
  if (typeof value === "string") return changes.string(value)
  if (!isJson(value)) return value
  if (SchemaAST.isObjects(known)) return changes.object(fields(known, value))
  if (!SchemaAST.isUnion(known)) return value
  const variant = known.types.find((type) => accepts(type, value))
  // The variant `malformed` is never on the wire.
  if (variant === undefined) return Object.fromEntries(Object.entries(value).filter(([key]) => key !== "raw"))
  if (!SchemaAST.isObjects(variant)) return value
  const [first] = variant.propertySignatures
  const changed = changes.object(fields(variant, value))
  return first !== undefined && SchemaAST.isLiteral(first.type)
    ? changes.variant(changed, String(first.name))
    : changes.keyed(changed)
}

const id = <A>(value: A): A => value
const future = "fromTheFuture"
const moreFields: Changes = {
  string: id,
  object: (value) => ({ [future]: { [future]: [null] }, ...value }),
  variant: id,
  keyed: id
}
const otherMembers: Changes = { ...moreFields, string: () => future }
const otherVariants: Changes = {
  ...otherMembers,
  variant: (value, tag) => ({ ...value, [tag]: future }),
  keyed: (value) => ({ [future]: value })
}
const brokenVariants: Changes = {
  ...moreFields,
  variant: (value, tag) =>
    Object.fromEntries(Object.entries(value).map(([key, field]) => [key, key === tag ? field : [[future]]])),
  keyed: (value) => Object.fromEntries(Object.entries(value).map(([key]) => [key, [[future]]]))
}

// -----------------------------------------------------------------------------

describe("Generated protocol", () => {
  it.live("equals the output of the generator for the binary in package.json", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
      const root = path.join(import.meta.dirname, "..")
      const checkedIn = path.join(root, "src", "internal", "protocol", "generated")
      const fresh = yield* fs.makeTempDirectoryScoped()
      const script = path.join(root, "scripts", "generate.ts")
      yield* spawner.string(ChildProcess.make(process.execPath, [script, "--out", fresh]))
      const names = yield* fs.readDirectory(fresh)
      assert.sameMembers(yield* fs.readDirectory(checkedIn), names)
      for (const name of names) {
        const [before, after] = yield* Effect.all([
          fs.readFileString(path.join(checkedIn, name)),
          fs.readFileString(path.join(fresh, name))
        ])
        assert.isTrue(before === after, `${name} is stale: npm run generate`)
      }
    }).pipe(Effect.provide(NodeServices.layer)))

  it("contains all methods", () => {
    assert.lengthOf(Object.keys(Protocol.clientRequests), 184)
    assert.lengthOf(Object.values(Protocol.clientRequests).filter((spec) => spec.experimental), 75)
    assert.lengthOf(Object.keys(Protocol.serverRequests), 11)
    assert.lengthOf(Object.keys(Protocol.serverNotifications), 86)
    const scopes = Object.values(Protocol.serverNotifications).map((spec) => spec.scope)
    assert.lengthOf(scopes.filter((scope) => scope === "turn"), 31)
    assert.lengthOf(scopes.filter((scope) => scope === "thread"), 34)
  })

  it("provides default params for a request without params", () => {
    const { clientRequests } = Protocol
    assert.deepStrictEqual(clientRequests["model/list"].defaultParams, {})
    assert.isUndefined(clientRequests["thread/resume"].defaultParams)
    assert.isUndefined(clientRequests["account/logout"].params)
    assert.isUndefined(clientRequests["account/logout"].defaultParams)
  })

  it.each(Object.entries(clientRequests))(
    "accepts a %s request without params exactly if none are required",
    (method, spec) => {
      const { defaultParams } = Protocol.clientRequests[method as keyof Protocol.ClientRequests]
      if (spec.params === undefined) return assert.isUndefined(defaultParams)
      assert.strictEqual(defaultParams !== undefined, Schema.is(spec.params)({}))
      assert.strictEqual(Result.isSuccess(encodeParams(method, undefined)), defaultParams !== undefined)
    }
  )

  it.live("calls methods with nullable params without params, and the server accepts them", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const { required } = yield* server.request("account/gatewayOAuth/read")
      assert.isFalse(required)
      const requests: ReadonlyArray<Effect.Effect<unknown, AppServerError>> = [
        server.request("account/gatewayOAuth/login"),
        server.request("account/rateLimits/read"),
        server.request("account/usage/read"),
        server.request("remoteControl/enable"),
        server.request("remoteControl/disable")
      ]
      for (const request of requests) {
        // The server decodes the request, and rejects it because this home has no login.
        const reason = yield* TestCodex.expectReason(request)
        const rejected = reason._tag === "LoginRequired" ? reason.cause : reason
        assert(rejected._tag === "RequestRejected")
        assert.notInclude(rejected.detail, "missing field")
      }
    }).pipe(Effect.provide(TestCodex.layer())))

  it("provides the paths of the thread id and the turn id in a notification", () => {
    const { serverNotifications } = Protocol
    assert.deepInclude(serverNotifications["turn/completed"], { threadId: "threadId", turnId: "turn.id" })
    assert.deepInclude(serverNotifications["thread/started"], { threadId: "thread.id", turnId: undefined })
    assert.deepInclude(serverNotifications["skills/changed"], { threadId: undefined, turnId: undefined })
  })
})

const passThrough = (changes: Changes) =>
  Effect.gen(function*() {
    let changed = 0
    for (const [name, schema] of received) {
      for (const value of yield* samples(schema)) {
        const newer = change(SchemaAST.toType(schema.ast), value, changes)
        if (JSON.stringify(newer) !== JSON.stringify(value)) changed++
        assert.isTrue(Schema.is(schema)(newer), name)
        assert.deepStrictEqual(yield* decode(schema, newer), newer, name)
      }
    }
    assert.isAbove(changed, 1000)
  })

describe("Received values", () => {
  it.effect("decode to themselves when they pass the check", () =>
    Effect.gen(function*() {
      for (const [name, schema] of received) {
        for (const value of yield* samples(schema)) {
          assert.isTrue(Schema.is(schema)(value), name)
          assert.deepStrictEqual(yield* decode(schema, value), value, name)
        }
      }
    }))

  it.effect("keep unknown fields at each place", () => passThrough(moreFields))

  it.effect("keep unknown enum members at each place", () => passThrough(otherMembers))

  it.effect("keep unknown variants at each place", () => passThrough(otherVariants))

  it.effect("decode a known variant of the wrong shape, and encode it to its original", () =>
    Effect.gen(function*() {
      let malformed = 0
      for (const [name, schema] of received) {
        for (const value of yield* samples(schema)) {
          const broken = change(SchemaAST.toType(schema.ast), value, brokenVariants)
          const decoded = yield* decode(schema, broken)
          assert.isTrue(Schema.is(schema)(decoded), name)
          if (!Schema.is(schema)(broken)) malformed++
          assert.deepStrictEqual(yield* Schema.encodeUnknownEffect(schema)(decoded), broken, name)
        }
      }
      assert.isAbove(malformed, 100)
    }))

  it.effect("contain malformed variants as such, and keep the values around them", () =>
    Effect.gen(function*() {
      const good = { type: "plan", id: "2", text: "t", [future]: 1 }
      const unknown = { type: future, id: "3" }
      const bad = { type: "agentMessage", id: 1 }
      const error = { message: "m", codexErrorInfo: { httpConnectionFailed: { httpStatusCode: "?" } }, [future]: 2 }
      const params = {
        threadId: "a",
        turn: { id: "b", items: [good, unknown, bad], itemsView: "full", status: future, error, [future]: 3 },
        [future]: 4
      }
      const decoded = yield* decode(Protocol.TurnCompletedNotification, params)
      assert.deepStrictEqual<unknown>(decoded, {
        ...params,
        turn: {
          ...params.turn,
          items: [good, unknown, { type: "malformed", raw: bad }],
          error: { ...error, codexErrorInfo: { malformed: true, raw: error.codexErrorInfo } }
        }
      })
      const { TurnCompletedNotification } = Protocol
      assert.deepStrictEqual<unknown>(yield* Schema.encodeEffect(TurnCompletedNotification)(decoded), params)
      const strict = { onExcessProperty: "error" } as const
      const again = yield* Schema.decodeUnknownEffect(TurnCompletedNotification, strict)(params)
      assert.deepStrictEqual(again, decoded)
      assert.deepStrictEqual<unknown>(yield* Schema.encodeEffect(TurnCompletedNotification, strict)(again), params)
    }))

  it.effect("fail to decode when a value other than a variant has the wrong shape", () =>
    Effect.gen(function*() {
      const wrong: ReadonlyArray<readonly [AnyCodec, unknown]> = [
        [Protocol.ThreadItem, { id: "no tag" }],
        [Protocol.ThreadItem, { type: 1 }],
        [Protocol.ThreadItem, []],
        [Protocol.TurnStatus, 1],
        [Protocol.CodexErrorInfo, 1],
        [Protocol.CodexErrorInfo, null],
        [Protocol.AgentMessageDeltaNotification, { threadId: "a", turnId: "b", itemId: "c" }],
        [Protocol.AgentMessageDeltaNotification, { threadId: "a", turnId: "b", itemId: "c", delta: 1 }],
        [Protocol.ThreadArchiveResponse, null]
      ]
      for (const [schema, input] of wrong) {
        assert.isFalse(Schema.is(schema)(input))
        assert.strictEqual((yield* Effect.flip(decode(schema, input)))._tag, "SchemaError")
      }
    }))

  it.effect("decode without the fields without which they are still useful", () =>
    Effect.gen(function*() {
      const turn = { id: "u", status: "completed", items: [] }
      const ids = { threadId: "t", turnId: "u", itemId: "i" }
      const legacy = { conversationId: "t", callId: "c" }
      const message = { type: "agentMessage", id: "i", text: "hello" }
      const sparse: ReadonlyArray<readonly [AnyCodec, object]> = [
        [Protocol.Thread, { id: "t" }],
        [Protocol.Model, { id: "m", model: "m" }],
        [Protocol.Turn, turn],
        [Protocol.ItemStartedNotification, { threadId: "t", turnId: "u", item: message }],
        [Protocol.ItemCompletedNotification, { threadId: "t", turnId: "u", item: message }],
        [Protocol.TurnCompletedNotification, { threadId: "t", turn }],
        [Protocol.ThreadStartedNotification, { thread: { id: "t" } }],
        [Protocol.CommandExecutionRequestApprovalParams, ids],
        [Protocol.FileChangeRequestApprovalParams, ids],
        [Protocol.PermissionsRequestApprovalParams, { ...ids, cwd: "/repo", permissions: {} }],
        [Protocol.ExecCommandApprovalParams, { ...legacy, command: ["ls"], cwd: "/repo" }],
        [Protocol.ApplyPatchApprovalParams, { ...legacy, fileChanges: {} }],
        [Protocol.ToolRequestUserInputParams, {
          ...ids,
          questions: [{ id: "q", question: "?", options: [{ label: "yes" }] }]
        }]
      ]
      for (const [schema, input] of sparse) {
        assert.isTrue(Schema.is(schema)(input), JSON.stringify(input))
        assert.deepStrictEqual(yield* decode(schema, input), input)
        // Each remaining field is required.
        for (const missing of Object.keys(input)) {
          const less = Object.fromEntries(Object.entries(input).filter(([key]) => key !== missing))
          assert.isFalse(Schema.is(schema)(less), `${JSON.stringify(input)} without ${missing}`)
        }
      }
    }))

  it.effect("fail to decode when a response lacks a field", () =>
    Effect.gen(function*() {
      const incomplete: ReadonlyArray<readonly [AnyCodec, unknown]> = [
        [Protocol.ThreadGoalClearResponse, {}],
        [Protocol.ThreadListResponse, {}],
        [Protocol.FsGetMetadataResponse, { isFile: true, isDirectory: false }]
      ]
      for (const [schema, input] of incomplete) {
        assert.strictEqual((yield* Effect.flip(decode(schema, input)))._tag, "SchemaError")
      }
    }))

  it.effect("decode integers beyond the precision of a double", () =>
    Effect.gen(function*() {
      const usage = {
        totalTokens: 2 ** 60,
        inputTokens: 0,
        cachedInputTokens: 0,
        cacheWriteInputTokens: 0,
        outputTokens: 0,
        reasoningOutputTokens: 0
      }
      const params = { threadId: "a", turnId: "b", tokenUsage: { total: usage, last: usage, modelContextWindow: null } }
      assert.deepStrictEqual(yield* decode(Protocol.ThreadTokenUsageUpdatedNotification, params), params)
    }))

  it.effect("decode known and unknown notifications", () =>
    Effect.gen(function*() {
      const notifications: ReadonlyArray<unknown> = [
        {
          method: "item/agentMessage/delta",
          params: { threadId: "a", turnId: "b", itemId: "msg_1", delta: "a b c\u0000d\re\nf😀é\ufeff\"\\" },
          emittedAtMs: 1795343093791
        },
        {
          method: "error",
          params: {
            error: { message: "m", codexErrorInfo: "usageLimitExceeded", additionalDetails: null, misalignment: null },
            willRetry: false,
            threadId: "a",
            turnId: "b"
          },
          emittedAtMs: 1795342380680
        },
        {
          method: "item/completed",
          params: {
            item: {
              type: "commandExecution",
              id: "call_1",
              pluginId: null,
              scriptPath: null,
              command: "/bin/bash -c 'ls -la'",
              cwd: "/ws",
              processId: "39692",
              source: "unifiedExecStartup",
              status: "completed",
              commandActions: [{ type: "listFiles", command: "ls -la", path: null }],
              aggregatedOutput: "total 8\n",
              exitCode: 0,
              durationMs: 0,
              startedAtMs: 1795342056395,
              completedAtMs: 1795342056452
            },
            threadId: "a",
            turnId: "b",
            contentTokenCount: null,
            completedAtMs: 1795342056452
          },
          emittedAtMs: 1795342056453
        },
        {
          method: "thread/status/changed",
          params: { threadId: "a", status: { type: "active", activeFlags: ["waitingOnUserInput"] } },
          emittedAtMs: 1795342227903
        },
        { method: "thread/teleported", params: [1], emittedAtMs: 1 }
      ]
      for (const notification of notifications) {
        assert.isTrue(Schema.is(Protocol.ServerNotification)(notification))
        assert.deepStrictEqual<unknown>(yield* decode(Protocol.ServerNotification, notification), notification)
      }
    }))

  it.effect("decode a server request", () =>
    Effect.gen(function*() {
      const params = {
        kind: "command",
        threadId: "a",
        turnId: "b",
        itemId: "call_1",
        startedAtMs: 1795342056395,
        environmentId: "local",
        command: "/bin/bash -c 'ls -la'",
        cwd: "/ws",
        commandActions: [{ type: "listFiles", command: "ls -la", path: null }],
        proposedExecpolicyAmendment: ["ls", "-la"],
        availableDecisions: [
          "accept",
          { acceptWithExecpolicyAmendment: { execpolicy_amendment: ["ls", "-la"] } },
          "cancel"
        ]
      }
      const { params: schema } = Protocol.serverRequests["item/commandExecution/requestApproval"]
      assert.deepStrictEqual<unknown>(yield* decode(schema!, params), params)
    }))
})

const strictly = (schema: AnyCodec, value: unknown) =>
  Schema.encodeUnknownEffect(schema, { onExcessProperty: "error" })(value)

const sent: ReadonlyArray<readonly [name: string, schema: AnyCodec]> = [
  ...Object.entries(clientRequests).flatMap(([method, spec]) =>
    spec.params === undefined ? [] : [[method, spec.params] as const]
  ),
  ...Object.entries(serverRequests).map(([method, spec]) => [method, spec.result] as const)
]

/** Converts a value to JSON and back. JSON has no bigint, which an unknown value may contain. */
const overTheWire = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (_, inner) => typeof inner === "bigint" ? String(inner) : inner))

describe("Sent values", () => {
  it.effect("decode to the original value, for each method", () =>
    Effect.gen(function*() {
      let count = 0
      for (const [method, schema] of sent) {
        for (const value of yield* samples(schema)) {
          const wire = overTheWire(yield* strictly(schema, value))
          const read = yield* strictly(schema, yield* decode(schema, wire))
          assert.deepStrictEqual(overTheWire(read), wire, method)
          count++
        }
      }
      assert.isAbove(count, 1_000)
    }))

  it.effect("encode unchanged, without absent optional fields", () =>
    Effect.gen(function*() {
      const params: Protocol.TurnStartParams = {
        threadId: "a",
        input: [{ type: "text", text: "json please", text_elements: [] }],
        model: undefined,
        approvalPolicy: "on-request",
        sandboxPolicy: { type: "workspaceWrite", writableRoots: ["/ws"] }
      }
      assert.deepStrictEqual<unknown>(yield* strictly(Protocol.TurnStartParams, params), params)
    }))

  it.effect("fail to encode with an unknown member, variant or field, or with a fraction for an integer", () =>
    Effect.gen(function*() {
      const wrong: ReadonlyArray<readonly [AnyCodec, unknown]> = [
        [Protocol.AskForApprovalParam, "on-failure"],
        [Protocol.SandboxPolicyParam, { type: future }],
        [Protocol.SandboxPolicyParam, { type: "dangerFullAccess", [future]: 1 }],
        [Protocol.TurnStartParams, { threadId: "a", input: [], [future]: 1 }],
        [Protocol.TurnStartParams, { threadId: "a", input: [{ type: future }] }],
        [Protocol.ThreadListParams, { limit: 1.5 }],
        [Protocol.ThreadListParams, { limit: -1 }],
        [Protocol.CommandExecutionRequestApprovalResponse, { decision: future }]
      ]
      for (const [schema, value] of wrong) {
        assert.strictEqual((yield* Effect.flip(strictly(schema, value)))._tag, "SchemaError")
      }
    }))
})

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
/** Compiles only if the types are equal. */
const equal = <A, B>(proof: Equals<A, B>): boolean => proof

const describeItem = (item: Protocol.ThreadItem): string => {
  switch (item.type) {
    case "agentMessage": {
      equal<typeof item, Extract<Protocol.ThreadItem, { readonly type: "agentMessage" }>>(true)
      return item.text
    }
    case "commandExecution":
      return item.command
    case "malformed":
      equal<typeof item, Protocol.MalformedVariant<"type">>(true)
      return `malformed ${JSON.stringify(item.raw)}`
    case "plan":
    case "reasoning":
      return item.id
    default:
      return item.type
  }
}

const rest = (policy: Protocol.SandboxPolicy): unknown => {
  switch (policy.type) {
    case "dangerFullAccess":
    case "externalSandbox":
    case "malformed":
    case "readOnly":
    case "workspaceWrite":
      return undefined
    default:
      equal<typeof policy, Protocol.UnrecognizedVariant<"type">>(true)
      return policy["anything"]
  }
}

const status = (info: Protocol.CodexErrorInfo): number | string | null | undefined => {
  if (typeof info === "string") return info === "usageLimitExceeded" ? 429 : info
  if ("httpConnectionFailed" in info) return info.httpConnectionFailed.httpStatusCode
  if ("malformed" in info) {
    equal<typeof info, Protocol.MalformedObject>(true)
    return undefined
  }
  return undefined
}

const text = (notification: Protocol.TurnNotification | Protocol.ServerNotification): string | undefined => {
  switch (notification.method) {
    case "item/agentMessage/delta":
      equal<typeof notification.params, Protocol.AgentMessageDeltaNotification>(true)
      return notification.params.delta
    case "turn/completed":
      return notification.params.turn.id
    default:
      return undefined
  }
}

describe("Types", () => {
  it("narrow a tagged union, with its unrecognized and malformed variants, by its tag", () => {
    equal<Extract<Protocol.ThreadItem, { readonly type: "plan" }>["text"], string>(true)
    assert.strictEqual(describeItem({ type: "agentMessage", id: "1", text: "hello" }), "hello")
    assert.strictEqual(describeItem({ type: "malformed", raw: 1 }), "malformed 1")
  })

  it("leave only the unrecognized variant after all known tags", () => {
    assert.isUndefined(rest({ type: "dangerFullAccess" }))
  })

  it("narrow a union of strings and single-key objects", () => {
    assert.strictEqual(status("usageLimitExceeded"), 429)
    assert.strictEqual(status({ httpConnectionFailed: { httpStatusCode: 503 } }), 503)
  })

  it("narrow a notification by its method", () => {
    equal<
      Extract<Protocol.TurnNotification, { readonly method: "turn/started" }>["params"],
      Protocol.TurnStartedNotification
    >(true)
    const params = { threadId: "a", turnId: "b", itemId: "c", delta: "d" }
    assert.strictEqual(text({ method: "item/agentMessage/delta", params }), "d")
  })

  it("allow access to common fields before a union is narrowed", () => {
    const log = (event: Protocol.ServerNotification | Protocol.TurnNotification) => [event.method, event.params]
    assert.deepStrictEqual(log({ method: "malformed", raw: 1 }), ["malformed", undefined])
    assert.deepStrictEqual(log({ method: "turn/new" as Protocol.Unrecognized, params: 1 }), ["turn/new", 1])
    const readId = (item: Protocol.ThreadItem) => [item.type, item.id]
    assert.deepStrictEqual(readId({ type: "malformed", raw: {} }), ["malformed", undefined])
  })

  it("complete the known reasoning efforts, and accept any other", () => {
    equal<KnownEffort<Protocol.ReasoningEffort>, KnownEffort<Protocol.ReasoningEffortParam>>(true)
    const known: Extract<Thread.TurnOptions["effort"], "high"> = "high"
    const other: Thread.TurnOptions = { effort: "ultra-mega" }
    assert.deepStrictEqual([known, other.effort], ["high", "ultra-mega"])
  })

  it.live("contain each reasoning effort that a model of the catalog advertises", () =>
    Effect.gen(function*() {
      const environment = yield* CodexEnvironment.CodexEnvironment
      yield* environment.writeConfig({ model_catalog_json: undefined })
      const models = yield* Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        return (yield* server.request("model/list", { includeHidden: true })).data
      }).pipe(Effect.provide(TestCodex.layerProcess()))
      const advertised = new Set(
        models.flatMap((model) => model.supportedReasoningEfforts.map(({ reasoningEffort }) => reasoningEffort))
      )
      assert.isAbove(advertised.size, 3)
      const known: Record<KnownEffort<Protocol.ReasoningEffort>, true> = {
        none: true,
        minimal: true,
        low: true,
        medium: true,
        high: true,
        xhigh: true,
        max: true,
        ultra: true
      }
      assert.includeMembers(Object.keys(known), [...advertised])
    }).pipe(Effect.provide(TestCodex.layerEnvironment())))

  it("distinguish received values from sent values", () => {
    const received: Protocol.AskForApproval = "some-day"
    // @ts-expect-error: the server rejects it
    const sent: Protocol.AskForApprovalParam = "some-day"
    // @ts-expect-error: the params are required
    const params: Protocol.ClientRequests["thread/resume"]["params"] = undefined
    const noParams: Protocol.ClientRequests["model/list"]["params"] = undefined
    equal<Protocol.ClientRequests["account/logout"]["params"], undefined>(true)
    assert.deepStrictEqual([received, sent, params, noParams], ["some-day", "some-day", undefined, undefined])
  })
})
