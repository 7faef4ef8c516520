/**
 * The tests that cannot pass on the oldest supported server, with the reason. `npm run test:floor` runs them too. It fails when
 * another test fails, or when one of these does not run.
 */
export const differences: Readonly<Record<string, string>> = {
  "test/Approvals.test.ts: Approvals passes the annotations of an MCP tool to the handler":
    "Codex 0.166 does not send the annotations of a tool with the request for approval",
  "test/Codex.test.ts: Codex.listThreads fetches a page only when the stream is pulled":
    "The cursor of thread/list is a time in whole seconds on Codex 0.166, and omits threads of the same second"
}
