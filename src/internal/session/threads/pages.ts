/** Lists that come in pages. */
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

/** The entries of a list. Pages are fetched as the stream is pulled; an entry that cannot be read is left out. */
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
    yield* Effect.logWarning(`Left out an entry of ${method} that cannot be read: ${decoded.failure.message}`)
    return []
  })
  return Stream.paginate(
    null as string | null,
    Effect.fnUntraced(function*(cursor: string | null) {
      const page = yield* Effect.mapError(
        decodePage(yield* server.requestRaw(method, { ...params, cursor })),
        (error) => server.withVersions(appServerError(new DecodeFailed({ method, issue: error.message })))
      )
      const entries = yield* Effect.forEach(page.data, read)
      // A cursor that leads nowhere new would lead there forever.
      const next = page.nextCursor === cursor ? null : page.nextCursor
      return [entries.flat(), Option.fromNullishOr(next)] as const
    })
  )
}
