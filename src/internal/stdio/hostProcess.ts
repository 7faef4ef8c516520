/** The `process` global of Node.js, Bun and Deno. It is `undefined` elsewhere, such as in a browser. */
export const hostProcess: NodeJS.Process | undefined = globalThis.process
