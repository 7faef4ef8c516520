/** The real app-server as a listener on a socket, and a TCP proxy in front of it that misbehaves. */
import * as NodeWS from "@effect/platform-node/NodeWS"
import { AppServer, Codex, SocketTransport } from "effect-codex"
import { CodexEnvironment } from "effect-codex/testing"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Stream from "effect/Stream"
import * as Net from "node:net"
import { codexBinary } from "../src/internal/stdio/codexBinary.ts"
import { codexPath, quickRestart } from "./TestCodex.ts"

/** Starts an app-server that listens at `listen`, for the lifetime of the scope. Returns when it listens. */
export const listen = Effect.fnUntraced(function*(
  listen: string,
  args: ReadonlyArray<string> = [],
  path: string | undefined = listen.startsWith("unix://") ? listen.slice("unix://".length) : undefined
) {
  const { env, workspace } = yield* CodexEnvironment.CodexEnvironment
  const spawner = yield* ChildProcessSpawner
  const child = yield* spawner.spawn(
    ChildProcess.make(codexPath ?? (yield* codexBinary), ["app-server", "--listen", listen, ...args], {
      cwd: workspace,
      env,
      extendEnv: true,
      forceKillAfter: "1 second"
    })
  )
  const listening = yield* Deferred.make<string>()
  let output = ""
  yield* child.stderr.pipe(
    Stream.decodeText(),
    Stream.runForEach((text) => {
      output += text
      const url = /listening on: (ws:\/\/\S+)/.exec(output)?.[1]
      return url === undefined ? Effect.void : Deferred.succeed(listening, url)
    }),
    Effect.forkScoped
  )
  const url = path !== undefined
    ? yield* Effect.as(awaitPath(path), listen)
    : yield* Effect.raceFirst(
      Deferred.await(listening),
      Effect.flatMap(child.exitCode, (code) => Effect.die(new Error(`The server exited with ${code}: ${output}`)))
    )
  return {
    url,
    /** Kills the server and waits for its end. */
    kill: Effect.andThen(Effect.sync(() => process.kill(child.pid, "SIGKILL")), Effect.exit(child.exitCode))
  }
})

/** Waits until a server accepts connections on a Unix socket. */
const awaitPath = (path: string): Effect.Effect<void> =>
  Effect.callback<void, Error>((resume) => {
    const socket = Net.connect(path)
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.void)
    })
    socket.once("error", (error) => resume(Effect.fail(error)))
  }).pipe(
    Effect.retry({ while: () => Effect.as(Effect.sleep("10 millis"), true) }),
    Effect.orDie
  )

/** Codex on a socket, with the WebSocket of `ws`. */
export const layerWebSocket = (url: string, options?: Codex.SocketOptions) =>
  Layer.fresh(Codex.layerWebSocket(url, { restart: quickRestart, ...options })).pipe(
    Layer.provide(NodeWS.layerWebSocketConstructor)
  )

export const layerUnixSocket = (path?: string, options?: Codex.SocketOptions) =>
  Layer.fresh(Codex.layerUnixSocket(path, { restart: quickRestart, ...options })).pipe(
    Layer.provide(NodeWS.layerWebSocketConstructor)
  )

/** `AppServer` on a socket. */
export const layerAppServer = (url: string, { restart, ...options }: Codex.SocketOptions = {}) =>
  AppServer.layer({ restart }).pipe(
    Layer.provide(SocketTransport.layerWebSocket(url, options)),
    Layer.provide(NodeWS.layerWebSocketConstructor)
  )

interface Pair {
  readonly client: Net.Socket
  readonly server: Net.Socket
}

/** Splits the bytes that a server sends after its handshake into frames, and returns the number of complete text frames. */
const makeFrameCounter = () => {
  let buffer = Buffer.alloc(0)
  let isOpen = false
  return (chunk: Buffer, onMessage: (start: number, end: number) => void): void => {
    const before = buffer.length
    buffer = Buffer.concat([buffer, chunk])
    let position = 0
    if (!isOpen) {
      const end = buffer.indexOf("\r\n\r\n")
      if (end === -1) return
      isOpen = true
      position = end + 4
    }
    while (true) {
      if (buffer.length < position + 2) break
      const opcode = buffer[position]! & 0xf
      const short = buffer[position + 1]! & 0x7f
      const header = short === 126 ? 4 : short === 127 ? 10 : 2
      if (buffer.length < position + header) break
      const length = short === 126
        ? buffer.readUInt16BE(position + 2)
        : short === 127
        ? Number(buffer.readBigUInt64BE(position + 2))
        : short
      if (buffer.length < position + header + length) break
      const start = position - before
      position += header + length
      if (opcode === 1) onMessage(start, position - before)
    }
    buffer = buffer.subarray(position)
  }
}

export interface Cut {
  /** The number of the message, from 1. */
  readonly message: number
  /** Whether the message is lost. Otherwise the connection is cut after it. */
  readonly loses: boolean
}

/** A TCP proxy on loopback to the port of a server. */
export const proxy = Effect.fnUntraced(function*(url: string) {
  const port = Number(new URL(url).port)
  const pairs = new Set<Pair>()
  let stalled = false
  let connections = 0
  /** The message of the server with which each connection is cut, by its number. */
  let cuts: ReadonlyArray<Cut | undefined> = []
  let received = 0
  const server = Net.createServer((client) => {
    const number = connections++
    const upstream = Net.connect(port, "127.0.0.1")
    const pair = { client, server: upstream }
    pairs.add(pair)
    const destroy = () => {
      pairs.delete(pair)
      client.destroy()
      upstream.destroy()
    }
    for (const socket of [client, upstream]) {
      socket.setNoDelay(true)
      socket.on("error", destroy)
      socket.on("close", destroy)
    }
    if (stalled) {
      client.pause()
      upstream.pause()
    }
    client.on("data", (chunk) => upstream.write(chunk))
    const count = makeFrameCounter()
    let messages = 0
    upstream.on("data", (chunk: Buffer) => {
      const cut = cuts[number]
      let cutAt: number | undefined
      count(chunk, (start, end) => {
        messages++
        received++
        if (messages === cut?.message) cutAt ??= cut.loses ? Math.max(start, 0) : end
      })
      if (cutAt === undefined) return void client.write(chunk)
      pairs.delete(pair)
      upstream.destroy()
      client.end(chunk.subarray(0, cutAt), () => client.destroy())
    })
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.void))
    }),
    () =>
      Effect.sync(() => {
        server.close()
        for (const { client, server } of pairs) {
          client.destroy()
          server.destroy()
        }
      })
  )
  const address = server.address()
  return {
    url: `ws://127.0.0.1:${address !== null && typeof address === "object" ? address.port : 0}`,
    /** Number of connections so far. */
    connections: () => connections,
    /** Number of messages of the server so far. */
    received: () => received,
    /** Cuts the nth connection from now on at a message of the server. */
    cutAt: (...next: ReadonlyArray<Cut>) => {
      cuts = [...Array.from({ length: connections }, () => undefined), ...next]
    },
    /** Cuts all connections. */
    cut: Effect.sync(() => {
      for (const { client, server } of pairs) {
        client.resetAndDestroy()
        server.resetAndDestroy()
      }
    }),
    /** Stops to forward on all connections, without closing them. */
    stall: Effect.sync(() => {
      stalled = true
      for (const { client, server } of pairs) {
        client.pause()
        server.pause()
      }
    }),
    /** Stops to read what the server sends. */
    stallServer: Effect.sync(() => {
      for (const { server } of pairs) server.pause()
    }),
    /** Forwards on new connections. */
    heal: Effect.sync(() => {
      stalled = false
    })
  }
})
