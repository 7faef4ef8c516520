/** The output of a turn while it arrives. */
import * as Stream from "effect/Stream"
import type { MessageEvent } from "../../Turn.ts"
import type { OutputCodec } from "../output/outputCodec.ts"
import { PartialJson } from "../output/partialJson.ts"

/**
 * Emits the JSON of a turn's output as far as it has arrived. Each message starts it again, because a message without a phase may be followed
 * by the final one. Commentary is not parsed.
 */
export const toPartialOutput = <E, R>(
  messages: Stream.Stream<MessageEvent, E, R>,
  codec: Pick<OutputCodec<unknown>, "fromPartial">
): Stream.Stream<unknown, E, R> =>
  Stream.mapAccum(
    messages,
    () => new PartialJson(),
    (parser, event): readonly [PartialJson, ReadonlyArray<unknown>] => {
      if (event.phase === "commentary") return [parser, []]
      switch (event._tag) {
        case "Started":
          return [new PartialJson(), []]
        case "Delta": {
          parser.push(event.delta)
          const partial = codec.fromPartial(parser.snapshot())
          return [parser, partial === undefined ? [] : [partial]]
        }
        default:
          return [parser, []]
      }
    }
  )
