/** Explains why a socket did not open, and why an open one has ended. */
import * as Predicate from "effect/Predicate"
import type * as Socket from "effect/socket/Socket"
import { type AppServerError, ConnectFailed, ConnectionClosed, make as appServerError } from "../../AppServerError.ts"
import { getOwn } from "../getOwn.ts"
import type { Address } from "./address.ts"

/** The remedy for a WebSocket that cannot send headers, or cannot open Unix sockets. */
const useNodeWs = "Provide a WebSocket that can, such as `NodeWS.layerWebSocketConstructor` of `@effect/platform-node`"

const unreachable = "the host does not respond. Check the host, the port and the firewall"

/** The descriptions of the error codes of Node.js. */
const byCode: Readonly<Record<string, string>> = {
  ENOTFOUND: "the host name does not resolve. Correct the host",
  EAI_AGAIN: "the host name does not resolve now. Check the network",
  EACCES: "this user may not open the socket. Run the program as the user that started the server",
  EPERM: "this user may not open the socket. Run the program as the user that started the server",
  ETIMEDOUT: unreachable,
  EHOSTUNREACH: unreachable,
  ENETUNREACH: unreachable,
  ECONNRESET: "the connection was reset during the handshake. Check that codex app-server listens there",
  EPROTO: "TLS failed. `codex app-server` itself has no TLS: use `ws://`, or correct the port of the proxy"
}

const refused = ({ isUnix, shown }: Address): string =>
  isUnix
    ? `no server listens on this socket. Start one with \`codex app-server --listen ${shown}\`, or correct the path`
    : "no server listens there. Start one with `codex app-server --listen ws://IP:PORT`, or correct the URL"

const describeStatus = (status: number, hasToken: boolean): string => {
  switch (status) {
    case 401:
      return hasToken
        ? "the server refused the token (HTTP 401). Pass the token of `--ws-token-file`, or an unexpired one that is signed with " +
          "the secret of `--ws-shared-secret-file` for its issuer and audience"
        : "the server requires a token (HTTP 401). Pass the option `token`"
    case 403:
      return "the server refused the request (HTTP 403). It accepts none with an `Origin` header, so none of a web page. Check the " +
        "proxy, if there is one"
    default:
      return `the response to the handshake was HTTP ${status}. Check that the URL is one of codex app-server`
  }
}

/** Returns the text of an error that a platform reports. Some report only an empty event. */
const textOf = (cause: unknown): string => {
  const text = getOwn(cause, "message") ?? (cause instanceof Error ? cause.message : undefined)
  return Predicate.isString(text) ? text : ""
}

/** Returns the error in the event of a WebSocket, or the error itself. */
const errorOf = (cause: unknown): unknown =>
  cause instanceof Error
    ? cause
    : Predicate.hasProperty(cause, "error") && cause.error instanceof Error
    ? cause.error
    : cause

const codeOf = (cause: unknown): string | undefined =>
  Predicate.hasProperty(cause, "code") && Predicate.isString(cause.code) ? cause.code : undefined

/** Whether a code is one of OpenSSL or TLS. */
const isTls = (code: string): boolean =>
  /^(?:ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|HOSTNAME_)/.test(code)

const describeOpen = (cause: unknown, address: Address, hasToken: boolean): string => {
  const code = codeOf(cause)
  if (code === "ECONNREFUSED" || code === "ENOENT") return refused(address)
  if (code !== undefined && Object.hasOwn(byCode, code)) return byCode[code]!
  if (code !== undefined && isTls(code)) {
    return `TLS failed (\`${code}\`). Trust the certificate of the proxy, for example with \`NODE_EXTRA_CA_CERTS\``
  }
  if (cause instanceof TypeError && hasToken) {
    return `the WebSocket of this platform cannot send a token. ${useNodeWs}`
  }
  if (cause instanceof Error && cause.name === "SyntaxError" && address.isUnix) {
    return `the WebSocket of this platform cannot open Unix sockets. ${useNodeWs}`
  }
  const text = textOf(cause)
  return text === ""
    ? `the WebSocket of this platform reports no reason. Check the server, the URL and the token, or provide ` +
      "`NodeWS.layerWebSocketConstructor` of `@effect/platform-node`, which reports it"
    : `${text}. Check that the URL is one of codex app-server`
}

/** Makes the error of a socket that did not open. */
export const connectFailed = (
  { reason }: Socket.SocketError,
  { address, hasToken, redact }: {
    readonly address: Address
    readonly hasToken: boolean
    readonly redact: (text: string) => string
  }
): AppServerError => {
  const failed = (description: string, status?: number, cause?: unknown) =>
    appServerError(
      new ConnectFailed({
        url: address.shown,
        status,
        description: redact(description),
        ...(cause === undefined ? {} : { cause })
      })
    )
  if (reason._tag === "SocketCloseError") {
    return failed("the socket was closed during the handshake. Check that codex app-server listens there")
  }
  if (reason._tag === "SocketOpenError" && reason.kind === "Timeout") {
    return failed(
      "the handshake took too long. Check that codex app-server listens there, or set a longer `openTimeout`"
    )
  }
  const cause = errorOf(reason.cause)
  const status = /^Unexpected server response: (\d{3})$/.exec(textOf(cause))?.[1]
  return status === undefined
    ? failed(describeOpen(cause, address, hasToken), undefined, cause instanceof Error ? cause : undefined)
    : failed(describeStatus(Number(status), hasToken), Number(status))
}

/** The code with which a WebSocket ends that received a message above its limit. */
const tooLargeCode = 1009

const describeEnd = ({ reason }: Socket.SocketError): string => {
  if (reason._tag === "SocketCloseError") {
    const { closeReason, code } = reason
    if (code === tooLargeCode) return "a message was too large"
    return code === 1006
      ? "the socket was lost without a close. The server may have ended, the network may have failed, or this program read too slowly"
      : `the server closed the socket (code ${code}${closeReason ? `, \`${closeReason}\`` : ""})`
  }
  const cause = errorOf(reason.cause)
  const code = codeOf(cause)
  if (code === "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH") return "the server sent a message above the limit of the WebSocket"
  const text = textOf(cause)
  return `the socket failed${text === "" ? "" : `: ${text}`}`
}

/** Makes the error of a socket that has ended. */
export const socketClosed = (description: string, address: Address, cause?: unknown): AppServerError =>
  appServerError(
    new ConnectionClosed({
      description: `${description} (\`${address.shown}\`)`,
      exitCode: undefined,
      signal: undefined,
      stderrTail: "",
      ...(cause === undefined ? {} : { cause })
    })
  )

/** Makes the error of a socket whose reads have failed. */
export const readFailed = (
  error: Socket.SocketError,
  address: Address,
  redact: (text: string) => string
): AppServerError => socketClosed(redact(describeEnd(error)), address, error)
