/**
 * The modules for durable work: turns in workflows, and threads as entities of a cluster. They have their own entry point, because
 * `effect/workflow` and `effect/cluster` are unstable.
 *
 * @since 0.1.0
 */
export * as CodexWorkflow from "./cluster/CodexWorkflow.ts"
export * as ThreadEntity from "./cluster/ThreadEntity.ts"
