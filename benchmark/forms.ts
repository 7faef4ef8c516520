/** Builds the clients in the forms that the cases run: TypeScript, JavaScript, or one bundle. */
import { mkdirSync, rmSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { rolldown } from "rolldown"
import type { Case } from "./questions.ts"

const source = fileURLToPath(new URL("clients/", import.meta.url))
/** A folder of this package, so that Node.js resolves its dependencies. */
const built = fileURLToPath(new URL("built/", import.meta.url))

/** The file that runs a case. */
export const getFile = ({ client, form = "source" }: Case): string =>
  form === "source" ? `${source}${client}.ts` : `${built}${client}.${form}.mjs`

/** Builds the files of the cases. */
export const build = async (cases: ReadonlyArray<Case>): Promise<void> => {
  mkdirSync(built, { recursive: true })
  const files = new Map(cases.map((each) => [getFile(each), each]))
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
