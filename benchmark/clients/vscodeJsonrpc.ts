/** `vscode-jsonrpc` with a reader and a writer for one message a line; its own ones use `Content-Length`. */
import { spawn } from "node:child_process"
import {
  AbstractMessageReader,
  AbstractMessageWriter,
  createMessageConnection,
  type DataCallback,
  type Disposable,
  type Message
} from "vscode-jsonrpc/node"
import { server } from "../plan.ts"
import { route, run } from "./session.ts"

const child = spawn(server.command, ["app-server"], { env: server.env(true), stdio: ["pipe", "pipe", "inherit"] })

class LineReader extends AbstractMessageReader {
  listen(callback: DataCallback): Disposable {
    let rest = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n")
      rest = lines.pop()!
      for (const line of lines) callback(JSON.parse(line))
    })
    return { dispose: () => {} }
  }
}

class LineWriter extends AbstractMessageWriter {
  write(message: Message): Promise<void> {
    child.stdin.write(JSON.stringify(message) + "\n")
    return Promise.resolve()
  }
  end(): void {}
}

const connection = createMessageConnection(new LineReader(), new LineWriter())
connection.onNotification((method, params) => route({ method, params }))
connection.listen()

void run({
  request: (method, params) => connection.sendRequest(method, params),
  notify: (method, params) => void connection.sendNotification(method, params),
  close: () => child.stdin.end()
})
