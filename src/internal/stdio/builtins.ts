/**
 * The modules of the platform, which Node.js, Bun and Deno hand out without an import, or `undefined` where there are none. An
 * import would keep this package from being bundled for a browser.
 */
export const builtins = () => {
  const get = globalThis.process?.getBuiltinModule
  return get === undefined ? undefined : {
    fs: get("node:fs"),
    module: get("node:module"),
    path: get("node:path"),
    url: get("node:url")
  }
}

export type Builtins = NonNullable<ReturnType<typeof builtins>>
