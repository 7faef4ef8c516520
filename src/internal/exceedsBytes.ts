const encoder = new TextEncoder()

/** Whether a text has more bytes in UTF-8 than a limit. Only a text near the limit is encoded. */
export const exceedsBytes = (text: string, maxBytes: number): boolean =>
  text.length > maxBytes || text.length * 3 > maxBytes && encoder.encode(text).byteLength > maxBytes
