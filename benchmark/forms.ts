/** The forms in which a client is run. */
import { mkdirSync, rmSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { rolldown } from "rolldown"
import type { Case } from "./questions.ts"

const source = fileURLToPath(new URL("clients/", import.meta.url))
/** Within this package, so that what is imported is found. */
const built = fileURLToPath(new URL("built/", import.meta.url))

/** The file to run for a case. */
export const fileOf = ({ client, form = "source" }: Case): string =>
  form === "source" ? `${source}${client}.ts` : `${built}${client}.${form}.mjs`

/** Makes the files that cases need. */
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
