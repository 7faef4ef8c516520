/** The methods about the server itself: the handshake, models, the account and the configuration. */
import * as Effect from "effect/Effect"
import * as Protocol from "../../../Protocol.ts"
import { type Methods, reject } from "./methods.ts"
import { configuration, model } from "./settings.ts"
import { page } from "./threadJson.ts"

export const serverMethods = {
  initialize: ({ clientInfo: { name, version } }, client) => {
    if (client.initialized) return reject("Already initialized")
    client.initialized = true
    return Effect.succeed({
      result: {
        userAgent: `${name}/${Protocol.version} (Fake 1.0.0; x86_64) fake (${name}; ${version})`,
        codexHome: "/codex",
        platformFamily: "unix",
        platformOs: "linux"
      }
    })
  },
  "model/list": (params) => Effect.map(page("models", [model], params), (result) => ({ result })),
  "account/read": () => Effect.succeed({ result: { account: null, requiresOpenaiAuth: false } }),
  "config/read": ({ includeLayers }) =>
    Effect.succeed({
      result: { config: configuration, origins: {}, ...(includeLayers === true ? { layers: [] } : {}) }
    })
} satisfies Methods
