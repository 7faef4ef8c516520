/** `npm run example NAME` runs `examples/NAME.ts`. */
import { readdirSync } from "node:fs"

const folder = new URL("../examples/", import.meta.url)
const names = readdirSync(folder).filter((file) => file.endsWith(".ts")).map((file) => file.slice(0, -3))
const name = process.argv[2]

if (name !== undefined && names.includes(name)) {
  await import(new URL(`${name}.ts`, folder).href)
} else {
  console.error(`Usage: npm run example NAME\n\nNAME is one of: ${names.join(", ")}`)
  process.exitCode = 1
}
