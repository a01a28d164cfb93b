// Zips of examples: stored, in the order of names, with fixed times. The same images give the same bytes as in the command line, so that
// an upload that was interrupted finds what is stored.

const MEGABYTE = 1 << 20;
const ZIP_BYTES_LIMIT = 100 * MEGABYTE;
const ZIP_IMAGES_LIMIT = 10_000;
/** A local header and an entry of the directory. */
const ENTRY_BYTES = 30 + 46 + 2 * 32;
const END_BYTES = 22 + 56 + 20;
/** 1 January 1980, the earliest that a zip can have. */
const DATE = 0x21;
const VERSION = 20;
const UNIX = 3;
const FILE_MODE = 0o100644;
const UTF8_NAME = 0x800;
const ENCODER = new TextEncoder();

/**
 * Which images go into which zip: as few zips of at most 100 MB as needed, with equally many images. Images: {name, bytes, sha256}.
 */
export function planZips(images, limit = ZIP_BYTES_LIMIT) {
  const sorted = [...images].sort((a, b) => compareText(a.name, b.name) || compareText(a.sha256, b.sha256));
  for (let count = 1; count < sorted.length; count += 1) {
    const zips = cut(sorted, count);
    if (zips.every((zip) => zip.length <= ZIP_IMAGES_LIMIT && sizeOf(zip) <= limit)) return zips;
  }
  return sorted.map((image) => [image]);
}

/** Runs of a list whose lengths differ by at most one. */
function cut(list, count) {
  const least = Math.floor(list.length / count);
  const longer = list.length % count;
  const startOf = (number) => number * least + Math.min(number, longer);
  return Array.from({ length: count }, (_, number) => list.slice(startOf(number), startOf(number + 1)));
}

function sizeOf(images) {
  return images.reduce((size, image) => size + image.bytes + ENTRY_BYTES + 2 * ENCODER.encode(image.name).length, END_BYTES);
}

/**
 * One zip as a Blob. Images: {name, bytes, crc, content()}; `content` resolves with a Blob. Files stay on the disk until they are sent.
 */
export async function buildZip(images) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const image of images) {
    const name = ENCODER.encode(image.name);
    const facts = { name, image, offset, flags: name.length === image.name.length ? 0 : UTF8_NAME };
    const header = localHeader(facts);
    parts.push(header, await image.content());
    directory.push(directoryEntry(facts));
    offset += header.byteLength + image.bytes;
  }
  const size = directory.reduce((sum, entry) => sum + entry.byteLength, 0);
  return new Blob([...parts, ...directory, endRecord(images.length, size, offset)], { type: "application/zip" });
}

function localHeader(facts) {
  const record = new DataView(new ArrayBuffer(30 + facts.name.length));
  record.setUint32(0, 0x04034b50, true);
  record.setUint16(4, VERSION, true);
  writeCommon(record, 6, facts);
  new Uint8Array(record.buffer).set(facts.name, 30);
  return record.buffer;
}

function directoryEntry(facts) {
  const record = new DataView(new ArrayBuffer(46 + facts.name.length));
  record.setUint32(0, 0x02014b50, true);
  record.setUint8(4, VERSION);
  record.setUint8(5, UNIX);
  record.setUint16(6, VERSION, true);
  writeCommon(record, 8, facts);
  record.setUint32(38, FILE_MODE << 16, true);
  record.setUint32(42, facts.offset, true);
  new Uint8Array(record.buffer).set(facts.name, 46);
  return record.buffer;
}

/** Flags, method (stored), time, date, CRC, both sizes, length of the name: the same in both records. */
function writeCommon(record, place, { flags, image, name }) {
  record.setUint16(place, flags, true);
  record.setUint16(place + 6, DATE, true);
  record.setUint32(place + 8, image.crc, true);
  record.setUint32(place + 12, image.bytes, true);
  record.setUint32(place + 16, image.bytes, true);
  record.setUint16(place + 20, name.length, true);
}

function endRecord(count, size, offset) {
  const record = new DataView(new ArrayBuffer(22));
  record.setUint32(0, 0x06054b50, true);
  record.setUint16(8, count, true);
  record.setUint16(10, count, true);
  record.setUint32(12, size, true);
  record.setUint32(16, offset, true);
  return record.buffer;
}

/** By code points, as Python sorts; the default compares halves of them. */
export function compareText(a, b) {
  const left = Array.from(a);
  const right = Array.from(b);
  for (let index = 0; index < Math.min(left.length, right.length); index += 1) {
    const difference = left[index].codePointAt(0) - right[index].codePointAt(0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}
