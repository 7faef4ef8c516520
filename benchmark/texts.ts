/** Deltas as models produce them, some with characters that JSON escapes. */
export const texts: ReadonlyArray<string> = [
  " the",
  " answer",
  " is",
  " not",
  " forty",
  "-two",
  ",",
  " \"as",
  " they",
  " say",
  "\";",
  " it",
  " depends",
  " on",
  " the question",
  ".\n\n"
]
