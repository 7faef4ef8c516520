/** A plain MCP client over HTTP, for what a well-behaved client does not send. */
import type { McpToolkit } from "effect-codex/ai"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"

interface Headers {
  readonly [name: string]: string
}

/** Sends one HTTP request. An interrupted fiber closes its connection. */
export const send = (
  served: Pick<McpToolkit.Served, "url" | "token">,
  body: string | object | undefined,
  options: { readonly url?: string; readonly method?: string; readonly headers?: Headers } = {}
) =>
  Effect.promise((signal) =>
    fetch(options.url ?? served.url, {
      method: options.method ?? "POST",
      signal,
      body: (typeof body === "object" ? JSON.stringify(body) : body) ?? null,
      headers: {
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        authorization: `Bearer ${Redacted.value(served.token)}`,
        ...options.headers
      }
    })
  )

/** Starts a session, and returns the headers of its requests. */
export const openSession = Effect.fnUntraced(function*(
  served: Pick<McpToolkit.Served, "url" | "token">,
  capabilities: object = {}
) {
  const response = yield* send(served, {
    jsonrpc: "2.0",
    id: 0,
    method: "initialize",
    params: { protocolVersion: "2025-11-25", capabilities, clientInfo: { name: "test", version: "1" } }
  })
  const headers = {
    "mcp-session-id": response.headers.get("mcp-session-id") ?? "",
    "mcp-protocol-version": "2025-11-25"
  }
  yield* send(served, { jsonrpc: "2.0", method: "notifications/initialized" }, { headers })
  return headers
})

/** The request to call a tool. */
export const toolCall = (id: number, name: string, args: object, meta: object = {}) => ({
  jsonrpc: "2.0",
  id,
  method: "tools/call",
  params: { name, arguments: args, _meta: meta }
})

/** Calls a tool, and returns the body of the response. */
export const callTool = (
  served: Pick<McpToolkit.Served, "url" | "token">,
  headers: Headers,
  ...call: Parameters<typeof toolCall>
) =>
  Effect.flatMap(
    send(served, toolCall(...call), { headers }),
    (response) => Effect.promise(() => response.text())
  )

/** A message of the server in the response to a call. */
export interface ServerMessage {
  readonly id?: number | string
  readonly method?: string
  readonly params?: any
  readonly result?: any
}

/** Calls a tool, and responds to the requests that the server sends meanwhile. Returns all messages of the server. */
export const converse = Effect.fnUntraced(function*(
  served: Pick<McpToolkit.Served, "url" | "token">,
  headers: Headers,
  call: ReturnType<typeof toolCall>,
  respond: (request: ServerMessage) => Effect.Effect<object> = () => Effect.never
) {
  const response = yield* send(served, call, { headers })
  const body = response.body as ReadableStream<Uint8Array>
  return yield* Stream.fromReadableStream({ evaluate: () => body, onError: identity }).pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.map((line) => line.replace(/^data: /, "")),
    Stream.filter((line) => line !== ""),
    Stream.map((line) => JSON.parse(line) as ServerMessage),
    Stream.tap((message) =>
      message.id === undefined || message.method === undefined ? Effect.void : Effect.forkScoped(
        Effect.flatMap(respond(message), (result) =>
          send(served, { jsonrpc: "2.0", id: message.id, result }, { headers }))
      )
    ),
    Stream.runCollect
  )
})
