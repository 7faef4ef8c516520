/** Builds the clients: TypeScript sources, JavaScript, or one bundled file. */
import { mkdirSync, rmSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { rolldown } from "rolldown"
import type { Case } from "./questions.ts"

const source = fileURLToPath(new URL("clients/", import.meta.url))
/** A directory within this package, so that imports resolve. */
const built = fileURLToPath(new URL("built/", import.meta.url))

/** The entry file of a case. */
export const fileOf = ({ client, form = "source" }: Case): string =>
  form === "source" ? `${source}${client}.ts` : `${built}${client}.${form}.mjs`

/** Builds the files of the cases. */
export const build = async (cases: ReadonlyArray<Case>): Promise<void> => {
  mkdirSync(built, { recursive: true })
  const files = new Map(cases.map((each) => [fileOf(each), each]))
  await Promise.all([...files].map(async ([file, { client, form = "source" }]) => {
    if (form === "source") return
    const bundle = await rolldown({
      input: `${source}${client}.ts`,
      platform: "node",
      ...(form === "bundle" ? {} : { external: /^[^./]/ })
    })
    await bundle.write({ file, minify: form === "bundle", codeSplitting: false })
    await bundle.close()
  }))
}

export const remove = (): void => rmSync(built, { recursive: true, force: true })
