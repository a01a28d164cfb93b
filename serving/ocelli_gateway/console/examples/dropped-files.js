// What somebody drops or chooses, as files in classes: one folder, or one zip, a class. Nothing here looks into an image.

import { readZip, ZipError } from "./zip-reader.js";
import { compareText } from "./zip-writer.js";

/** Written by file managers, never examples. */
const SYSTEM_NAMES = new Set(["thumbs.db", "desktop.ini", "__macosx"]);
const NEGATIVE = /^_?(negatives?|none)([ _-]?examples?)?$/i;

/**
 * Everything in a drop: {sets: [{name, negative, files: [{name, content()}]}], notices: [text]}. `items` are those of the event; they
 * have to be read before it ends, so call this at once.
 */
export async function readDrop(items) {
  const found = [...items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const roots = [];
  for (const item of found.filter(Boolean)) roots.push(item instanceof File ? { name: item.name, file: item } : await readEntry(item));
  return sortIntoSets(roots);
}

/** The same for files that were chosen in a dialog, also for a whole folder. */
export async function readChosen(files) {
  const roots = [];
  const folders = new Map();
  for (const file of files) {
    const [folder, ...rest] = (file.webkitRelativePath || "").split("/");
    if (rest.length === 0) roots.push({ name: file.name, file });
    else {
      if (!folders.has(folder)) folders.set(folder, { name: folder, files: [] });
      folders.get(folder).files.push({ path: rest.join("/"), file });
    }
  }
  return sortIntoSets([...roots, ...folders.values()]);
}

async function readEntry(entry) {
  if (entry.isFile) return { name: entry.name, file: await fileOf(entry) };
  const files = [];
  await walk(entry, "", files);
  return { name: entry.name, files };
}

async function walk(folder, prefix, files) {
  const reader = folder.createReader();
  for (;;) {
    // One call gives at most a hundred of them.
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (entries.length === 0) return;
    for (const entry of entries) {
      if (isHidden(entry.name)) continue;
      if (entry.isDirectory) await walk(entry, `${prefix}${entry.name}/`, files);
      else files.push({ path: prefix + entry.name, file: await fileOf(entry) });
    }
  }
}

function fileOf(entry) {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

async function sortIntoSets(roots) {
  const sets = new Map();
  const notices = [];
  const add = (name, files) => {
    if (!sets.has(name)) sets.set(name, { name, negative: NEGATIVE.test(name), files: [] });
    sets.get(name).files.push(...files);
  };
  for (const root of roots) {
    if (isHidden(root.name)) continue;
    if (root.files !== undefined) await addFolder(root.name, await unpack(root.files, notices), add, notices);
    else if (isZip(root.name)) await addZip(root.file, add, notices);
    else add("", [asFile(root.name, root.file)]);
  }
  const sorted = [...sets.values()].sort((a, b) => a.negative - b.negative || compareText(a.name, b.name));
  return { sets: sorted.map((set) => ({ ...set, files: withUniqueNames(set.files) })), notices };
}

/** Zips in a folder are classes of their own, as they are where they are dropped alone. */
async function unpack(files, notices) {
  const found = [];
  for (const { path, file } of files) {
    if (path.split("/").some(isHidden)) continue;
    if (!isZip(path)) found.push(asFile(path, file));
    else for (const entry of await entriesOf(file, notices)) found.push({ ...entry, name: `${path.slice(0, -4)}/${entry.name}` });
  }
  return found;
}

async function addZip(file, add, notices) {
  await addFolder(file.name.slice(0, -4), await entriesOf(file, notices), add, notices);
}

async function entriesOf(file, notices) {
  try {
    return (await readZip(file)).map(({ path, content }) => ({ name: path, content })).filter(({ name }) => !name.split("/").some(isHidden));
  } catch (error) {
    if (!(error instanceof ZipError)) throw error;
    notices.push(`${error.message}.`);
    return [];
  }
}

/** A folder is one class if it has images of its own, else each folder in it is one. */
async function addFolder(name, files, add, notices) {
  const direct = files.filter((file) => !file.name.includes("/"));
  const inner = new Map();
  for (const file of files) {
    const place = file.name.indexOf("/");
    if (place < 0) continue;
    const folder = file.name.slice(0, place);
    if (!inner.has(folder)) inner.set(folder, []);
    inner.get(folder).push({ ...file, name: file.name.slice(place + 1) });
  }
  if (files.length === 0) {
    notices.push(`${name} is empty.`);
  } else if (inner.size === 0 || (direct.length > 0 && inner.size < 2)) {
    add(name, files);
  } else if (inner.size === 1) {
    const [[only, contents]] = inner;
    await addFolder(only, contents, add, notices);
  } else {
    for (const [folder, contents] of inner) add(folder, contents);
    if (direct.length > 0) notices.push(`${direct.length} files of ${name} are in no folder of a class, and are left out.`);
  }
}

function asFile(name, file) {
  return { name, content: async () => file };
}

function withUniqueNames(files) {
  const seen = new Set();
  return files.map((file) => {
    let name = file.name;
    for (let number = 2; seen.has(name); number += 1) {
      const dot = file.name.lastIndexOf(".");
      name = dot < 0 ? `${file.name}~${number}` : `${file.name.slice(0, dot)}~${number}${file.name.slice(dot)}`;
    }
    seen.add(name);
    return { ...file, name };
  });
}

function isHidden(name) {
  return name.startsWith(".") || SYSTEM_NAMES.has(name.toLowerCase());
}

function isZip(name) {
  return name.toLowerCase().endsWith(".zip");
}
