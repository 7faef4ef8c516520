/**
 * A hermetic home for `codex app-server`: temporary directories, a configuration with the {@link ModelServer} as its only model
 * provider, and the environment variables that name them.
 *
 * **Details**
 *
 * - Codex reads no configuration or login of the machine, and no connection leaves it. The model server is the proxy of all other
 *   hosts, and rejects them.
 * - Processes may share an environment one after the other, so that a second process can resume a thread of the first.
 *
 * **Gotchas**
 *
 * A process must end before its environment. Provide this layer around the scope of the process, not inside it.
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
import type { TomlValue } from "../internal/configTree.ts"
import { assertOptions, type Kinds, object, string, strings } from "../internal/options.ts"
import { encodeTomlDocument } from "../internal/stdio/toml.ts"
import { ModelServer } from "./ModelServer.ts"

/**
 * Entries of `config.toml`, as nested objects or with dotted paths as keys.
 *
 * **Details**
 *
 * Names are those of the file, such as `approval_policy`. `undefined` removes an entry.
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
 * The options of a {@link CodexEnvironment}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Entries that override the defaults. */
  readonly config?: Config | undefined

  /**
   * The parent of the temporary directory.
   *
   * **Gotchas**
   *
   * The `workspace-write` sandbox allows writes to `/tmp`. A test of writes outside the workspace needs another parent.
   *
   * @default the system's temporary directory
   */
  readonly directory?: string | undefined

  /**
   * The names of the models. The first one is the default of threads.
   *
   * @default ["mock-model"]
   */
  readonly models?: ReadonlyArray<string> | undefined
}

const kinds: Kinds<Options> = { config: object, directory: string, models: strings }

/**
 * The directories and environment variables of `codex app-server`. The scope removes them.
 *
 * @category services
 * @since 0.1.0
 */
export class CodexEnvironment extends Context.Service<CodexEnvironment, {
  /** The temporary directory that contains the others. */
  readonly root: string

  /** `CODEX_HOME`, with `config.toml`. */
  readonly codexHome: string

  /** `HOME`, an empty directory. */
  readonly home: string

  /** An empty working directory for threads. */
  readonly workspace: string

  /** Variables that override the parent's environment. */
  readonly env: Readonly<Record<string, string | undefined>>

  /** Overrides entries of `config.toml`. A running process may not read them. */
  readonly writeConfig: (config: Config) => Effect.Effect<void, PlatformError.PlatformError>
}>()("effect-codex/testing/CodexEnvironment") {}

/**
 * Makes a {@link CodexEnvironment} for the {@link ModelServer} of the environment.
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
    // A command that outlives its process may still write.
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
  const [model = mockModel.slug, ...others] = options?.models ?? []
  const models = Array.from([model, ...others], (slug) => ({ ...mockModel, slug }))
  yield* fs.writeFileString(modelCatalog, JSON.stringify({ models }))

  const config = yield* Ref.make(defaultConfig(server.url, model, modelCatalog))
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
      ...clearOthers(),
      CODEX_HOME: codexHome,
      CODEX_SQLITE_HOME: codexHome,
      HOME: home,
      USERPROFILE: home,
      CODEX_APP_SERVER_DISABLE_MANAGED_CONFIG: "1",
      RUST_LOG: "warn",
      ...rejectingProxy(server.url)
    },
    writeConfig
  })
})

/** Names of the variables that a process inherits: those that it needs to run, and its locale. */
const inherited = /^(?:path|pathext|comspec|systemroot|windir|tmp|temp|tmpdir|lang|lc_\w+|tz|term|shell|user|logname)$/i

/** Removes the other variables, such as the developer's keys and proxies. */
const clearOthers = (): Readonly<Record<string, undefined>> =>
  Object.fromEntries(
    Object.keys(process.env).filter((name) => !inherited.test(name)).map((name) => [name, undefined])
  )

/**
 * Sends every connection to another host to the model server, which rejects it. Settings turn off the features that connect to other
 * hosts, but these features differ between versions.
 */
const rejectingProxy = (url: string): Readonly<Record<string, string>> => {
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

// Fast and deterministic: no retries, no connection to another host, and no command that a reply does not call.
const defaultConfig = (baseUrl: string, model: string, modelCatalog: string): Table => ({
  model,
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
    unbounded_connection_retries: false // retries without end when the model server is gone
  }
})

// The fields that some version requires, and `apply_patch_tool_type`, which enables `apply_patch`.
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
  supports_image_detail_original: false, // required up to 0.147, as the next two are
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
