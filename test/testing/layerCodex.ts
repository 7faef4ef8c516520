import { AppServer, Codex, type Transport } from "effect-codex"
import * as Layer from "effect/Layer"

/** Provides Codex on a transport, with all services of the transport's layer. */
export const layerCodex = <A, E, R>(transport: Layer.Layer<A | Transport.Transport, E, R>) =>
  Codex.layer.pipe(Layer.provideMerge(AppServer.layer()), Layer.provideMerge(transport))
