/** Reads lists that the server sends in pages. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type AppServerError, DecodeFailed, make as appServerError } from "../../../AppServerError.ts"
import type { ServerClient } from "../../connection/client.ts"

const Page = Schema.Struct({
  data: Schema.Array(Schema.Unknown),
  nextCursor: Schema.optionalKey(Schema.NullOr(Schema.String))
})

const decodePage = Schema.decodeUnknownEffect(Page)

/** Makes a stream of the entries of a list. It fetches pages as it is pulled, and leaves out entries that do not decode. */
export const pages = <A>(
  server: Pick<ServerClient, "requestRaw" | "withVersions">,
  method: string,
  params: object,
  schema: Schema.Codec<A>
): Stream.Stream<A, AppServerError> => {
  const isEntry = Schema.is(schema)
  const decodeEntry = Schema.decodeUnknownResult(schema)
  const read = Effect.fnUntraced(function*(entry: unknown) {
    if (isEntry(entry)) return [entry]
    const decoded = decodeEntry(entry)
    if (Result.isSuccess(decoded)) return [decoded.success]
    yield* Effect.logWarning(`Left out an entry of \`${method}\` that does not decode: ${decoded.failure.message}`)
    return []
  })
  return Stream.paginate<string | null, A, AppServerError>(
    null,
    Effect.fnUntraced(function*(cursor) {
      const page = yield* Effect.mapError(
        decodePage(yield* server.requestRaw(method, { ...params, cursor })),
        (error) => server.withVersions(appServerError(new DecodeFailed({ method, issue: error.message })))
      )
      const entries = yield* Effect.forEach(page.data, read)
      // The same cursor again would repeat the page forever.
      const next = page.nextCursor === cursor ? null : page.nextCursor
      return [entries.flat(), Option.fromNullishOr(next)] as const
    })
  )
}
