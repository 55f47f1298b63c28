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

/** Change a text only where it differs, so that selections and screen readers are left alone. */
export function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
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
