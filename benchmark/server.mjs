#!/usr/bin/env node
// A server with minimal cost. It responds to the requests that start turns, and then writes prepared bytes as fast as the client
// reads, or at a given pace. BENCHMARK_PLAN has the plan (plan.ts).
import { writeSync } from "node:fs"

const plan = JSON.parse(process.env.BENCHMARK_PLAN)

const now = () => process.hrtime.bigint()

const write = (bytes) => {
  for (let offset = 0; offset < bytes.length;) offset += writeSync(1, bytes, offset)
}

/** Some clients need the member that this protocol omits. */
const member = plan.jsonrpc ? { jsonrpc: "2.0" } : {}

const send = (message) => write(Buffer.from(JSON.stringify({ ...member, ...message }) + "\n"))

const id = (kind, n) => `01a203b0-03af-7c63-${kind}-${String(n).padStart(12, "0")}`
const threadIdOf = (n) => id("b895", n)
const turnIdOf = (n) => id("8b02", n)
const emittedAtMs = 1_795_358_196_797

let threads = 0
let turns = 0
/** The running turns. */
let running = []

/** A delta of the nth running turn. */
const line = (n, delta) =>
  JSON.stringify({
    ...member,
    method: "item/agentMessage/delta",
    params: {
      ...running[n],
      itemId: "msg_0123456789abcdef0123456789abcdef01234567",
      delta
    },
    emittedAtMs
  }) + "\n"

const turn = (n, status) => ({
  id: turnIdOf(n),
  rootTurnId: turnIdOf(n),
  items: [],
  itemsView: "summary",
  status,
  error: null,
  startedAt: 1_795_358_196,
  completedAt: status === "completed" ? 1_795_358_197 : null,
  durationMs: status === "completed" ? 1000 : null
})

/** Prepares the interleaved messages of all turns in blocks. The last block may be shorter. */
const flood = () => {
  const perBlock = plan.turns * Math.max(1, Math.ceil(4096 / plan.turns))
  const lines = Array.from({ length: perBlock }, (_, i) => line(i % plan.turns, plan.texts[i % plan.texts.length]))
  const block = Buffer.from(lines.join(""))
  let left = plan.messages
  for (; left >= perBlock; left -= perBlock) write(block)
  if (left > 0) write(Buffer.from(lines.slice(0, left).join("")))
}

/** Writes one message at a time, evenly spaced. The text of a message may be the time of its write. */
const paced = () => {
  const gap = BigInt(Math.round(1e9 / plan.rate))
  const prepared = plan.texts.map((text) => Buffer.from(line(0, text)))
  const start = now()
  for (let i = 0; i < plan.messages; i++) {
    const due = start + BigInt(i) * gap
    if (plan.sleep) {
      const millis = Number(due - now()) / 1e6
      if (millis > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, millis)
    } else {
      while (now() < due);
    }
    write(plan.stamped ? Buffer.from(line(0, String(now()))) : prepared[i % prepared.length])
  }
}

/** Writes lines of `lineBytes` bytes, each a completed item. */
const big = () => {
  for (let i = 0; i < plan.messages; i++) {
    send({
      method: "item/completed",
      params: {
        ...running[0],
        completedAtMs: emittedAtMs,
        item: {
          type: "agentMessage",
          id: `msg_${i}`,
          text: "lorem ipsum\n".repeat(Math.ceil(plan.lineBytes / 13)),
          phase: null,
          memoryCitation: null
        }
      },
      emittedAtMs
    })
  }
}

const respond = ({ id, method, params }) => {
  switch (method) {
    case "initialize":
      return send({
        id,
        result: {
          userAgent: "benchmark/0.169.0 (Linux; x86_64) node (benchmark; 1.0.0)",
          codexHome: "/nowhere",
          platformFamily: "unix",
          platformOs: "linux"
        }
      })
    case "thread/start":
      return send({
        id,
        result: {
          thread: { id: threadIdOf(threads++) },
          approvalPolicy: "on-request",
          approvalsReviewer: "auto_review",
          sandbox: { type: "readOnly", networkAccess: false }
        }
      })
    case "turn/start": {
      const n = turns++
      running.push({ threadId: params?.threadId ?? threadIdOf(n), turnId: turnIdOf(n) })
      send({ id, result: { turn: turn(n, "inProgress") } })
      if (running.length < plan.turns) return
      if (plan.kind === "paced") paced()
      else if (plan.kind === "big") big()
      else flood()
      running.forEach(({ threadId }, i) =>
        send({
          method: "turn/completed",
          params: { threadId, turn: turn(turns - plan.turns + i, "completed") },
          emittedAtMs
        })
      )
      running = []
      return
    }
    default:
      return send({ id, result: { data: [], nextCursor: null } })
  }
}

let rest = ""
process.stdin.setEncoding("utf8")
process.stdin.on("data", (text) => {
  const lines = (rest + text).split("\n")
  rest = lines.pop()
  for (const line of lines) {
    const message = JSON.parse(line)
    if (message.id !== undefined) respond(message)
  }
})
process.stdin.on("end", () => process.exit(0))
