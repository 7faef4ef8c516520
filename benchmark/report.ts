/** Converts measurements to figures, tables and plots. */
import * as Plot from "@observablehq/plot"
import { parseHTML } from "linkedom"
import type { Measurement } from "./plan.ts"
import type { Question } from "./questions.ts"

export interface Figure {
  readonly label: string
  readonly target: number | undefined
  readonly rows: ReadonlyArray<Row>
}

/** The figure of one client, and its ratio to the baseline: median, minimum and maximum of the rounds. */
export interface Row {
  readonly name: string
  readonly client: string
  readonly value: Spread
  readonly ratio: Spread
}

export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

export interface Result {
  readonly id: string
  readonly title: string
  readonly figures: ReadonlyArray<Figure>
}

const spread = (values: ReadonlyArray<number>): Spread => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
  return { median, min: sorted[0]!, max: sorted.at(-1)! }
}

export const summarize = (question: Question, measurements: ReadonlyArray<ReadonlyArray<Measurement>>): Result => ({
  id: question.id,
  title: question.title,
  figures: question.figures.map(({ label, of, per = 1, target }) => ({
    label,
    target,
    rows: question.cases.flatMap(({ client, name }, i) => {
      const values = measurements[i]!.map((measurement) => measurement[of]! / per)
      if (values.some((value) => !Number.isFinite(value))) return []
      const baseline = measurements[0]!.map((measurement) => measurement[of]! / per)
      return [{
        name,
        client,
        value: spread(values),
        ratio: spread(values.map((value, round) => value / baseline[round]!))
      }]
    })
  }))
})

const digits = (value: number): string => value.toFixed(Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2)

const verdict = (figure: Figure, row: Row): string => {
  if (row.client !== "effectCodex" || figure.target === undefined) return ""
  return `≤ ${figure.target}, ${row.ratio.median <= figure.target ? "met" : "missed"}`
}

/** Formats a result as one Markdown table for each figure. */
export const table = ({ figures, title }: Result): string =>
  [
    `### ${title}`,
    ...figures.map((figure) =>
      [
        `|  | ${figure.label} | min to max | ratio to the first row | min to max | target |`,
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        ...figure.rows.map((row) =>
          `| ${row.name} | ${digits(row.value.median)} | ${digits(row.value.min)} to ${digits(row.value.max)} | ${
            row.ratio.median.toFixed(2)
          } | ${row.ratio.min.toFixed(2)} to ${row.ratio.max.toFixed(2)} | ${verdict(figure, row)} |`
        )
      ].join("\n")
    )
  ].join("\n\n") + "\n"

const { document } = parseHTML("<html><body></body></html>")

/** Plots a bar for each row, with its spread, and a line at the baseline. */
const plot = (title: string, { label, rows }: Figure): string => {
  const data = rows.map(({ client, name, ratio }) => ({
    name,
    ratio: ratio.median,
    min: ratio.min,
    max: ratio.max,
    client
  }))
  const svg = Plot.plot({
    document,
    width: 720,
    marginLeft: 240,
    marginBottom: 45,
    marginRight: 50,
    style: { background: "white", color: "#222", fontSize: "12px" },
    x: { label: `${title}: ${label}, ratio to the first row`, grid: true, zero: true },
    y: { label: null, domain: data.map(({ name }) => name) },
    marks: [
      Plot.barX(data, { x: "ratio", y: "name", fill: (row) => row.client === "effectCodex" ? "#0a7" : "#bbb" }),
      Plot.ruleY(data, { x1: "min", x2: "max", y: "name", stroke: "#444" }),
      Plot.text(data, { x: "max", y: "name", text: (row) => `${row.ratio.toFixed(2)}×`, textAnchor: "start", dx: 4 }),
      Plot.ruleX([1], { stroke: "#d33" })
    ]
  })
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg")
  return `${svg.outerHTML}\n`
}

/** The files of the report, with paths relative to `docs`. */
export const report = (
  results: ReadonlyArray<Result>,
  machine: string,
  rounds: number
): ReadonlyArray<readonly [name: string, content: string]> => {
  const plots = results.flatMap(({ figures, id, title }) => {
    const figure = figures[0]!
    return figure.rows.length < 2 || id === "heap" || id === "view-heap"
      ? []
      : [[`benchmark/${id}.svg`, plot(title, figure)] as const]
  })
  const drawn = new Set<string>(plots.map(([name]) => name))
  const page = [
    "# Benchmark",
    "`npm run bench` writes this page, and [performance](performance.md) explains the figures. In a round, all clients of a table run"
    + " one after the other. A figure is the median of the rounds. A ratio is the median of the ratios of the rounds.",
    `Machine: ${machine}. Rounds: ${rounds}.`,
    ...results.map((result) => {
      const file = `benchmark/${result.id}.svg`
      return drawn.has(file) ? `${table(result)}\n![${result.title}](${file})\n` : table(result)
    })
  ].join("\n\n")
  return [["benchmark.md", page], ...plots]
}
