/** OpenAI's SDK for TypeScript, which runs `codex exec` for each turn. */
import { Codex } from "@openai/codex-sdk"
import { begin, end, plan } from "../plan.ts"

const codex = new Codex({ codexPathOverride: plan.binary!, env: process.env as Record<string, string> })

const run = async (): Promise<void> => {
  begin()
  await Promise.all(Array.from({ length: plan.turns }, async () => {
    const thread = codex.startThread({ skipGitRepoCheck: true, sandboxMode: "read-only" })
    for (let i = 0; i < plan.messages; i++) {
      // eslint-disable-next-line no-await-in-loop -- The turns of a thread run sequentially.
      await thread.run("go")
    }
  }))
  end()
}

void run()
