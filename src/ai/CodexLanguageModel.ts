/**
 * Codex as a `LanguageModel` of `effect/ai`: programs that generate text, objects and tool calls, and chats, run on Codex threads.
 *
 * **When to use**
 *
 * Run a program that is written for `effect/ai` on Codex, or let one program choose between Codex and other providers. A program that is
 * written for Codex has more with `Codex`: events, views, steering, typed handlers.
 *
 * **Details**
 *
 * A response is a turn of a thread, or a part of a turn if the program runs tools for it. A prompt that continues an earlier response
 * continues its thread. A prompt that branches earlier continues a fork. Any other prompt starts a thread, with its messages as history.
 *
 * **Gotchas**
 *
 * Codex is an agent: it can run commands in any request. By default commands may read files and nothing more, and each request for more is
 * refused.
 *
 * **Example** (Generating text)
 *
 * ```ts
 * import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
 * import * as NodeServices from "@effect/platform-node/NodeServices"
 * import { Console, Effect } from "effect"
 * import { LanguageModel } from "effect/ai"
 * import { Codex } from "effect-codex"
 * import { CodexLanguageModel } from "effect-codex/ai"
 *
 * const program = Effect.gen(function*() {
 *   const response = yield* LanguageModel.generateText({ prompt: "What does this project do?" })
 *   yield* Console.log(response.text)
 * })
 *
 * program.pipe(
 *   Effect.provide(CodexLanguageModel.layer({ effort: "low" })),
 *   Effect.provide(Codex.layerStdio()),
 *   Effect.provide(NodeServices.layer),
 *   NodeRuntime.runMain
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as AppServer from "../AppServer.ts"
import * as Codex from "../Codex.ts"
import { collectParts, onlyLastText } from "../internal/ai/collectParts.ts"
import { kinds, mergeOptions, type Options as Options_, resolveSettings } from "../internal/ai/config.ts"
import { loadOutputSchema } from "../internal/ai/outputSchema.ts"
import { respond } from "../internal/ai/respond.ts"
import { makeSessions } from "../internal/ai/sessions.ts"
import { assertOptions } from "../internal/options.ts"

/**
 * The options of a language model: those of threads and turns that hold for every request, and the time that threads stay open.
 *
 * **Details**
 *
 * Without `sandbox`, `permissions` and a bypass, the sandbox is `"read-only"`. Without an approval option the mode is `"deny_all"`. To
 * decide in the program, pass `approvalPolicy: "on-request"`, `approvalsReviewer: "user"`, and provide `Approvals.layer`.
 *
 * The system messages at the start of a prompt are added to `developerInstructions`.
 *
 * **Gotchas**
 *
 * Threads are stored, so that chats continue in other processes. With `ephemeral: true` they are not: a thread that was closed, or a prompt
 * that branches earlier, then needs a new thread.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = Options_

/**
 * The service with options for the requests of an Effect. They replace those of the layer.
 *
 * @see {@link withConfigOverride}
 *
 * @category services
 * @since 0.1.0
 */
export class Config extends Context.Service<Config, Options>()("effect-codex/CodexLanguageModel/Config") {}

/**
 * The metadata of the parts of a response, as `codex`. A later prompt with these parts continues their thread.
 *
 * @category models
 * @since 0.1.0
 */
export type Metadata = {
  readonly threadId: string
  readonly turnId: string
  /** The digest of the messages before the response. */
  readonly history: string
  /** The digest of the tools of the thread. */
  readonly tools: string
  /** The digest of the text. */
  readonly text?: string
}

declare module "effect/ai/Prompt" {
  export interface TextPartOptions extends ProviderOptions {
    readonly codex?: Metadata | null
  }
  export interface ReasoningPartOptions extends ProviderOptions {
    readonly codex?: Metadata | null
  }
  export interface ToolCallPartOptions extends ProviderOptions {
    readonly codex?: Metadata | null
  }
}

declare module "effect/ai/Response" {
  export interface TextPartMetadata extends ProviderMetadata {
    readonly codex?: Metadata | null
  }
  export interface TextStartPartMetadata extends ProviderMetadata {
    readonly codex?: Metadata | null
  }
  export interface TextEndPartMetadata extends ProviderMetadata {
    readonly codex?: Metadata | null
  }
  export interface ReasoningPartMetadata extends ProviderMetadata {
    readonly codex?: Metadata | null
  }
  export interface ReasoningStartPartMetadata extends ProviderMetadata {
    readonly codex?: Metadata | null
  }
  export interface ToolCallPartMetadata extends ProviderMetadata {
    readonly codex?: Metadata | null
  }
}

const owner = "CodexLanguageModel"

/**
 * Makes a language model on the Codex of the context. When the scope closes, its threads are closed, and turns that still run are
 * interrupted.
 *
 * **Gotchas**
 *
 * Throws a `TypeError` for an option that is unknown or of the wrong kind.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: Options = {}
): Effect.fn.Return<LanguageModel.LanguageModel, never, Codex.Codex | AppServer.AppServer | Scope.Scope> {
  assertOptions(owner, kinds, options)
  const context = {
    codex: yield* Codex.Codex,
    server: yield* AppServer.AppServer,
    scope: yield* Effect.scope,
    sessions: yield* makeSessions
  }
  const { codecTransformer, toOutputSchema } = yield* loadOutputSchema
  const settings = Effect.contextWith((services: Context.Context<never>) => {
    const overrides = Context.getOrUndefined(services, Config)
    assertOptions(`${owner}.withConfigOverride`, kinds, overrides)
    return Effect.succeed(resolveSettings(mergeOptions(options, overrides)))
  })
  const stream = (request: LanguageModel.ProviderOptions, method: string) =>
    Stream.unwrap(
      Effect.map(settings, (settings) => respond(context, settings, request, toOutputSchema, method))
    )
  return yield* LanguageModel.make({
    codecTransformer,
    supportsSystemMessagesInHistory: Effect.succeed(true),
    streamText: (request) => stream(request, "streamText"),
    generateText: (request) =>
      Effect.map(Stream.runCollect(stream(request, "generateText")), (parts) => {
        const collected = collectParts(parts)
        return request.responseFormat.type === "json" ? onlyLastText(collected) : collected
      })
  })
})

/**
 * Provides a language model on Codex.
 *
 * **Example** (Letting Codex write in a directory)
 *
 * ```ts
 * import { CodexLanguageModel } from "effect-codex/ai"
 *
 * export const layer = CodexLanguageModel.layer({
 *   model: "gpt-6.1-sol",
 *   cwd: "/my/project",
 *   sandbox: "workspace-write"
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: Options
): Layer.Layer<LanguageModel.LanguageModel, never, Codex.Codex | AppServer.AppServer> =>
  Layer.effect(LanguageModel.LanguageModel, make(options))

/**
 * Provides a language model with its name and its provider, for programs that choose between models.
 *
 * @category constructors
 * @since 0.1.0
 */
export const model = <const Name extends string>(
  name: Name,
  options?: Omit<Options, "model">
): Model.Model<"codex", LanguageModel.LanguageModel, Codex.Codex | AppServer.AppServer> =>
  Model.make("codex", name, layer({ ...options, model: name } as Options))

/**
 * Runs an Effect whose requests have other options.
 *
 * **Details**
 *
 * An approval option replaces all approval options of the layer, and `sandbox` replaces `permissions`. A chat that continues with other
 * options continues on a fork of its thread, because a thread keeps its options.
 *
 * **Example** (One request with more effort)
 *
 * ```ts
 * import { LanguageModel } from "effect/ai"
 * import { CodexLanguageModel } from "effect-codex/ai"
 *
 * export const proof = LanguageModel.generateText({ prompt: "Prove it" }).pipe(
 *   CodexLanguageModel.withConfigOverride({ effort: "high" })
 * )
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const withConfigOverride: {
  (overrides: Options): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Config>>
  <A, E, R>(self: Effect.Effect<A, E, R>, overrides: Options): Effect.Effect<A, E, Exclude<R, Config>>
} = dual(
  2,
  <A, E, R>(self: Effect.Effect<A, E, R>, overrides: Options): Effect.Effect<A, E, Exclude<R, Config>> =>
    Effect.contextWith((services: Context.Context<never>) =>
      Effect.provideService(self, Config, mergeOptions(Context.getOrUndefined(services, Config) ?? {}, overrides))
    ) as Effect.Effect<A, E, Exclude<R, Config>>
)
