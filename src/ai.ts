/**
 * The modules that connect Codex with `effect/ai`. They have their own entry point, because `effect/ai` is unstable.
 *
 * @since 0.1.0
 */
export * as CodexMcpServer from "./ai/CodexMcpServer.ts"
export * as CodexToolkit from "./ai/CodexToolkit.ts"
export * as McpToolkit from "./ai/McpToolkit.ts"
