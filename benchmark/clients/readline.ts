/** Node's `readline` and `JSON.parse`, as in many clients. */
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { server } from "../plan.ts"
import { Pending, receive, run } from "./session.ts"

const child = spawn(server.command, ["app-server"], { env: server.env(), stdio: ["pipe", "pipe", "inherit"] })
const pending = new Pending()

const read = async () => {
  for await (const line of createInterface({ input: child.stdout, crlfDelay: Infinity })) {
    receive(pending, JSON.parse(line))
  }
}

void read()
void run({
  request: (method, params) =>
    new Promise((resolve) => {
      child.stdin.write(JSON.stringify({ id: pending.add(resolve), method, params }) + "\n")
    }),
  notify: (method, params) => void child.stdin.write(JSON.stringify({ method, params }) + "\n"),
  close: () => child.stdin.end()
})
