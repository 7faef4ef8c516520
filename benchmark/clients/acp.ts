/** The SDK of the Agent Client Protocol. It has the same wire format, and takes the methods of Codex as extensions. */
import * as acp from "@agentclientprotocol/sdk"
import { spawn } from "node:child_process"
import { Readable, Writable } from "node:stream"
import { server } from "../plan.ts"
import { route, run } from "./session.ts"

const child = spawn(server.command, ["app-server"], { env: server.env(true), stdio: ["pipe", "pipe", "inherit"] })

const asTheyAre = { parse: (params: unknown) => params }
const app = acp.client()
for (const method of ["item/agentMessage/delta", "item/completed", "turn/completed"]) {
  app.onNotification(method, asTheyAre, ({ params }) => route({ method, params }))
}
const connection = app.connect(acp.ndJsonStream(
  Writable.toWeb(child.stdin),
  Readable.toWeb(child.stdout) as ReadableStream<Uint8Array>
))

void run({
  request: (method, params) => connection.agent.request(method, params),
  notify: (method, params) => void connection.agent.notify(method, params),
  close: () => child.stdin.end()
})
