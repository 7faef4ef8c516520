import { assert, layer } from "@effect/vitest"
import { AppServer, type AppServerError, Codex, Sandbox, type Thread } from "effect-codex"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Stream from "effect/Stream"
import { poll } from "./poll.ts"
import * as TestCodex from "./TestCodex.ts"

/** The configuration to which a thread must not fall back. Homes are outside `/tmp`, where `workspace-write` can write. */
const wide = { sandbox_mode: "danger-full-access", approval_policy: "never", web_search: "live" }

/** Completes each turn with a message. */
const completeTurns = Effect.gen(function*() {
  const model = yield* ModelServer.ModelServer
  yield* model.respond(() => ModelServer.text("done"))
})

/** Returns whether a command of a thread can write outside the sandbox. */
const canWriteOutside = Effect.fnUntraced(function*(thread: Thread.Thread) {
  const model = yield* ModelServer.ModelServer
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const { root } = yield* CodexEnvironment.CodexEnvironment
  const file = path.join(root, `outside-${thread.id}`)
  yield* model.respond((request) =>
    request.functionCallOutput("write") === undefined
      ? ModelServer.functionCall("exec_command", { cmd: `echo x > ${file}` }, { callId: "write" })
      : ModelServer.text("done")
  )
  yield* thread.run("write")
  return yield* fs.exists(file)
})

const readPermissions = (thread: Thread.Thread) =>
  Effect.map(thread.settings, ({ approvalPolicy, approvalsReviewer, sandboxPolicy }) => ({
    approvalPolicy,
    approvalsReviewer,
    sandboxPolicy
  }))

const policies: ReadonlyArray<readonly [string, Sandbox.Policy]> = [
  ["read-only", Sandbox.readOnly()],
  ["read-only with network access", Sandbox.readOnly({ networkAccess: true })],
  ["writable in the workspace", Sandbox.workspaceWrite()],
  [
    "writable with each detail set",
    Sandbox.workspaceWrite({
      writableRoots: ["/var/lib/one", "/var/lib/two"],
      networkAccess: true,
      excludeSlashTmp: true,
      excludeTmpdirEnvVar: true
    })
  ]
]

layer(TestCodex.layer({ home: { directory: "/var/tmp", config: wide } }), { excludeTestServices: true })(
  "Permissions of a thread",
  (it) => {
    it.effect.each(policies)(
      "survive fork, resume and resume after unarchive under a policy that is %s",
      ([, policy]) =>
        Effect.gen(function*() {
          yield* completeTurns
          const codex = yield* Codex.Codex
          const granular = {
            sandbox_approval: true,
            rules: false,
            skill_approval: false,
            request_permissions: true,
            mcp_elicitations: false
          }
          const thread = yield* codex.startThread({ approvalPolicy: { granular }, approvalsReviewer: "user" })
          yield* thread.run("narrow", { sandboxPolicy: policy })
          const before = yield* readPermissions(thread)
          assert.deepInclude<object | undefined>(before.sandboxPolicy, policy)
          assert.deepStrictEqual<unknown>(before.approvalPolicy, { granular })

          const fork = yield* codex.forkThread(thread.id)
          assert.deepStrictEqual(yield* readPermissions(fork), before)
          assert.deepStrictEqual(yield* readPermissions(yield* codex.forkThread(fork.id)), before)
          assert.deepStrictEqual(yield* readPermissions(yield* codex.resumeThread(thread.id)), before)
          yield* codex.archiveThread(thread.id)
          yield* codex.unarchiveThread(thread.id)
          const again = yield* codex.resumeThread(thread.id)
          assert.deepStrictEqual(yield* readPermissions(again), before)
          assert.isFalse(yield* canWriteOutside(again))
          assert.isFalse(yield* canWriteOutside(fork))
        })
    )

    it.effect("are kept except those that an option of the fork changes", () =>
      Effect.gen(function*() {
        yield* completeTurns
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread({ sandbox: "workspace-write", approvalMode: "deny_all" })
        yield* thread.run("one")
        const fork = yield* codex.forkThread(thread.id, { approvalMode: "auto_review" })
        assert.deepInclude(yield* readPermissions(fork), {
          approvalPolicy: "on-request",
          approvalsReviewer: "auto_review",
          sandboxPolicy: (yield* thread.settings).sandboxPolicy
        })
        const wider = yield* codex.forkThread(thread.id, { sandbox: "danger-full-access" })
        assert.deepInclude(yield* readPermissions(wider), {
          approvalPolicy: "never",
          sandboxPolicy: { type: "dangerFullAccess" }
        })
        const configured = yield* codex.forkThread(thread.id, {
          config: { "sandbox_workspace_write.writable_roots": ["/var/lib/one"] }
        })
        assert.deepInclude((yield* configured.settings).sandboxPolicy, { writableRoots: ["/var/lib/one"] })
      }))

    it.effect("keep each detail of the sandbox that the options of a fork do not change", () =>
      Effect.gen(function*() {
        yield* completeTurns
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        const policy = {
          networkAccess: true,
          writableRoots: ["/var/lib/one"],
          excludeTmpdirEnvVar: true,
          excludeSlashTmp: false
        }
        yield* thread.run("one", { sandboxPolicy: Sandbox.workspaceWrite(policy) })
        const forks: ReadonlyArray<readonly [Codex.ForkOptions, object]> = [
          [{ sandbox: "workspace-write" }, policy],
          [{ config: { sandbox_mode: "workspace-write" } }, policy],
          [{ config: { sandbox_workspace_write: {} } }, policy],
          [{ config: { sandbox_workspace_write: { exclude_slash_tmp: true } } }, { ...policy, excludeSlashTmp: true }],
          [{ config: { "sandbox_workspace_write.network_access": false } }, { ...policy, networkAccess: false }]
        ]
        for (const [options, details] of forks) {
          const fork = yield* codex.forkThread(thread.id, options)
          assert.deepInclude((yield* fork.settings).sandboxPolicy, details)
        }
      }))

    it.effect("are restored for a handle whose thread was reopened with other permissions", () =>
      Effect.gen(function*() {
        yield* completeTurns
        const codex = yield* Codex.Codex
        const server = yield* AppServer.AppServer
        const opens: ReadonlyArray<(id: string, path: string) => Effect.Effect<unknown, unknown>> = [
          (id) => server.request("thread/resume", { threadId: id, excludeTurns: true }),
          (id, path) => codex.resumeThread(id, { path })
        ]
        for (const open of opens) {
          const thread = yield* codex.startThread({ sandbox: "workspace-write", approvalMode: "deny_all" })
          yield* thread.run("one")
          const { path } = yield* thread.read()
          yield* codex.archiveThread(thread.id)
          const { thread: stored } = yield* server.request("thread/unarchive", { threadId: thread.id })
          yield* Effect.exit(open(thread.id, stored.path ?? path ?? ""))
          assert.isFalse(yield* canWriteOutside(thread))
          assert.deepInclude((yield* thread.settings).sandboxPolicy, { type: "workspaceWrite" })
        }
      }))

    it.effect("are kept for each spelling of the thread id", () =>
      Effect.gen(function*() {
        yield* completeTurns
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread({ sandbox: "read-only", approvalMode: "deny_all" })
        yield* thread.run("narrow")
        const before = yield* readPermissions(thread)
        const digits = thread.id.replaceAll("-", "")
        for (const id of [thread.id.toUpperCase(), digits, `{${thread.id}}`, `urn:uuid:${thread.id}`]) {
          assert.deepStrictEqual(yield* readPermissions(yield* codex.forkThread(id)), before, id)
          const resumed = yield* codex.resumeThread(id)
          assert.deepStrictEqual(yield* readPermissions(resumed), before, id)
          yield* resumed.close
          assert.deepStrictEqual(yield* readPermissions(yield* codex.resumeThread(id)), before, id)
          yield* codex.archiveThread(id)
          yield* codex.unarchiveThread(id)
          assert.deepStrictEqual(yield* readPermissions(yield* codex.resumeThread(id)), before, id)
        }
      }))

    it.effect("are known to a Codex layer that is built later on the same server", () =>
      Effect.gen(function*() {
        yield* completeTurns
        const inCodex = <A, E, R>(effect: Effect.Effect<A, E, R | Codex.Codex>) =>
          Effect.provide(effect, Codex.layer, { local: true })
        const id = yield* inCodex(Effect.gen(function*() {
          const thread = yield* (yield* Codex.Codex).startThread({ sandbox: "workspace-write" })
          yield* thread.run("one")
          return thread.id
        }))
        const fork = yield* inCodex(Effect.flatMap(Codex.Codex, (codex) => codex.forkThread(id)))
        assert.deepInclude((yield* fork.settings).sandboxPolicy, { type: "workspaceWrite" })
      }).pipe(Effect.provide(TestCodex.layerProcess())))

    it.effect("are kept with their permission profile", () =>
      Effect.gen(function*() {
        yield* completeTurns
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread({
          permissions: "narrow",
          config: { permissions: { narrow: { filesystem: { ":root": "read" } } } }
        })
        yield* thread.run("one")
        assert.deepInclude((yield* thread.settings).activePermissionProfile, { id: "narrow" })
        const fork = yield* codex.forkThread(thread.id)
        assert.deepInclude((yield* fork.settings).activePermissionProfile, { id: "narrow" })
        assert.isFalse(yield* canWriteOutside(fork))
      }))

    it.effect("do not widen the sandbox policy of a turn by the workspace roots of its thread", () =>
      Effect.gen(function*() {
        yield* completeTurns
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread({
          sandbox: "workspace-write",
          config: { sandbox_workspace_write: { writable_roots: ["/var/lib/one", "/var/lib/two"] } }
        })
        yield* thread.run("narrow", { sandboxPolicy: Sandbox.workspaceWrite({ writableRoots: ["/var/lib/two"] }) })
        assert.deepInclude((yield* thread.settings).sandboxPolicy, { writableRoots: ["/var/lib/two"] })
        yield* thread.run("narrower", { sandboxPolicy: Sandbox.workspaceWrite() })
        assert.deepInclude((yield* thread.settings).sandboxPolicy, { writableRoots: [] })
      }))

    it.effect("apply to a turn that changes the working directory", () =>
      Effect.gen(function*() {
        yield* completeTurns
        const codex = yield* Codex.Codex
        const { home, workspace } = yield* CodexEnvironment.CodexEnvironment
        for (
          const options of [
            { sandbox: "workspace-write" as const },
            {
              sandbox: "workspace-write" as const,
              config: { sandbox_workspace_write: { writable_roots: ["/var/lib/one"] } }
            }
          ]
        ) {
          const thread = yield* codex.startThread(options)
          for (const cwd of [home, workspace]) {
            yield* thread.run("move", { cwd, sandboxPolicy: Sandbox.workspaceWrite() })
            assert.deepInclude(yield* thread.settings, {
              cwd,
              runtimeWorkspaceRoots: [cwd],
              sandboxPolicy: {
                type: "workspaceWrite",
                writableRoots: [],
                networkAccess: false,
                excludeTmpdirEnvVar: false,
                excludeSlashTmp: false
              }
            })
          }
        }
      }))

    it.effect("are verified when a fork names the file of a known thread", () =>
      Effect.gen(function*() {
        yield* completeTurns
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread({ sandbox: "workspace-write", approvalMode: "deny_all" })
        yield* thread.run("one")
        const { path } = yield* thread.read()
        assert.isString(path)
        const unknown = "00000000-0000-0000-0000-000000000000"
        for (const id of [thread.id, unknown]) {
          const reason = yield* TestCodex.expectReason(codex.forkThread(id, { path }))
          assert.deepInclude(reason, { _tag: "SettingsNotApplied", method: "thread/fork", setting: "sandbox" })
        }
        const fork = yield* codex.forkThread(unknown, { path, sandbox: "workspace-write" })
        assert.isFalse(yield* canWriteOutside(fork))
      }))

    it.effect("are reported for a thread that another program started", () =>
      Effect.gen(function*() {
        yield* completeTurns
        const server = yield* AppServer.AppServer
        const codex = yield* Codex.Codex
        const environment = yield* CodexEnvironment.CodexEnvironment
        const { thread } = yield* server.request("thread/start", { sandbox: "read-only", approvalPolicy: "on-request" })
        yield* server.request("turn/start", {
          threadId: thread.id,
          input: [{ type: "text", text: "one" }],
          model: "other-model",
          effort: "high"
        })
        yield* server.notifications.pipe(
          Stream.filter((event) => event.method === "turn/completed" && event.params.threadId === thread.id),
          Stream.runHead
        )
        const resumed = yield* codex.resumeThread(thread.id)
        assert.deepInclude(yield* resumed.settings, {
          approvalPolicy: "on-request",
          approvalsReviewer: "user",
          sandboxPolicy: { type: "readOnly", networkAccess: false },
          model: "other-model",
          modelProvider: "mock_provider",
          effort: "high",
          cwd: environment.workspace
        })
        // Another program changes the settings.
        yield* server.request("thread/settings/update", { threadId: thread.id, model: "third-model" })
        yield* poll(resumed.settings, ({ model }) => model === "third-model", "the changed model")
      }))
  }
)

layer(TestCodex.layer({ experimentalApi: false }), { excludeTestServices: true })(
  "Settings of a thread without the experimental API",
  (it) => {
    it.effect("are complete, and change with the working directory", () =>
      Effect.gen(function*() {
        yield* completeTurns
        const codex = yield* Codex.Codex
        const { home } = yield* CodexEnvironment.CodexEnvironment
        const thread = yield* codex.startThread({ sandbox: "workspace-write" })
        yield* thread.run("move", { cwd: home })
        yield* thread.run("narrow", { sandboxPolicy: Sandbox.workspaceWrite() })
        assert.deepInclude(yield* thread.settings, {
          cwd: home,
          runtimeWorkspaceRoots: [home],
          sandboxPolicy: {
            type: "workspaceWrite",
            writableRoots: [],
            networkAccess: false,
            excludeTmpdirEnvVar: false,
            excludeSlashTmp: false
          }
        })
      }))
  }
)

layer(TestCodex.layer({ home: { config: wide } }), { excludeTestServices: true })("Settings of a thread", (it) => {
  it.effect("keep model, provider, effort, service tier and config in a fork", () =>
    Effect.gen(function*() {
      yield* completeTurns
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({
        sandbox: "read-only",
        config: { web_search: "disabled", "tools.view_image": false },
        developerInstructions: "DEVELOPER-MARK"
      })
      yield* thread.run("one", { model: "other-model", effort: "high", serviceTier: "flex" })
      const fork = yield* codex.forkThread(thread.id, { config: { tools: { view_image: true } } })
      yield* fork.run("two")
      const { effort, model, modelProvider, serviceTier } = yield* thread.settings
      assert.deepStrictEqual(
        { effort, model, modelProvider, serviceTier },
        { effort: "high", model: "other-model", modelProvider: "mock_provider", serviceTier: "flex" }
      )
      assert.deepInclude(yield* fork.settings, { effort, model, modelProvider, serviceTier })
      const [request] = yield* TestCodex.getRequests(fork.id)
      const tools = JSON.stringify(request?.body["tools"])
      assert.notInclude(tools, "web_search")
      assert.include(tools, "view_image")
      assert.isTrue(request?.messageTexts("developer").some((text) => text.includes("DEVELOPER-MARK")))
      const other = yield* codex.forkThread(thread.id, { model: "third-model" })
      assert.deepInclude(yield* other.settings, { model: "third-model", effort: null })
    }))

  it.effect("fail to resume a loaded thread when the server ignores the requested settings", () =>
    Effect.gen(function*() {
      yield* completeTurns
      const codex = yield* Codex.Codex
      const environment = yield* CodexEnvironment.CodexEnvironment
      const instructions = { developerInstructions: "SPEAK LATIN", config: { web_search: "disabled" } }
      const thread = yield* codex.startThread({ sandbox: "read-only", ...instructions })
      yield* thread.run("one")
      const resumes: ReadonlyArray<readonly [AppServerError.SettingsNotApplied["setting"], Codex.ResumeOptions]> = [
        ["model", { model: "other-model" }],
        ["modelProvider", { modelProvider: "openai" }],
        ["cwd", { cwd: environment.home }],
        ["runtimeWorkspaceRoots", { runtimeWorkspaceRoots: [environment.home] }],
        ["developerInstructions", { developerInstructions: "SPEAK GREEK" }],
        ["baseInstructions", { baseInstructions: "SPEAK GREEK" }],
        ["config", { config: { web_search: "live" } }]
      ]
      for (const [setting, options] of resumes) {
        const reason = yield* TestCodex.expectReason(codex.resumeThread(thread.id, options))
        assert.deepInclude(reason, { _tag: "SettingsNotApplied", threadId: thread.id, setting })
        assert.notInclude(JSON.stringify(reason), "SPEAK GREEK")
      }
      yield* codex.resumeThread(thread.id, { ...instructions, model: "mock-model", cwd: `${environment.workspace}/.` })
      yield* codex.resumeThread(thread.id, { config: {} })
      const config = { "tools.view_image": false, web_search: "disabled" }
      const fork = yield* codex.forkThread(thread.id, { config })
      yield* codex.resumeThread(fork.id, { config })
      const trusting = yield* codex.startThread({ sandbox: "workspace-write", cwd: environment.workspace, config })
      yield* trusting.run("one")
      yield* codex.resumeThread(trusting.id, { config: { tools: { view_image: false } } })
      // A thread that is not loaded accepts the settings.
      yield* codex.archiveThread(thread.id)
      yield* codex.unarchiveThread(thread.id)
      const again = yield* codex.resumeThread(thread.id, { developerInstructions: "SPEAK GREEK", model: "other-model" })
      assert.strictEqual((yield* again.settings).model, "other-model")
    }))

  it.effect("accept a setting that the server renames", () =>
    Effect.gen(function*() {
      yield* completeTurns
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ sandbox: "read-only" })
      yield* thread.run("one", { serviceTier: "fast" })
      assert.strictEqual((yield* thread.settings).serviceTier, "priority")
    }))

  it.effect("are verified when a thread starts", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const environment = yield* CodexEnvironment.CodexEnvironment
      const thread = yield* codex.startThread({
        sandbox: "read-only",
        model: "other-model",
        modelProvider: "mock_provider",
        cwd: `${environment.home}/../workspace/`,
        runtimeWorkspaceRoots: [environment.home]
      })
      assert.deepInclude(yield* thread.settings, { model: "other-model", cwd: environment.workspace })
    }))

  it.effect("are verified when a turn starts, as requested or as the server writes them", () =>
    Effect.gen(function*() {
      yield* completeTurns
      const codex = yield* Codex.Codex
      const { home, workspace } = yield* CodexEnvironment.CodexEnvironment
      const thread = yield* codex.startThread()
      const turns: ReadonlyArray<Thread.TurnOptions> = [
        { serviceTier: "fast" },
        { effort: "ultra-mega" },
        { cwd: "." },
        { cwd: `${workspace}/../home/` },
        { permissions: ":workspace" },
        { permissions: ":read-only" },
        { approvalPolicy: "untrusted", approvalsReviewer: "guardian_subagent" },
        { sandboxPolicy: { type: "externalSandbox" } },
        { sandboxPolicy: { type: "externalSandbox", networkAccess: "enabled" } },
        { approvalMode: "dangerously_bypass_approvals_and_sandbox" },
        { runtimeWorkspaceRoots: [home] },
        { sandboxPolicy: Sandbox.workspaceWrite() },
        { sandboxPolicy: Sandbox.workspaceWrite({ writableRoots: [`${workspace}/`, home] }), cwd: workspace },
        {
          collaborationMode: {
            mode: "plan",
            settings: { model: "plan-model", reasoning_effort: "high", developer_instructions: null }
          },
          model: "other-model"
        }
      ]
      for (const options of turns) assert.strictEqual((yield* thread.run("go", options)).status, "completed")
      // A fork keeps the settings in the form that the server writes.
      const { model, sandboxPolicy } = yield* thread.settings
      assert.deepInclude(yield* (yield* codex.forkThread(thread.id)).settings, { model, sandboxPolicy })
      yield* thread.run("go", { sandboxPolicy: { type: "externalSandbox" } })
      assert.deepInclude(yield* (yield* codex.forkThread(thread.id)).settings, {
        sandboxPolicy: { type: "externalSandbox", networkAccess: "restricted" }
      })
    }))

  it.effect("do not mark the project as trusted in config.toml", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const { codexHome, root, writeConfig } = yield* CodexEnvironment.CodexEnvironment
      const config = path.join(codexHome, "config.toml")
      const before = yield* fs.readFileString(config)
      const project = path.join(root, "project")
      yield* fs.makeDirectory(path.join(project, ".codex"), { recursive: true })
      for (const folder of ["objects", "refs"]) {
        yield* fs.makeDirectory(path.join(project, ".git", folder), { recursive: true })
      }
      yield* fs.writeFileString(path.join(project, ".git", "HEAD"), "ref: refs/heads/main\n")
      yield* fs.makeDirectory(path.join(project, "folder"))
      yield* fs.writeFileString(path.join(project, ".codex", "config.toml"), "model = \"project-model\"\n")
      const readModel = (options: Codex.StartOptions) =>
        Effect.flatMap(codex.startThread(options), ({ settings }) => Effect.map(settings, ({ model }) => model))
      const starts: ReadonlyArray<Codex.StartOptions> = [
        { cwd: project, sandbox: "workspace-write" },
        { cwd: path.join(project, "folder"), sandbox: "workspace-write" },
        { cwd: project, permissions: ":workspace" },
        { cwd: project },
        { cwd: project, approvalMode: "dangerously_bypass_approvals_and_sandbox" }
      ]
      for (const options of starts) assert.strictEqual(yield* readModel(options), "mock-model")
      assert.strictEqual(yield* fs.readFileString(config), before)

      // Trust in a parent folder does not apply to the project.
      yield* writeConfig({ projects: { [root]: { trust_level: "trusted" } } })
      const trusting = yield* fs.readFileString(config)
      assert.strictEqual(yield* readModel({ cwd: project, sandbox: "workspace-write" }), "mock-model")
      assert.strictEqual(yield* fs.readFileString(config), trusting)

      // Trust by the program or its user stays.
      const trusted = { projects: { [project]: { trust_level: "trusted" } } }
      assert.strictEqual(
        yield* readModel({ cwd: project, sandbox: "workspace-write", config: trusted }),
        "project-model"
      )
      yield* writeConfig(trusted)
      assert.strictEqual(yield* readModel({ cwd: project, sandbox: "workspace-write" }), "project-model")
      assert.strictEqual(
        yield* readModel({ cwd: path.join(project, "folder"), sandbox: "workspace-write" }),
        "project-model"
      )
      // A worktree has the trust of its repository.
      const worktree = path.join(root, "worktree")
      const git = path.join(project, ".git", "worktrees", "worktree")
      yield* fs.makeDirectory(path.join(worktree, ".codex"), { recursive: true })
      yield* fs.makeDirectory(git, { recursive: true })
      yield* fs.writeFileString(path.join(worktree, ".git"), `gitdir: ${git}\n`)
      yield* fs.writeFileString(path.join(git, "gitdir"), `${path.join(worktree, ".git")}\n`)
      yield* fs.writeFileString(path.join(git, "commondir"), "../..\n")
      yield* fs.writeFileString(path.join(git, "HEAD"), "ref: refs/heads/other\n")
      yield* fs.writeFileString(path.join(worktree, ".codex", "config.toml"), "model = \"project-model\"\n")
      assert.strictEqual(yield* readModel({ cwd: worktree, sandbox: "read-only" }), "project-model")
      assert.strictEqual(yield* readModel({ cwd: worktree, sandbox: "workspace-write" }), "project-model")
    }))
})
