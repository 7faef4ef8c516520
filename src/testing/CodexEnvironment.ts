/**
 * A hermetic home for `codex app-server`: temporary directories, a configuration whose only model provider is the
 * {@link ModelServer}, and the environment variables that point Codex at them. Nothing on the machine is read, and no
 * connection leaves it: the proxy of all other hosts is the model server, which refuses them.
 *
 * Processes may share an environment one after the other, which is how a thread is resumed by a second process. Each
 * must have ended before the environment does: provide the layer around the scope of the process, not inside it.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import { configTree } from "../internal/configTree.ts"
import { assertOptions, type Kinds, object, string } from "../internal/options.ts"
import { encodeTomlDocument, type TomlValue } from "../internal/stdio/toml.ts"
import { ModelServer } from "./ModelServer.ts"

/**
 * Entries of `config.toml`, nested as objects or with dotted paths as keys. Names are those of the file (`approval_policy`);
 * `undefined` removes an entry.
 *
 * @category models
 * @since 0.1.0
 */
export interface Config {
  readonly [key: string]: ConfigValue | undefined
}

/**
 * One value of a {@link Config}.
 *
 * @category models
 * @since 0.1.0
 */
export type ConfigValue = string | number | boolean | ReadonlyArray<TomlValue> | Config

/**
 * What a {@link CodexEnvironment} may differ in.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Entries merged over the defaults. */
  readonly config?: Config | undefined

  /**
   * Where to make the temporary directory; the system's own by default. The `workspace-write` sandbox allows writes to
   * `/tmp`, so a test about what lies outside the workspace needs another place.
   */
  readonly directory?: string | undefined
}

const kinds: Kinds<Options> = { config: object, directory: string }

/**
 * Directories and environment variables for `codex app-server`, removed with the scope.
 *
 * @category services
 * @since 0.1.0
 */
export class CodexEnvironment extends Context.Service<CodexEnvironment, {
  /** The temporary directory that holds all others. */
  readonly root: string

  /** `CODEX_HOME`, with `config.toml`. */
  readonly codexHome: string

  /** `HOME`, empty. */
  readonly home: string

  /** An empty directory for threads to work in. */
  readonly workspace: string

  /** Variables to set over the parent's environment. */
  readonly env: Readonly<Record<string, string | undefined>>

  /** Merges entries over `config.toml`. A process that runs already may not see them. */
  readonly writeConfig: (config: Config) => Effect.Effect<void, PlatformError.PlatformError>
}>()("effect-codex/testing/CodexEnvironment") {}

/**
 * Makes a {@link CodexEnvironment} for the {@link ModelServer} at hand.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options?: Options) => Effect.Effect<
  CodexEnvironment["Service"],
  PlatformError.PlatformError,
  ModelServer | FileSystem.FileSystem | Path.Path | Scope.Scope
> = Effect.fn("CodexEnvironment.make")(function*(options?: Options) {
  assertOptions("CodexEnvironment", kinds, options)
  const server = yield* ModelServer
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path

  const root = yield* Effect.acquireRelease(
    fs.makeTempDirectory({ directory: options?.directory, prefix: "codex-" }).pipe(
      // A sandbox compares real paths, and a system's temporary directory can be a symbolic link.
      Effect.flatMap(fs.realPath)
    ),
    // A command that outlives its process may still be writing.
    (root) =>
      fs.remove(root, { recursive: true, force: true }).pipe(
        Effect.retry({ times: 3 }),
        Effect.ignore
      )
  )
  const codexHome = path.join(root, "codex-home")
  const home = path.join(root, "home")
  const workspace = path.join(root, "workspace")
  const modelCatalog = path.join(codexHome, "models.json")
  for (const directory of [codexHome, home, workspace]) {
    yield* fs.makeDirectory(directory)
  }
  yield* fs.writeFileString(modelCatalog, JSON.stringify({ models: [mockModel] }))

  const config = yield* Ref.make(defaultConfig(server.url, modelCatalog))
  const writeConfig = Effect.fn("CodexEnvironment.writeConfig")(function*(changes: Config) {
    const entries = configTree(changes) as Config
    yield* fs.writeFileString(
      path.join(codexHome, "config.toml"),
      encodeTomlDocument(yield* Ref.updateAndGet(config, (current) => merge(current, entries)))
    )
  })
  yield* writeConfig(options?.config ?? {})

  return CodexEnvironment.of({
    root,
    codexHome,
    home,
    workspace,
    env: {
      ...withoutOthers(),
      CODEX_HOME: codexHome,
      CODEX_SQLITE_HOME: codexHome,
      HOME: home,
      USERPROFILE: home,
      CODEX_APP_SERVER_DISABLE_MANAGED_CONFIG: "1",
      RUST_LOG: "warn",
      ...closedProxy(server.url)
    },
    writeConfig
  })
})

/** What a process needs of its parent's environment to run at all, and to speak as the tests expect. */
const inherited = /^(?:path|pathext|comspec|systemroot|windir|tmp|temp|tmpdir|lang|lc_\w+|tz|term|shell|user|logname)$/i

/** Removes the rest: the developer's own Codex, keys and proxies are no business of a test. */
const withoutOthers = (): Readonly<Record<string, undefined>> =>
  Object.fromEntries(
    Object.keys(process.env).filter((name) => !inherited.test(name)).map((name) => [name, undefined])
  )

/**
 * Sends every connection that is not to loopback to the model server, which refuses to be a proxy. Settings turn off the features
 * that are known to connect elsewhere, but which these are differs from version to version.
 */
const closedProxy = (url: string): Readonly<Record<string, string>> => {
  const variables = { http_proxy: url, https_proxy: url, all_proxy: url, no_proxy: "127.0.0.1,localhost,::1" }
  return Object.fromEntries(
    Object.entries(variables).flatMap(([name, value]) => [[name, value], [name.toUpperCase(), value]])
  )
}

/**
 * Provides a {@link CodexEnvironment}.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: Options
): Layer.Layer<CodexEnvironment, PlatformError.PlatformError, ModelServer | FileSystem.FileSystem | Path.Path> =>
  Layer.effect(CodexEnvironment, make(options))

// Fast and deterministic: no retries, and nothing that connects elsewhere or runs a command that no reply asked for.
const defaultConfig = (baseUrl: string, modelCatalog: string): Table => ({
  model: mockModel.slug,
  model_provider: "mock_provider",
  model_catalog_json: modelCatalog,
  approval_policy: "never",
  sandbox_mode: "read-only",
  allow_login_shell: false,
  chatgpt_base_url: baseUrl,
  openai_base_url: baseUrl,
  check_for_update_on_startup: false,
  analytics: { enabled: false },
  feedback: { enabled: false },
  otel: { exporter: "none", trace_exporter: "none", metrics_exporter: "none" },
  model_providers: {
    mock_provider: {
      name: "Scripted model server",
      base_url: baseUrl,
      wire_api: "responses",
      request_max_retries: 0,
      stream_max_retries: 0,
      supports_websockets: false
    }
  },
  features: {
    plugins: false, // runs `git ls-remote` against GitHub
    remote_plugin: false,
    apps: false,
    goals: false, // continues turns on its own
    shell_snapshot: false, // runs a login shell for each thread
    unbounded_connection_retries: false // keeps a turn alive for ever when the model server is gone
  }
})

// The least that a catalog entry must say on any version, and `apply_patch_tool_type`, without which there is no `apply_patch`.
const mockModel = {
  slug: "mock-model",
  display_name: "Mock",
  base_instructions: "You are a scripted model.",
  supported_reasoning_levels: [],
  shell_type: "unified_exec",
  visibility: "list",
  supported_in_api: true,
  context_window: 272_000,
  priority: 1,
  support_verbosity: false,
  supports_image_detail_original: false, // required up to 0.147, like the next two
  supports_parallel_tool_calls: true,
  supports_reasoning_summaries: true,
  truncation_policy: { mode: "bytes", limit: 10_000 },
  experimental_supported_tools: [],
  apply_patch_tool_type: "freeform"
}

type Table = { readonly [key: string]: TomlValue }

const isTable = (value: ConfigValue | undefined): value is Config =>
  typeof value === "object" && !globalThis.Array.isArray(value)

const merge = (base: Config, changes: Config): Table => {
  const merged = new Map<string, TomlValue>()
  for (const key of new Set([...Object.keys(base), ...Object.keys(changes)])) {
    const before = Object.hasOwn(base, key) ? base[key] : undefined
    const value = Object.hasOwn(changes, key) ? changes[key] : before
    if (isTable(value)) {
      merged.set(key, merge(isTable(before) ? before : {}, value))
    } else if (value !== undefined) {
      merged.set(key, value)
    }
  }
  return Object.fromEntries(merged)
}
