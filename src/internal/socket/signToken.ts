/** Signs tokens for `codex app-server --ws-auth signed-bearer-token`: JSON Web Tokens with HMAC-SHA256. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import * as Redacted from "effect/Redacted"
import { withoutUndefined } from "../withoutUndefined.ts"

export interface TokenClaims {
  readonly secret: Redacted.Redacted<string>
  readonly issuer: string | undefined
  readonly audience: string | undefined
  readonly lifetime: Duration.Duration
}

const encoder = new TextEncoder()

const encodeJson = (value: object): string => Base64Url.encode(JSON.stringify(value))

const sign = async (secret: Uint8Array<ArrayBuffer>, text: string): Promise<Uint8Array> => {
  const { subtle } = globalThis.crypto
  const key = await subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, ["sign"])
  return new Uint8Array(await subtle.sign("HMAC", key, encoder.encode(text)))
}

/** Signs a token that is valid from now on. The server trims the file of its secret, so the secret is trimmed too. */
export const signJwt = Effect.fnUntraced(function*({ audience, issuer, lifetime, secret }: TokenClaims) {
  const now = Math.floor((yield* Clock.currentTimeMillis) / 1000)
  const claims = withoutUndefined({
    iss: issuer,
    aud: audience,
    iat: now,
    exp: now + Math.ceil(Duration.toSeconds(lifetime))
  })
  const text = `${encodeJson({ alg: "HS256", typ: "JWT" })}.${encodeJson(claims)}`
  const signature = yield* Effect.promise(() => sign(encoder.encode(Redacted.value(secret).trim()), text))
  return Redacted.make(`${text}.${Base64Url.encode(signature)}`)
})
