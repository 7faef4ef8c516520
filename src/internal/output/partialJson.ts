/**
 * Parses JSON while it arrives. `push` costs what the text costs. `snapshot` copies the containers that are still open, and
 * shares all others with the snapshots before, so a reader can keep each one and compare them by reference.
 *
 * A string appears from its first character and grows. A number, a boolean or `null` appears once it is complete, and a field
 * once its value has begun. Text that is not JSON ends the parsing: what has come until then stays.
 */

interface OpenArray {
  readonly _tag: "Array"
  readonly value: Array<unknown>
}

interface OpenObject {
  readonly _tag: "Object"
  readonly value: Record<string, unknown>
  key: string | undefined
}

type Open = OpenArray | OpenObject

/** What may come next, besides white space. */
type Expected = "value" | "valueOrEnd" | "key" | "keyOrEnd" | "colon" | "commaOrEnd" | "nothing"

const isSpace = (char: string): boolean => char === " " || char === "\n" || char === "\r" || char === "\t"

const isAtom = (char: string): boolean => /[-+.\w]/.test(char)

/** Text from here on is copied without a look at each character. */
const special = /["\\]/g

const setField = (object: Record<string, unknown>, key: string, value: unknown): void => {
  if (key === "__proto__") {
    Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true })
  } else {
    object[key] = value
  }
}

/** Parses what a string or an atom stands for, or `undefined` if it is not JSON. */
const parseToken = (token: string): unknown => {
  try {
    return JSON.parse(token)
  } catch {
    return undefined
  }
}

/** Parses one JSON value that arrives in pieces. */
export class PartialJson {
  private readonly stack: Array<Open> = []
  private root: unknown
  private expected: Expected = "value"
  /** An atom that may go on in the next piece. */
  private atom = ""
  /** The complete characters of the string that is open. */
  private string: string | undefined
  /** An escape sequence that may go on in the next piece. */
  private escape = ""
  private isKey = false
  private isBroken = false

  /** Parses the next piece. Never throws. */
  push(text: string): void {
    let index = 0
    while (index < text.length && !this.isBroken) {
      if (this.string !== undefined) index = this.readString(text, index)
      else this.readChar(text[index++]!)
    }
  }

  /** The value as far as it has come, or `undefined` before it has begun. */
  snapshot(): unknown {
    let value: unknown = this.isKey ? undefined : this.string
    for (let index = this.stack.length - 1; index >= 0; index--) {
      const container = this.stack[index]!
      if (container._tag === "Array") {
        const out = container.value.slice()
        // An open container is the last element already. An open string is not an element yet.
        if (value !== undefined) out[index === this.stack.length - 1 ? out.length : out.length - 1] = value
        value = out
      } else {
        const out = { ...container.value }
        if (value !== undefined) setField(out, container.key!, value)
        value = out
      }
    }
    return value ?? this.root
  }

  /** Reads the open string from an index, and returns the index after what it has read. */
  private readString(text: string, from: number): number {
    if (this.escape !== "") {
      this.escape += text[from]
      if (this.escape.length === (this.escape[1] === "u" ? 6 : 2)) this.endEscape()
      return from + 1
    }
    special.lastIndex = from
    const at = special.exec(text)?.index ?? text.length
    this.string += text.slice(from, at)
    if (text[at] === "\\") this.escape = "\\"
    else if (text[at] === "\"") this.endString()
    return at + 1
  }

  private endEscape(): void {
    const char = parseToken(`"${this.escape}"`)
    this.escape = ""
    if (typeof char === "string") this.string += char
    else this.isBroken = true
  }

  private endString(): void {
    const value = this.string!
    this.string = undefined
    const object = this.stack.at(-1)
    if (this.isKey && object?._tag === "Object") {
      object.key = value
      this.isKey = false
      this.expected = "colon"
    } else this.complete(value)
  }

  private readChar(char: string): void {
    if (this.atom !== "") {
      if (isAtom(char)) {
        this.atom += char
        return
      }
      this.endAtom()
    }
    if (!this.isBroken && !isSpace(char)) this.readToken(char)
  }

  private endAtom(): void {
    const value = parseToken(this.atom)
    this.atom = ""
    if (value === undefined) this.isBroken = true
    else this.complete(value)
  }

  private readToken(char: string): void {
    const { expected } = this
    const takesKey = expected === "key" || expected === "keyOrEnd"
    const takesValue = expected === "value" || expected === "valueOrEnd"
    if (char === "\"" && (takesValue || takesKey)) {
      this.isKey = takesKey
      this.string = ""
    } else if (char === "{" && takesValue) this.open({ _tag: "Object", value: {}, key: undefined })
    else if (char === "[" && takesValue) this.open({ _tag: "Array", value: [] })
    else if (char === "}") this.close("Object", "keyOrEnd")
    else if (char === "]") this.close("Array", "valueOrEnd")
    else if (char === ":" && expected === "colon") this.expected = "value"
    else if (char === "," && expected === "commaOrEnd") {
      this.expected = this.stack.at(-1)?._tag === "Object" ? "key" : "value"
    } else if (isAtom(char) && takesValue) this.atom = char
    else this.isBroken = true
  }

  private attach(value: unknown): void {
    const open = this.stack.at(-1)
    if (open === undefined) this.root = value
    else if (open._tag === "Array") open.value.push(value)
    else setField(open.value, open.key!, value)
  }

  private complete(value: unknown): void {
    this.attach(value)
    this.expected = this.stack.length === 0 ? "nothing" : "commaOrEnd"
  }

  private open(container: Open): void {
    this.attach(container.value)
    this.stack.push(container)
    this.expected = container._tag === "Array" ? "valueOrEnd" : "keyOrEnd"
  }

  private close(tag: Open["_tag"], empty: Expected): void {
    if (this.stack.at(-1)?._tag !== tag || (this.expected !== empty && this.expected !== "commaOrEnd")) {
      this.isBroken = true
      return
    }
    this.stack.pop()
    this.expected = this.stack.length === 0 ? "nothing" : "commaOrEnd"
  }
}
