// CRC-32 and SHA-256 of bytes that arrive in pieces, without holding up the page.

import { bytesToHex } from "../vendor/noble-hashes/utils.js";
import { sha256 } from "../vendor/noble-hashes/sha2.js";

/** About five milliseconds of work. */
const SLICE_BYTES = 1 << 20;
const TABLE = buildTable();

/** {crc, sha256} of an ArrayBuffer. */
export async function sumBuffer(buffer) {
  const bytes = new Uint8Array(buffer);
  // Only secure contexts have the browser's own, which is faster and works in another thread.
  const native = globalThis.crypto?.subtle?.digest("SHA-256", buffer);
  const hash = native === undefined ? sha256.create() : undefined;
  let crc = 0xffffffff;
  for (let start = 0; start < bytes.length; start += SLICE_BYTES) {
    if (start > 0) await nextTask();
    const slice = bytes.subarray(start, start + SLICE_BYTES);
    crc = updateCrc(crc, slice);
    hash?.update(slice);
  }
  const digest = native === undefined ? hash.digest() : new Uint8Array(await native);
  return { crc: (crc ^ 0xffffffff) >>> 0, sha256: bytesToHex(digest) };
}

/** The SHA-256 of a Blob of any size; it is read slice by slice. `onProgress(bytes)`. */
export async function digestBlob(blob, { signal, onProgress = () => {} } = {}) {
  const hash = sha256.create();
  for (let start = 0; start < blob.size; start += SLICE_BYTES) {
    signal?.throwIfAborted();
    hash.update(new Uint8Array(await blob.slice(start, start + SLICE_BYTES).arrayBuffer()));
    onProgress(Math.min(start + SLICE_BYTES, blob.size));
  }
  return bytesToHex(hash.digest());
}

function updateCrc(crc, bytes) {
  let value = crc;
  for (let index = 0; index < bytes.length; index += 1) value = TABLE[(value ^ bytes[index]) & 0xff] ^ (value >>> 8);
  return value;
}

function buildTable() {
  const table = new Uint32Array(256);
  for (let index = 0; index < 256; index += 1) {
    let value = index;
    for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    table[index] = value;
  }
  return table;
}

function nextTask() {
  return new Promise((resolve) => setTimeout(resolve));
}
