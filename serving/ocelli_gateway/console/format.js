// Numbers, times and counts as people read them. Absent values become a dash: never 0 for what is not known.

const NUMBER = new Intl.NumberFormat("en");
const DAY = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [
  ["year", 31536000],
  ["month", 2592000],
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
];
const UNKNOWN = "–";

/** 0.9532 → "95.3 %". */
export function percent(value, digits = 1) {
  return value === undefined || value === null ? UNKNOWN : `${(value * 100).toFixed(digits)} %`;
}

/** An accuracy's interval: "87.1 to 96.0 %". */
export function interval(accuracy) {
  if (accuracy?.lower === undefined || accuracy?.upper === undefined) return "";
  return `${(accuracy.lower * 100).toFixed(1)} to ${(accuracy.upper * 100).toFixed(1)} %`;
}

/** (3, "image") → "3 images"; (1, "class", "classes"). */
export function count(number, noun, plural = `${noun}s`) {
  return `${NUMBER.format(number)} ${number === 1 ? noun : plural}`;
}

/** 1234567 → "1,234,567". */
export function number(value) {
  return value === undefined || value === null ? UNKNOWN : NUMBER.format(value);
}

/** 5300000 → "5.3 MB". */
export function bytes(value) {
  if (value === undefined || value === null) return UNKNOWN;
  if (value < 1000) return `${value} B`;
  if (value < 1e6) return `${(value / 1e3).toFixed(0)} kB`;
  if (value < 1e9) return `${(value / 1e6).toFixed(value < 1e7 ? 1 : 0)} MB`;
  return `${(value / 1e9).toFixed(1)} GB`;
}

/** 135 → "2 min 15 s". */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** A time of the API → "30 Nov 2026, 15:48" in the reader's time zone. */
export function date(text) {
  const time = Date.parse(text);
  return Number.isNaN(time) ? UNKNOWN : DAY.format(time);
}

/** A time of the API → "5 minutes ago". */
export function ago(text, now = Date.now()) {
  const time = Date.parse(text);
  if (Number.isNaN(time)) return UNKNOWN;
  const seconds = (time - now) / 1000;
  for (const [unit, size] of UNITS) if (Math.abs(seconds) >= size) return RELATIVE.format(Math.round(seconds / size), unit);
  return "just now";
}
