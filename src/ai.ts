/**
 * Codex and `effect/ai`. This is not part of the main entry point, because `effect/ai` is unstable.
 *
 * @since 0.1.0
 */
export * as CodexToolkit from "./ai/CodexToolkit.ts"
