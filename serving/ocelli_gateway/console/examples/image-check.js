// Whether a file can be an example: the rules of the trainer, as far as a browser can tell. Nothing is sent for it.

import { sumBuffer } from "./checksum.js";

const IMAGE_BYTES_LIMIT = 10 << 20;
const SIDE_LIMIT = 10;
const PIXELS_LIMIT = 100_000_000;
const PNG = "89504e470d0a1a0a";
const OTHER_KINDS = [
  ["474946", "a GIF"],
  ["49492a00", "a TIFF"],
  ["4d4d002a", "a TIFF"],
  ["424d", "a BMP"],
];

/**
 * Check one file: {name, content()} → {name, content, bytes, crc, sha256} or {name, reason}; the reason ends a sentence that begins with the name.
 */
export async function checkImage({ name, content }) {
  let buffer;
  try {
    const blob = await content();
    if (blob.size > IMAGE_BYTES_LIMIT) return { name, reason: "has more than 10 MB" };
    buffer = await blob.arrayBuffer();
  } catch (error) {
    return { name, reason: error.fact ?? "cannot be read" };
  }
  const reason = await findFault(buffer);
  if (reason !== undefined) return { name, reason };
  return { name, content, bytes: buffer.byteLength, ...(await sumBuffer(buffer)) };
}

async function findFault(buffer) {
  if (buffer.byteLength === 0) return "is empty";
  const start = [...new Uint8Array(buffer, 0, Math.min(12, buffer.byteLength))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const type = start.startsWith("ffd8ff") ? "image/jpeg" : start.startsWith(PNG) ? "image/png" : undefined;
  if (type === undefined) return describeOther(start);
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([buffer], { type }));
  } catch {
    return "is damaged";
  }
  const { width, height } = bitmap;
  bitmap.close();
  if (Math.min(width, height) < SIDE_LIMIT) return `has ${width}x${height} pixels; the shorter side needs ${SIDE_LIMIT}`;
  if (width * height > PIXELS_LIMIT) return "has more than 100 megapixels";
  return undefined;
}

function describeOther(start) {
  const kind =
    OTHER_KINDS.find(([signature]) => start.startsWith(signature))?.[1] ??
    (start.startsWith("52494646") && start.endsWith("57454250") ? "a WebP" : start.slice(8, 16) === "66747970" ? "a HEIC or AVIF" : undefined);
  return kind === undefined ? "is not an image" : `is ${kind} image; examples are JPEG or PNG`;
}
