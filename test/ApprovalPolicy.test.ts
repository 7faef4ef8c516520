import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { ApprovalPolicy, Approvals, type Protocol } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as TestClock from "effect/testing/TestClock"
import { joinedWords } from "../src/internal/approvals/shellWords.ts"
import {
  decodeCommandApproval,
  decodeLegacyCommandApproval
} from "../src/internal/session/handlers/approvalRequests.ts"
import * as FakeTerminal from "./FakeTerminal.ts"

const base = { threadId: "t", turnId: "u", itemId: "i", reason: undefined, params: {} }

const command = (argv: ReadonlyArray<string> | undefined, more: Partial<Approvals.CommandRequest> = {}) => ({
  ...base,
  _tag: "Command",
  kind: "command",
  approvalId: undefined,
  command: argv?.join(" "),
  script: argv?.join(" "),
  argv,
  cwd: "/project",
  commandActions: [],
  availableDecisions: [],
  proposedExecpolicyAmendment: undefined,
  proposedNetworkPolicyAmendments: [],
  networkApprovalContext: undefined,
  additionalPermissions: undefined,
  ...more
} satisfies Approvals.CommandRequest)

const fileChange = (...paths: ReadonlyArray<string>): Approvals.FileChangeRequest => ({
  ...base,
  _tag: "FileChange",
  changes: paths.map((path) => ({ path, kind: { type: "add" }, diff: "+x" })),
  grantRoot: undefined
})

const permissions = (fileSystem: Approvals.PermissionsRequest["permissions"]["fileSystem"], network?: boolean) => ({
  ...base,
  _tag: "Permissions",
  cwd: "/project",
  permissions: { fileSystem: fileSystem ?? null, network: network === undefined ? null : { enabled: network } }
} satisfies Approvals.PermissionsRequest)

const mcpToolCall: Approvals.McpToolCallRequest = {
  ...base,
  _tag: "McpToolCall",
  server: "s",
  tool: "t",
  message: "",
  description: undefined,
  arguments: {},
  annotations: {}
}

const decide = <R>(policy: Approvals.Policy<R>, request: Approvals.Request) =>
  Effect.map(policy(request), Option.getOrUndefined)

/** Makes a folder `project` and one next to it. Returns their real paths, and a function that makes links in `project`. */
const makeFolders = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const root = yield* fs.realPath(yield* fs.makeTempDirectoryScoped())
  const inside = path.join(root, "project")
  const outside = path.join(root, "project-other")
  yield* fs.makeDirectory(inside)
  yield* fs.makeDirectory(outside)
  return { root, inside, outside, path, link: (to: string, name: string) => fs.symlink(to, path.join(inside, name)) }
})

const always = (decision: "accept" | "decline"): Approvals.Policy => () => Effect.succeedSome(decision)

describe("ApprovalPolicy of commands", () => {
  it.effect("acceptCommands decides about single plain commands only", () =>
    Effect.gen(function*() {
      const policy = ApprovalPolicy.acceptCommands(([program]) => program === "npm")
      assert.strictEqual(yield* decide(policy, command(["npm", "test"])), "accept")
      const others: ReadonlyArray<Approvals.Request> = [
        command(["rm"]),
        command(undefined, { command: "/bin/bash -c 'npm test; rm -rf .'" }),
        command(["npm"], { kind: "writeStdin" }),
        command(["npm"], { kind: "humanCommand" }),
        command(["npm"], { networkApprovalContext: { host: "example.com", protocol: "https" } }),
        command(["npm"], { additionalPermissions: { network: { enabled: true } } }),
        fileChange("/project/a"),
        permissions({ write: ["/project"] }),
        mcpToolCall
      ]
      for (const request of others) assert.isUndefined(yield* decide(policy, request), request._tag)
    }))

  it.effect("readOnlyCommands accepts commands that only read", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* decide(ApprovalPolicy.readOnlyCommands, command(["ls", "-la"])), "accept")
      assert.isUndefined(yield* decide(ApprovalPolicy.readOnlyCommands, command(["rm", "-rf", "/"])))
      assert.isUndefined(yield* decide(ApprovalPolicy.readOnlyCommands, command(["ls"], { kind: "writeStdin" })))
    }))

  it.effect("readOnlyCommands leaves a shell open that runs other files first or is not the system's", () =>
    Effect.gen(function*() {
      const decodeRequest = (line: string) =>
        decodeCommandApproval({
          threadId: "t",
          turnId: "u",
          itemId: "i",
          startedAtMs: 1,
          command: line,
          cwd: "/project"
        }).request
      const decodeLegacyRequest = (words: ReadonlyArray<string>) =>
        decodeLegacyCommandApproval({
          conversationId: "t",
          callId: "c",
          command: words,
          cwd: "/project",
          parsedCmd: []
        }).request
      const accepted = ["ls -la", "/bin/bash -c 'ls -la'", "/usr/bin/sh -c ls", "/bin/bash -c \"grep '^a' b\""]
      const open = [
        "/bin/bash -lc ls",
        "/bin/bash -l -c ls",
        "/bin/bash --login -c ls",
        "/bin/sh -lc ls",
        "/bin/zsh -c ls",
        "/bin/zsh -lc ls",
        "bash -c ls",
        "./bash -c ls",
        "node_modules/.bin/bash -c ls",
        "/project/bin/bash -c ls",
        "/bin/../project/bash -c ls",
        "/bin/bash -c 'bash -c ls'",
        "/bin/bash -c './bash -c ls'",
        "/bin/bash -c './ls'",
        "/bin/bash -c 'env ls'",
        "/bin/bash -c 'cat ~/x'",
        "/bin/bash -c 'echo a=~/x'",
        "env ls",
        "sudo ls",
        "pwsh -c ls",
        "fish -c ls"
      ]
      for (const request of [...accepted.map(decodeRequest), decodeLegacyRequest(["/bin/bash", "-c", "ls 'a b'"])]) {
        assert.strictEqual(yield* decide(ApprovalPolicy.readOnlyCommands, request), "accept", request.command)
      }
      const legacy = open.map((line) => decodeLegacyRequest(joinedWords(line)!))
      for (const request of [...open.map(decodeRequest), ...legacy, command(["ls"], { command: undefined })]) {
        assert.isUndefined(yield* decide(ApprovalPolicy.readOnlyCommands, request), request.command)
      }
    }))

  it.effect("acceptCommands decides about a login shell of the system, and about no other shell", () =>
    Effect.gen(function*() {
      const policy = ApprovalPolicy.acceptCommands(() => true)
      const decision = (line: string) =>
        decide(
          policy,
          decodeCommandApproval({
            threadId: "t",
            turnId: "u",
            itemId: "i",
            startedAtMs: 1,
            command: line,
            cwd: "/project"
          })
            .request
        )
      assert.strictEqual(yield* decision("/bin/zsh -lc 'npm test'"), "accept")
      for (
        const line of ["./bash -lc 'npm test'", "bash -c 'npm test'", "sudo npm test", "/bin/bash -c 'env npm test'"]
      ) {
        assert.isUndefined(yield* decision(line), line)
      }
    }))
})

describe("ApprovalPolicy.acceptFileChanges", () => {
  it.effect("leaves changes to Git and Codex configuration, unknown changes and lasting grants open", () =>
    Effect.gen(function*() {
      const accepts = (request: Approvals.Request) => decide(ApprovalPolicy.acceptFileChanges, request)
      assert.strictEqual(yield* accepts(fileChange("/project/a", "/project/.github/b")), "accept")
      const open: ReadonlyArray<Approvals.Request> = [
        fileChange("/project/.git/hooks/pre-commit"),
        fileChange("/project/a", "/project/sub/.codex/config.toml"),
        fileChange("/project/.agents/x"),
        fileChange("C:\\work\\.GIT\\config"),
        fileChange(),
        { ...fileChange("/project/a"), changes: undefined },
        { ...fileChange("/project/a"), grantRoot: "/project" },
        {
          ...fileChange(),
          changes: [{ path: "/project/a", kind: { type: "update", move_path: "/project/.git/a" }, diff: "" }]
        },
        fileChange("/project/.git::$INDEX_ALLOCATION/config"),
        fileChange("/project/.git. ./config"),
        fileChange("/project/GIT~1/config"),
        fileChange("/project/.g\u200cit/config"),
        fileChange("/project/.agent\u017f/x"),
        fileChange("project/a"),
        fileChange("/proc/self/cwd/a"),
        command(["touch", "a"])
      ]
      for (const [index, request] of open.entries()) assert.isUndefined(yield* accepts(request), `${index}`)
      for (const path of ["/project/.gitignore", "/project/git", "/project/.github/codex", "/project/a~1"]) {
        assert.strictEqual(yield* accepts(fileChange(path)), "accept", path)
      }
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("resolves links before it decides", () =>
    Effect.gen(function*() {
      const { inside, link, outside, path } = yield* makeFolders
      const fs = yield* FileSystem.FileSystem
      for (const name of [".git/hooks", ".codex", ".agents", "src/deep"]) {
        yield* fs.makeDirectory(path.join(inside, name), { recursive: true })
      }
      yield* fs.writeFileString(path.join(inside, ".git/config"), "")
      yield* fs.writeFileString(path.join(inside, "file"), "")
      yield* link(".git/hooks", "hooks")
      yield* link(".codex", "conf")
      yield* link(`${inside}/.agents`, "absolute")
      yield* link("hooks", "chain1")
      yield* link("./chain1/../hooks", "chain2")
      yield* link(".git/config", "config.txt")
      yield* link("../.git/hooks", "src/up")
      yield* link("src/deep", "deep")
      yield* link("src", "plain")
      yield* link("../src/deep", ".git/out")
      yield* link("missing", "dangling")
      yield* link(".git/missing", "danglingProtected")
      yield* link("loop2", "loop1")
      yield* link("loop1", "loop2")
      yield* link("self", "self")
      yield* link(outside, "outside")

      const accepts = (request: Approvals.Request) => decide(ApprovalPolicy.acceptFileChanges, request)
      const open = [
        "hooks/pre-commit",
        "hooks",
        "conf/config.toml",
        "absolute/x",
        "chain1/pre-commit",
        "chain2/pre-commit",
        "chain2/new/er",
        "config.txt",
        "src/up/pre-commit",
        // `..` after a link is the parent of the target.
        "hooks/../config",
        "plain/../.git/config",
        "deep/../../conf/x",
        "hooks/./../hooks/x",
        "dangling",
        "dangling/x",
        "danglingProtected",
        "loop1",
        "loop1/x",
        "self/x",
        "file/x",
        "missing/../x"
      ]
      for (const name of open) assert.isUndefined(yield* accepts(fileChange(`${inside}/${name}`)), name)
      const accepted = [
        "src/x",
        "plain/x",
        "deep/x",
        "deep/../x",
        "new/er",
        ".git/out/x",
        ".git/../x",
        "plain/../x",
        "outside/x"
      ]
      for (const name of accepted) {
        assert.strictEqual(yield* accepts(fileChange(`${inside}/${name}`)), "accept", name)
      }

      const change = (name: string, kind: Protocol.PatchChangeKind): Approvals.FileChangeRequest => ({
        ...fileChange(),
        changes: [{ path: `${inside}/${name}`, kind, diff: "" }]
      })
      const moved = (from: string, to: string) => change(from, { type: "update", move_path: `${inside}/${to}` })
      assert.isUndefined(yield* accepts(moved("src/a", "hooks/pre-commit")))
      assert.isUndefined(yield* accepts(moved("hooks/a", "src/a")))
      assert.isUndefined(yield* accepts(moved("src/a", "dangling")))
      assert.strictEqual(yield* accepts(moved("src/a", "deep/a")), "accept")
      assert.isUndefined(yield* accepts(change("config.txt", { type: "update", move_path: null })))
      assert.isUndefined(yield* accepts(change("hooks/a", { type: "delete" })))
      // To delete or to move a link in a protected folder changes that folder.
      assert.isUndefined(yield* accepts(change(".git/out", { type: "delete" })))
      assert.isUndefined(yield* accepts(moved(".git/out", "src/b")))
      assert.strictEqual(yield* accepts(change("plain/a", { type: "delete" })), "accept")
    }).pipe(Effect.provide(NodeServices.layer)))

  it("requires FileSystem and Path", () => {
    const policy: Approvals.Policy<FileSystem.FileSystem | Path.Path> = ApprovalPolicy.acceptFileChanges
    const layer: Layer.Layer<never, never, FileSystem.FileSystem | Path.Path> = Approvals
      .layer(
        ApprovalPolicy.firstOf(ApprovalPolicy.readOnlyCommands, ApprovalPolicy.acceptFileChanges)
      )
    // @ts-expect-error: no file system
    const without: Approvals.Policy = ApprovalPolicy.acceptFileChanges
    assert.strictEqual(without, policy)
    assert.isTrue(Layer.isLayer(layer))
  })
})

describe("ApprovalPolicy.onlyInside", () => {
  it.effect("passes on requests inside the folder, where links lead inside too", () =>
    Effect.gen(function*() {
      const { inside, link, outside, path, root } = yield* makeFolders
      const fs = yield* FileSystem.FileSystem
      yield* fs.makeDirectory(path.join(inside, "src"))
      yield* link(outside, "link")
      yield* link(path.join(outside, "missing"), "dangling")
      yield* fs.symlink(inside, path.join(root, "alias"))
      const policy = ApprovalPolicy.onlyInside(always("accept"), inside)

      const accepted: ReadonlyArray<Approvals.Request> = [
        fileChange(`${inside}/new.txt`),
        fileChange(`${inside}/deep/er/new.txt`, `${inside}/src/a`),
        fileChange(`${root}/alias/new.txt`),
        fileChange(`${inside}/..project`),
        command(["npm", "test"], { cwd: inside }),
        permissions({ write: [`${inside}/src`] }),
        permissions({ entries: [{ path: { type: "path", path: inside }, access: "write" }] })
      ]
      for (const request of accepted) assert.strictEqual(yield* decide(policy, request), "accept")

      const moved: Approvals.FileChangeRequest = {
        ...fileChange(),
        changes: [{ path: `${inside}/a`, kind: { type: "update", move_path: `${outside}/a` }, diff: "" }]
      }
      const open: ReadonlyArray<Approvals.Request> = [
        fileChange(`${outside}/a`),
        fileChange(`${inside}/a`, `${outside}/a`),
        fileChange(`${inside}/../project-other/a`),
        fileChange(`${inside}/link/a`),
        fileChange(`${inside}/link`),
        fileChange(`${inside}/dangling`),
        fileChange("relative.txt"),
        fileChange(),
        moved,
        { ...fileChange(`${inside}/a`), changes: undefined },
        { ...fileChange(`${inside}/a`), grantRoot: outside },
        command(["npm"], { cwd: outside }),
        command(undefined, { cwd: inside }),
        permissions({ write: [inside], read: [outside] }),
        permissions({ write: [inside] }, true),
        permissions({ entries: [{ path: { type: "glob_pattern", pattern: `${inside}/**` }, access: "write" }] }),
        mcpToolCall
      ]
      for (const [index, request] of open.entries()) {
        assert.isUndefined(yield* decide(policy, request), `${index} ${request._tag}`)
      }
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("resolves links before `..`, and the folder in the same way", () =>
    Effect.gen(function*() {
      const { inside, link, outside, path, root } = yield* makeFolders
      const fs = yield* FileSystem.FileSystem
      yield* fs.makeDirectory(path.join(inside, ".git/hooks"), { recursive: true })
      yield* fs.makeDirectory(path.join(inside, "src/deep"), { recursive: true })
      yield* fs.makeDirectory(path.join(outside, "deep"))
      yield* link(".git/hooks", "hooks")
      yield* link(`${outside}/deep`, "out")
      yield* link("src/deep", "deep")
      yield* link("out/../sibling", "viaOut")
      yield* link("loop", "loop")
      yield* fs.symlink(path.join(inside, "src/deep"), path.join(outside, "back"))
      yield* fs.symlink(path.join(inside, "src/file"), path.join(outside, "file"))
      yield* fs.writeFileString(path.join(inside, "src/file"), "")
      const policy = ApprovalPolicy.onlyInside(ApprovalPolicy.acceptFileChanges, inside)
      const any = ApprovalPolicy.onlyInside(always("accept"), inside)

      const accepted = [
        `${inside}/deep/../x`,
        `${inside}/src/../x`,
        `${outside}/back/../x`,
        `${outside}/back/x`,
        `${root}/./project//src/x`
      ]
      for (const file of accepted) assert.strictEqual(yield* decide(policy, fileChange(file)), "accept", file)
      const open = [
        `${inside}/hooks/pre-commit`,
        `${inside}/src/../hooks/pre-commit`,
        `${inside}/deep/../../hooks/pre-commit`,
        `${inside}/out/x`,
        // Without links this path would be inside.
        `${inside}/out/../x`,
        `${inside}/deep/../../../x`,
        `${inside}/viaOut`,
        `${inside}/loop/x`,
        `${inside}/missing/../../project-other/x`,
        `/proc/self/cwd/../..${inside}/x`
      ]
      for (const file of open) {
        assert.isUndefined(yield* decide(policy, fileChange(`${inside}/src/x`, file)), file)
      }
      for (const file of open.slice(3)) {
        assert.isUndefined(yield* decide(any, permissions({ write: [file] })), file)
        assert.isUndefined(yield* decide(any, permissions({ read: [inside, file] })), file)
        assert.isUndefined(
          yield* decide(any, permissions({ entries: [{ path: { type: "path", path: file }, access: "write" }] })),
          file
        )
        assert.isUndefined(yield* decide(any, command(["ls"], { cwd: file })), file)
        assert.isUndefined(yield* decide(any, { ...fileChange(`${inside}/x`), grantRoot: file }), file)
      }

      // To delete a link changes the folder that contains it.
      const removal: Approvals.FileChangeRequest = {
        ...fileChange(),
        changes: [{ path: `${outside}/file`, kind: { type: "delete" }, diff: "" }]
      }
      assert.isUndefined(yield* decide(policy, removal))
      assert.strictEqual(yield* decide(policy, fileChange(`${outside}/file`)), "accept")

      // The policy resolves the folder in the same way.
      const viaLink = ApprovalPolicy.onlyInside(ApprovalPolicy.acceptFileChanges, `${inside}/out/..`)
      assert.strictEqual(yield* decide(viaLink, fileChange(`${outside}/x`)), "accept")
      assert.isUndefined(yield* decide(viaLink, fileChange(`${inside}/x`)))
      const unresolved = ApprovalPolicy.onlyInside(ApprovalPolicy.acceptFileChanges, `${inside}/loop`)
      assert.isUndefined(yield* decide(unresolved, fileChange(`${inside}/x`)))
      const relative = ApprovalPolicy.onlyInside(always("accept"), "src")
      assert.strictEqual(yield* decide(relative, fileChange(path.resolve("src/x.ts"))), "accept")
      assert.isUndefined(yield* decide(relative, fileChange(path.resolve("test/x.ts"))))
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("ApprovalPolicy", () => {
  it.effect("firstOf runs its policies in order until one decides", () =>
    Effect.gen(function*() {
      const policy = ApprovalPolicy.firstOf(
        ApprovalPolicy.acceptCommands(([program]) => program === "a"),
        { command: () => Effect.succeed("cancel"), mcpToolCall: () => Effect.succeed("acceptAlways") },
        ApprovalPolicy.declineAll
      )
      assert.strictEqual(yield* decide(policy, command(["a"])), "accept")
      assert.strictEqual(yield* decide(policy, command(["b"])), "cancel")
      assert.strictEqual(yield* decide(policy, mcpToolCall), "acceptAlways")
      assert.strictEqual(yield* decide(policy, fileChange("/a")), "decline")
      assert.isUndefined(yield* decide(ApprovalPolicy.firstOf(), command(["a"])))
    }))

  it.effect("timeout declines when the policy does not decide in time", () =>
    Effect.gen(function*() {
      const policy = ApprovalPolicy.timeout(() => Effect.never, "1 minute")
      const fiber = yield* Effect.forkChild(decide(policy, command(["a"])))
      yield* TestClock.adjust("59 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(fiber), "decline")
      // It does not wait for an uninterruptible policy.
      const stubborn = ApprovalPolicy.timeout(() => Effect.uninterruptible(Effect.never), "1 minute")
      const waiting = yield* Effect.forkChild(decide(stubborn, command(["a"])))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* Fiber.join(waiting), "decline")
      const quick = ApprovalPolicy.timeout(always("accept"), "1 minute")
      assert.strictEqual(yield* decide(quick, command(["a"])), "accept")
    }))
})

describe("ApprovalPolicy.askTerminal", () => {
  it.effect("shows the request, and reads yes, always, no or cancel", () =>
    Effect.gen(function*() {
      const { layer, shown, type } = yield* FakeTerminal.make
      const respond = Effect.fnUntraced(function*(request: Approvals.Request, ...lines: ReadonlyArray<string>) {
        yield* type(...lines)
        return yield* Effect.provide(decide(ApprovalPolicy.askTerminal, request), layer)
      })
      assert.strictEqual(yield* respond(command(["touch", "a"], { reason: "why not" }), "y"), "accept")
      assert.include(
        shown(),
        "Codex says:\n  │ why not\nCodex wants to run this command outside of its sandbox:\n  │ touch a\nin /project\n"
      )
      assert.strictEqual(yield* respond(fileChange("/project/a"), "ALWAYS "), "acceptForSession")
      assert.include(shown(), "│ add /project/a\n  │ +x")
      assert.strictEqual(yield* respond(permissions({ write: ["/extra"] }), "no"), "decline")
      assert.include(shown(), "/extra")
      assert.strictEqual(yield* respond(mcpToolCall, "", "what", "c"), "cancel")
      assert.include(shown(), "s.t")
    }))

  it.effect("removes control characters from the text that it shows", () =>
    Effect.gen(function*() {
      const { layer, shown, type } = yield* FakeTerminal.make
      yield* type("n")
      yield* decide(
        ApprovalPolicy.askTerminal,
        command(["x"], { script: "rm -rf /\u001b[1A\u001b[2K\recho hello", cwd: "/a\nAllow it? y" })
      ).pipe(Effect.provide(layer))
      assert.notInclude(shown(), "\u001b")
      assert.notInclude(shown(), "\r")
      assert.notInclude(shown(), "\nAllow it? y")
    }))

  it.effect("shows that the request was canceled when the policy is interrupted", () =>
    Effect.gen(function*() {
      const { layer, shown } = yield* FakeTerminal.make
      const deciding = yield* Effect.forkChild(
        Effect.provide(decide(ApprovalPolicy.askTerminal, command(["x"])), layer)
      )
      yield* Effect.yieldNow
      yield* Fiber.interrupt(deciding)
      assert.include(shown(), "The request was canceled")
    }))

  it.effect("declines when the terminal quits", () =>
    Effect.gen(function*() {
      const { layer, quit } = yield* FakeTerminal.make
      yield* quit
      assert.strictEqual(
        yield* Effect.provide(decide(ApprovalPolicy.askTerminal, command(["x"])), layer),
        "decline"
      )
    }))

  it.effect("shows one request at a time", () =>
    Effect.gen(function*() {
      const { layer, shown, type } = yield* FakeTerminal.make
      const ask = (name: string) =>
        Effect.forkChild(Effect.provide(decide(ApprovalPolicy.askTerminal, command([name])), layer))
      const first = yield* ask("first")
      const second = yield* ask("second")
      yield* Effect.yieldNow
      assert.include(shown(), "first")
      assert.notInclude(shown(), "second")
      yield* type("y")
      assert.strictEqual(yield* Fiber.join(first), "accept")
      yield* type("n")
      assert.strictEqual(yield* Fiber.join(second), "decline")
    }))
})
