// Elements without HTML in texts: whatever a name or a message contains, it becomes text. Nothing here knows the API.

const SVG = "http://www.w3.org/2000/svg";

/**
 * A new element. Attributes: `onclick` and its like are listeners, `style` an object of properties (also `--custom`), `dataset` an
 * object, `value` and `checked` properties; `true` is an empty attribute, and `false`, null and undefined are left out. Children: nodes, texts,
 * numbers, arrays of these; null, undefined and false are left out.
 */
export function h(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** As `h`, for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

/** Replace everything in an element. */
export function fill(element, ...children) {
  element.replaceChildren(...flatten(children));
  return element;
}

const PROPERTIES = new Set(["value", "checked", "indeterminate", "selected", "srcObject"]);

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    // The policy forbids style attributes; properties are allowed.
    else if (name === "style") for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...flatten(children));
  return element;
}

function flatten(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

let numbers = 0;

/** An id that no other element has. */
export function newId(prefix = "id") {
  numbers += 1;
  return `${prefix}-${numbers}`;
}

/** A symbol of the set below; it says nothing that the text next to it does not say. */
export function icon(name) {
  const paths = ICONS[name].map((d) => svg("path", { d }));
  return svg(
    "svg",
    { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    paths,
  );
}

const ICONS = {
  add: ["M12 5v14M5 12h14"],
  check: ["M5 12.5l4.5 4.5L19 7"],
  close: ["M6 6l12 12M18 6L6 18"],
  copy: ["M9 9h11v11H9z", "M5 15H4V4h11v1"],
  download: ["M12 4v11M7 11l5 5 5-5", "M5 20h14"],
  folder: ["M3 7a2 2 0 012-2h4l2 2h8a2 2 0 012 2v8a2 2 0 01-2 2H5a2 2 0 01-2-2z"],
  history: ["M4 12a8 8 0 108-8 8 8 0 00-6 2.7L4 9", "M4 4v5h5", "M12 8v4l3 2"],
  images: ["M4 5h16v14H4z", "M4 16l5-5 4 4 3-3 4 4", "M15 9h.01"],
  key: ["M8 11a4 4 0 100 8 4 4 0 000-8z", "M11 12.2L20 4M17 6.8l2.5 2.5"],
  lock: ["M6 11h12v9H6z", "M8.5 11V8a3.5 3.5 0 017 0v3"],
  moon: ["M20 14.5A8 8 0 119.5 4a6.5 6.5 0 0010.5 10.5z"],
  search: ["M11 4a7 7 0 100 14 7 7 0 000-14z", "M16 16l4.5 4.5"],
  sun: ["M12 8a4 4 0 100 8 4 4 0 000-8z", "M12 2v2M12 20v2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M2 12h2M20 12h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4"],
  user: ["M12 12a4 4 0 100-8 4 4 0 000 8z", "M4 20c1-4 4.5-5.5 8-5.5s7 1.5 8 5.5"],
  warning: ["M12 4L2.5 20h19z", "M12 10v4M12 17h.01"],
};
