/**
 * Records the messages between a program and a server, and replays the server's side from the recording.
 *
 * **When to use**
 *
 * To test that your program still behaves as it did when it was recorded, without a login, a model or a network.
 *
 * **Details**
 *
 * {@link record} wraps any transport and writes a file. {@link replay} is a transport that needs only that file. The program does
 * not change:
 *
 * ```ts
 * import * as NodeServices from "@effect/platform-node/NodeServices"
 * import { Layer } from "effect"
 * import { AppServer, Codex, StdioTransport } from "effect-codex"
 * import { Cassette } from "effect-codex/testing"
 *
 * const path = "test/cassettes/greeting.jsonl"
 *
 * const transport = process.env.RECORD === "1"
 *   ? Cassette.record(path).pipe(Layer.provide(StdioTransport.layer()))
 *   : Cassette.replay(path)
 *
 * export const layer = Codex.layer.pipe(
 *   Layer.provideMerge(AppServer.layer()),
 *   Layer.provide(transport),
 *   Layer.provide(NodeServices.layer)
 * )
 * ```
 *
 * **How messages match**
 *
 * A message of the program matches the first recorded message that is still unmatched and has the same method and params. A
 * response matches the recorded one with the same id and content. These may differ:
 *
 * - the ids of the program's requests, and `clientInfo` in `initialize`,
 * - absolute paths in properties such as `cwd` and `path`. The replay renames them one to one, and from then on also in the server's
 *   messages. If two paths have the same end, it renames the beginning: with `/tmp/a/project` for `/tmp/b/project`, `/tmp/a/home`
 *   becomes `/tmp/b/home`,
 * - the properties in `ignore`,
 * - redacted values,
 * - the `turnId` of `turn/interrupt` if either is empty,
 * - the threads of equal requests in flight together, until the program uses the threads. Fibers that open a thread each may run in
 *   any order.
 *
 * Any other difference fails the connection with a {@link CassetteMismatch}, which is the `cause` of the `ConnectionClosed` that
 * the program's requests fail with.
 *
 * **When messages are sent**
 *
 * The replay sends the server's messages in the recorded order. It sends each after the program has sent all messages that preceded
 * it in the recording. So the program receives no message earlier than in the recording, and its own fibers may send in another
 * order. The connection also fails if the program waits 2 seconds for a response that follows a message which it does not send.
 *
 * **Gotchas**
 *
 * The login check of `Codex.layer`, which sends `account/read`, is not recorded, because its response has the user's account. A
 * replay does not respond to it. Other `account/read` requests are recorded and matched like any request.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import { assertOptions, type Kinds, object, oneOf, recordOf, string, strings } from "../internal/options.ts"
import { type CassetteError, load } from "../internal/testing/cassette/format.ts"
import { noConnectionLeft, play, type ReplayOptions } from "../internal/testing/cassette/player.ts"
import { makeRecorder, recordConnection, type RecordOptions } from "../internal/testing/cassette/recorder.ts"
import { Transport } from "../Transport.ts"

export {
  /**
   * A cassette cannot be written or read.
   *
   * @category errors
   * @since 0.1.0
   */
  CassetteError,
  /**
   * The program sent a message that the recording does not have, or not at this point.
   *
   * @category errors
   * @since 0.1.0
   */
  CassetteMismatch,
  /**
   * Every line of a cassette after the first: a message, a line that is not JSON, or the end of a connection.
   *
   * @category schemas
   * @since 0.1.0
   */
  Entry,
  /**
   * The first line of a cassette.
   *
   * @category schemas
   * @since 0.1.0
   */
  Header
} from "../internal/testing/cassette/format.ts"

export type {
  /**
   * How a recording is replayed.
   *
   * @category models
   * @since 0.1.0
   */
  ReplayOptions
} from "../internal/testing/cassette/player.ts"

export type {
  /**
   * What a recording redacts, and the paths that it names.
   *
   * @category models
   * @since 0.1.0
   */
  RecordOptions
} from "../internal/testing/cassette/recorder.ts"

const recordKinds: Kinds<RecordOptions> = { redact: object, paths: recordOf(string) }

const replayKinds: Kinds<ReplayOptions> = {
  timing: oneOf("none", "recorded"),
  ignore: strings,
  paths: recordOf(string)
}

/**
 * Wraps a {@link Transport} and records its messages to a file.
 *
 * **Details**
 *
 * - The layer replaces the file and creates its directory. It fails if it cannot open the file.
 * - All connections of the layer go to the one file. Each line is redacted, and on disk when the scope of its connection has closed.
 * - JSON keeps its content, not its bytes.
 * - If the file cannot be written later, the layer logs a warning and the connection continues.
 *
 * @category layers
 * @since 0.1.0
 */
export const record = (
  path: string,
  options: RecordOptions = {}
): Layer.Layer<Transport, CassetteError, Transport | FileSystem.FileSystem> =>
  Layer.effect(
    Transport,
    Effect.gen(function*() {
      assertOptions("Cassette.record", recordKinds, options)
      const { connect } = yield* Transport
      const recorder = yield* makeRecorder(path, options)
      let connections = 0
      return Transport.of({ connect: Effect.suspend(() => recordConnection(recorder, connect, connections++)) })
    })
  )

/**
 * Provides a {@link Transport} that replays the server's side of a recording.
 *
 * **Details**
 *
 * - The top of this module describes how messages match, and when the server's messages are sent.
 * - The layer fails if the file is missing, has another version or is invalid.
 * - It replays each connection once, in the recorded order. A connection that the server ended ends in the same way. A connection
 *   that the program closed stays open until the program closes it.
 *
 * @category layers
 * @since 0.1.0
 */
export const replay = (
  path: string,
  options: ReplayOptions = {}
): Layer.Layer<Transport, CassetteError, FileSystem.FileSystem> =>
  Layer.effect(
    Transport,
    Effect.gen(function*() {
      assertOptions("Cassette.replay", replayKinds, options)
      const cassette = yield* load(path)
      const recorded = Math.max(0, ...cassette.entries.map(({ connection }) => connection ?? 0)) + 1
      let connections = 0
      return Transport.of({
        connect: Effect.suspend(() => {
          const connection = connections++
          return connection < recorded
            ? play(cassette, connection, options)
            : Effect.fail(noConnectionLeft(path, recorded))
        })
      })
    })
  )
