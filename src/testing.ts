/**
 * The kit for testing programs that use Codex, without a model, a login or a network.
 *
 * @since 0.1.0
 */
export * as FakeAppServer from "./testing/FakeAppServer.ts"
