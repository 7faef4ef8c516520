/**
 * The kit for testing programs that use Codex, without a login or a network: a scripted app-server in memory, the real one
 * with a scripted model, and recordings.
 *
 * @since 0.1.0
 */
export * as Cassette from "./testing/Cassette.ts"
export * as CodexEnvironment from "./testing/CodexEnvironment.ts"
export * as FakeAppServer from "./testing/FakeAppServer.ts"
export * as ModelServer from "./testing/ModelServer.ts"
export * as TestCodex from "./testing/TestCodex.ts"
export * as TurnScript from "./testing/TurnScript.ts"
