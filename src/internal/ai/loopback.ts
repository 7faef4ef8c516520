/** Serves apps on one HTTP server of the loopback interface, each behind a path and a token of its own. */
import * as ByteSize from "effect/ByteSize"
import * as Context from "effect/Context"
import * as Mac from "effect/crypto/Mac"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import { MaxBodySize } from "effect/http/HttpIncomingMessage"
import * as HttpServer from "effect/http/HttpServer"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as NetAddress from "effect/net/NetAddress"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import { handlerContext } from "../handlers/handlerContext.ts"

/** Responds to one HTTP request. */
export type App = Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  unknown,
  HttpServerRequest.HttpServerRequest | Scope.Scope
>

type Server = HttpServer.HttpServer["Service"]

/** Maximum size of the body of a request. Arguments of a tool are small; images of a few megabytes fit. */
const maxBodySize = ByteSize.fromInputUnsafe("16 MiB")

/** A random text that a URL and a header may contain, with 256 bits. */
export const makeSecret = Effect.sync(() => Base64Url.encode(SecureRandom.randomBytesUnsafe(32)))

const status = (code: number) => Effect.succeed(HttpServerResponse.empty({ status: code }))

/** The apps of each server, by path. */
const servers = new WeakMap<Server, Map<string, App>>()

/**
 * Ends the connection after the response. A client that keeps connections may open one that it never uses, for which the end of Node's
 * HTTP server waits for minutes.
 */
const closesConnection = HttpServerResponse.setHeader("connection", "close")

/**
 * Returns the apps of a server. The first caller starts to serve them. They are served as long as the server listens: some servers stop
 * to listen when one of their apps ends, and others of this program may still use it.
 */
const getApps = Effect.fnUntraced(function*(server: Server) {
  const known = servers.get(server)
  if (known !== undefined) return known
  const apps = new Map<string, App>()
  servers.set(server, apps)
  const dispatch = Effect.flatMap(
    HttpServerRequest.HttpServerRequest,
    ({ url }) => apps.get(url.split("?", 1)[0]!) ?? status(404)
  ).pipe(Effect.map(closesConnection))
  yield* Scope.provide(server.serve(dispatch), Scope.makeUnsafe())
  return apps
})

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

/** Runs an app only for requests with the token. The comparison takes the same time for each wrong token of the same length. */
const withToken = (app: App, token: Redacted.Redacted<string>): App =>
  Effect.flatMap(
    HttpServerRequest.HttpServerRequest,
    ({ headers }) =>
      !Mac.timingSafeEqual(bytes(headers["authorization"] ?? ""), bytes(`Bearer ${Redacted.value(token)}`))
        ? status(401)
        : Number(headers["content-length"] ?? 0) > maxBodySize
        ? status(413)
        : app
  )

/** Runs an app with the services of the fiber that serves it. */
const inContext = (app: App, context: Context.Context<never>): App =>
  Effect.updateContext(
    app,
    (request: Context.Context<HttpServerRequest.HttpServerRequest | Scope.Scope>) =>
      Context.add(Context.merge(request, context), MaxBodySize, maxBodySize)
  )

/** Whether only programs of this machine reach the server. */
export const isLoopback = ({ address }: Server): boolean =>
  NetAddress.isInetAddress(address) && NetAddress.isLoopback(address.address)

/** Serves an app at a path of the server, for requests with the token, until the scope closes. Returns the URL. */
export const serveApp = Effect.fnUntraced(function*(
  app: App,
  options: { readonly path: string; readonly token: Redacted.Redacted<string> }
): Effect.fn.Return<string, never, HttpServer.HttpServer | Scope.Scope> {
  const server = yield* HttpServer.HttpServer
  const context = Context.omit(HttpServerRequest.HttpServerRequest, Scope.Scope)(yield* handlerContext<never>())
  const guarded = withToken(inContext(app, context), options.token)
  const apps = yield* getApps(server)
  yield* Effect.acquireRelease(
    Effect.sync(() => apps.set(options.path, guarded)),
    () => Effect.sync(() => apps.delete(options.path))
  )
  return `${HttpServer.formatAddress(server.address)}${options.path}`
})
