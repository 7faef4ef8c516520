/** The hand-written loop without a library: splits chunks at line ends, parses, and looks up the turn in a table. */
import { spawn } from "node:child_process"
import { server } from "../plan.ts"
import { Pending, receive, run } from "./session.ts"

const child = spawn(server.command, ["app-server"], { env: server.env(), stdio: ["pipe", "pipe", "inherit"] })
const pending = new Pending()

let carry: Array<Buffer> = []
child.stdout.on("data", (chunk: Buffer) => {
  const last = chunk.lastIndexOf(10)
  if (last === -1) {
    carry.push(chunk)
    return
  }
  const head = chunk.subarray(0, last)
  const text = carry.length === 0 ? head.toString() : Buffer.concat([...carry, head]).toString()
  carry = last + 1 < chunk.length ? [chunk.subarray(last + 1)] : []
  let start = 0
  for (let end = text.indexOf("\n"); end !== -1; end = text.indexOf("\n", start)) {
    receive(pending, JSON.parse(text.slice(start, end)))
    start = end + 1
  }
  receive(pending, JSON.parse(text.slice(start)))
})

void run({
  request: (method, params) =>
    new Promise((resolve) => {
      child.stdin.write(JSON.stringify({ id: pending.add(resolve), method, params }) + "\n")
    }),
  notify: (method, params) => void child.stdin.write(JSON.stringify({ method, params }) + "\n"),
  close: () => child.stdin.end()
})
