/** Loads the codec of typed output. Only programs with typed output need it and the modules of Effect that it imports. */
import * as Effect from "effect/Effect"

export const loadOutputCodec = Effect.promise(() => import("./outputCodec.ts"))
