/** A plain MCP client over HTTP, for what a well-behaved client does not send. */
import type { McpToolkit } from "effect-codex/ai"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"

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

const initialize = {
  jsonrpc: "2.0",
  id: 0,
  method: "initialize",
  params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "test", version: "1" } }
}

/** Starts a session, and returns the headers of its requests. */
export const openSession = Effect.fnUntraced(function*(served: Pick<McpToolkit.Served, "url" | "token">) {
  const response = yield* send(served, initialize)
  const headers = {
    "mcp-session-id": response.headers.get("mcp-session-id") ?? "",
    "mcp-protocol-version": "2025-06-18"
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
