// Elements, made of text alone: nothing that a model or a peer says is ever read as HTML.

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children. Attributes that are false, null or undefined are left out. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  set(made, attributes);
  made.append(...children);
  return made;
}

export function set(target, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) target.removeAttribute(name);
    else if (target.getAttribute(name) !== String(value)) target.setAttribute(name, value === true ? "" : value);
  }
}

/** Make `nodes` the children of `parent` from the index `first` on. Elements that are alike stay in place. */
export function become(parent, nodes, first = 0) {
  const children = parent.childNodes;
  nodes.forEach((node, at) => {
    const old = children[first + at];
    if (old) change(old, node);
    else parent.append(node);
  });
  while (children.length > first + nodes.length) parent.lastChild.remove();
}

function change(old, node) {
  if (old.isEqualNode(node)) return;
  if (old.nodeType === Node.TEXT_NODE && node.nodeType === Node.TEXT_NODE) {
    if (node.data.startsWith(old.data)) old.appendData(node.data.slice(old.length));
    else old.data = node.data;
  } else if (old.nodeName === node.nodeName && old.attributes) {
    for (const { name } of [...old.attributes]) if (!node.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    become(old, [...node.childNodes]);
  } else {
    old.replaceWith(node);
  }
}

/** Change a text only where it differs, so that selections and screen readers are left alone. */
export function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** A button that is part of a text; what it does is named by `data-act`. */
export const quietButton = (act, text, attributes = {}) => element("button", { type: "button", class: "quiet", "data-act": act, ...attributes }, text);

/** Copy a text. Without TLS, browsers offer the clipboard on this machine's own addresses alone. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = element("textarea", { class: "unseen", "aria-hidden": "true" });
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

/** Make a text area as high as its text, up to what the style sheet allows. */
export function fit(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}

/** One sentence where errors are told; an empty one takes it away. */
export function trouble(text) {
  const place = byId("trouble");
  say(place, text);
  place.hidden = !text;
}

/** Terms and their values, kept from one call to the next. */
export function figures(list, entries) {
  const shown = new Map([...list.children].map((row) => [row.dataset.name, row]));
  for (const [name, value, unit] of entries) {
    let row = shown.get(name);
    if (!row) {
      row = element("div", { "data-name": name }, element("dt", {}, name), element("dd", {}, element("b"), element("span")));
      list.append(row);
    }
    say(row.querySelector("b"), value);
    say(row.querySelector("span"), value === NONE ? "" : unit);
  }
}

// How figures are written.

export const NONE = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (value) => (value == null ? NONE : value < 10_000 ? whole.format(value) : compact.format(value));
export const rate = (value) => (value == null ? NONE : value < 100 ? value.toFixed(1) : whole.format(value));
export const ms = rate;
export const percent = (share) => (share == null ? NONE : `${Math.round(share * 100)}`);
export const shortId = (id) => `…${id.slice(-8)}`;
export const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;

/** Layers [first, last) as people count them: both ends named. */
export const span = ([first, last]) => (last - first === 1 ? `${first}` : `${first}–${last - 1}`);
export const layers = ([first, last]) => `${last - first === 1 ? "layer" : "layers"} ${span([first, last])}`;

export function ago(seconds) {
  if (seconds == null) return "never";
  if (seconds < 3) return "now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}
