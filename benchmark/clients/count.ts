/** The minimum: reads the bytes of the server and counts lines, up to the known number. */
import { spawn } from "node:child_process"
import { begin, end, plan, server } from "../plan.ts"

const child = spawn(server.command, ["app-server"], { env: server.env(), stdio: ["pipe", "pipe", "inherit"] })
const handshake = 1 + 2 * plan.turns
let lines = 0

child.stdout.on("data", (chunk: Buffer) => {
  for (let i = chunk.indexOf(10); i !== -1; i = chunk.indexOf(10, i + 1)) lines++
  if (lines < handshake + plan.messages + plan.turns) return
  end()
  child.stdin.end()
})

const send = (message: object) => child.stdin.write(JSON.stringify(message) + "\n")
send({ id: 0, method: "initialize" })
for (let i = 0; i < plan.turns; i++) send({ id: 1, method: "thread/start" })
begin()
for (let i = 0; i < plan.turns; i++) send({ id: 2, method: "turn/start" })
