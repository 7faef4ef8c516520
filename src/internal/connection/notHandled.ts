import * as Data from "effect/Data"

/**
 * The failure of a handler that passes a request to the handler that was registered before it. Without another handler, the
 * request is declined and `why` is logged.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotHandled extends Data.TaggedError("NotHandled")<{ readonly why: string }> {}
