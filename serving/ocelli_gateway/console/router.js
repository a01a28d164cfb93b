// Addresses: `#/classifiers?search=dog`. Search and filters are part of the address, so that they survive a reload and the way back.

/** `#/a/b%20c?d=e` → {segments: ["a", "b c"], query: URLSearchParams}; undefined where it cannot be read. */
export function parseHash(hash) {
  const [path, query = ""] = splitOnce(hash.replace(/^#\/?/, ""), "?");
  try {
    return { segments: path.split("/").filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query) };
  } catch {
    return undefined;
  }
}

/** The address of a page: (["classifiers", id, "use"], {page: 2}) → "#/classifiers/ID/use?page=2". */
export function buildHash(segments, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") search.set(name, value);
  }
  const text = search.toString();
  return `#/${segments.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** Change the query of the address that is shown, without showing the page again. Empty values are taken out. */
export function replaceQuery(changes) {
  const { segments, query } = parseHash(location.hash) ?? { segments: [], query: new URLSearchParams() };
  const values = { ...Object.fromEntries(query), ...changes };
  try {
    history.replaceState(null, "", buildHash(segments, values));
  } catch {
    // Browsers limit how often a page may do this; the next change of the query writes all of it.
  }
}

function splitOnce(text, separator) {
  const place = text.indexOf(separator);
  return place < 0 ? [text] : [text.slice(0, place), text.slice(place + 1)];
}
