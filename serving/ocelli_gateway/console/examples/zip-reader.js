// The files in a zip that somebody drops. Entries are read when they are needed; nothing of a zip is trusted.

const MEGABYTE = 1 << 20;
/** The limit of the gateway: it skips larger entries. */
const ENTRY_BYTES_LIMIT = 10 * MEGABYTE;
const END_SEARCH_BYTES = 65_557;
const ENTRIES_LIMIT = 100_000;
const STORED = 0;
const DEFLATED = 8;

/** A zip cannot be read. */
export class ZipError extends Error {
  constructor(name, fact) {
    super(`${name} ${fact}`);
    this.fact = fact;
    this.name = "ZipError";
  }
}

/** The entries of a zip: [{path, content()}]; `content` resolves with a Blob, or raises ZipError. Raises ZipError. */
export async function readZip(file) {
  const tail = await view(file, Math.max(0, file.size - END_SEARCH_BYTES), file.size);
  const end = findEnd(tail);
  if (end === undefined) throw new ZipError(file.name, "is not a complete zip; create it again");
  const count = tail.getUint16(end + 10, true);
  const size = tail.getUint32(end + 12, true);
  const start = tail.getUint32(end + 16, true);
  if (count === 0xffff || start === 0xffffffff) throw new ZipError(file.name, "is a zip64; use zips of at most 4 GB");
  if (count > ENTRIES_LIMIT || start + size > file.size) throw new ZipError(file.name, "has a damaged directory; create it again");
  return parseDirectory(file, await view(file, start, start + size), count);
}

function findEnd(tail) {
  for (let place = tail.byteLength - 22; place >= 0; place -= 1) if (tail.getUint32(place, true) === 0x06054b50) return place;
  return undefined;
}

function parseDirectory(file, directory, count) {
  const entries = [];
  let place = 0;
  for (let number = 0; number < count; number += 1) {
    if (place + 46 > directory.byteLength || directory.getUint32(place, true) !== 0x02014b50) {
      throw new ZipError(file.name, "has a damaged directory; create it again");
    }
    const nameLength = directory.getUint16(place + 28, true);
    const entry = {
      encrypted: (directory.getUint16(place + 8, true) & 1) === 1,
      method: directory.getUint16(place + 10, true),
      packed: directory.getUint32(place + 20, true),
      size: directory.getUint32(place + 24, true),
      offset: directory.getUint32(place + 42, true),
    };
    const length = 46 + nameLength + directory.getUint16(place + 30, true) + directory.getUint16(place + 32, true);
    if (place + length > directory.byteLength) throw new ZipError(file.name, "has a damaged directory; create it again");
    const path = new TextDecoder().decode(new Uint8Array(directory.buffer, directory.byteOffset + place + 46, nameLength));
    if (!path.endsWith("/")) entries.push({ path, content: () => readEntry(file, path, entry) });
    place += length;
  }
  return entries;
}

async function readEntry(file, path, entry) {
  if (entry.encrypted) throw new ZipError(path, "is encrypted");
  if (entry.size > ENTRY_BYTES_LIMIT) throw new ZipError(path, "has more than 10 MB");
  const header = await view(file, entry.offset, entry.offset + 30);
  if (header.byteLength < 30 || header.getUint32(0, true) !== 0x04034b50) throw new ZipError(path, "is damaged");
  const start = entry.offset + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  const packed = file.slice(start, start + entry.packed);
  if (entry.method === STORED) return packed;
  if (entry.method !== DEFLATED) throw new ZipError(path, "is compressed in an unusual way");
  return inflate(packed, path);
}

async function inflate(packed, path) {
  const reader = packed.stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const parts = [];
  let size = 0;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return new Blob(parts);
      size += value.byteLength;
      // The size in the directory may be wrong on purpose.
      if (size > ENTRY_BYTES_LIMIT) break;
      parts.push(value);
    }
  } catch {
    throw new ZipError(path, "is damaged");
  }
  await reader.cancel();
  throw new ZipError(path, "has more than 10 MB");
}

async function view(file, start, end) {
  return new DataView(await file.slice(start, end).arrayBuffer());
}
