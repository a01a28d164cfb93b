// JSON whose numbers keep their digits: 0.9130000000000001 and 1.0 are shown exactly as the server sent them.
// It must not know what the numbers mean.

export class ExactNumber {
  constructor(text) {
    this.text = text;
    this.value = Number(text);
  }

  toString() {
    return this.text;
  }

  valueOf() {
    return this.value;
  }
}

// The document with an ExactNumber in place of each number.
export function parseExact(text) {
  return JSON.parse(text, (_name, value, context) => {
    if (typeof value !== "number") {
      return value;
    }
    // Older browsers do not pass the source text. They print the shortest text of the same number.
    return new ExactNumber(context?.source ?? String(value));
  });
}
