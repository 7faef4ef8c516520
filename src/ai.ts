/**
 * The modules that connect Codex with `effect/ai`. They have their own entry point, because `effect/ai` is unstable.
 *
 * @since 0.1.0
 */
export * as CodexLanguageModel from "./ai/CodexLanguageModel.ts"
export * as CodexMcpServer from "./ai/CodexMcpServer.ts"
export * as CodexTool from "./ai/CodexTool.ts"
export * as CodexToolkit from "./ai/CodexToolkit.ts"
export * as McpToolkit from "./ai/McpToolkit.ts"
