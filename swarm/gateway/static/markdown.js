// Markdown as elements. `marked` takes a text apart; the elements are made here, of text alone and of the kinds
// below. No HTML that a model writes is ever parsed, links lead to the web or to nowhere, and pictures are links.

import { element, quietButton } from "./dom.js";
import { Lexer, Marked, Tokenizer } from "./vendor/marked.esm.js";

const MAX_INLINE = 4000; // characters of one paragraph; some patterns of `marked` take quadratic time
const MAX_FORMULA = 1000; // characters
const MAX_DEPTH = 12; // of quotes and lists within each other, and of emphasis
const WEB = ["http:", "https:", "mailto:"];

// Formulas stay as they were written: their underscores, asterisks and backslashes are not Markdown.

function blockFormulaAt(text) {
  const end = { "$$": "$$", "\\[": "\\]" }[text.slice(0, 2)];
  const near = text.slice(0, MAX_FORMULA);
  const at = end ? near.indexOf(end, 2) : -1;
  const within = near.slice(2, at).trim();
  const after = near.slice(at + 2).match(/^ *(?:\n|$)/);
  if (at < 0 || !within || !after || /\n[ \t]*\n/.test(within)) return undefined;
  return { type: "blockFormula", raw: near.slice(0, at + 2 + after[0].length), text: within };
}

const blockFormula = {
  name: "blockFormula",
  level: "block",
  tokenizer: blockFormulaAt,
  start: (text) => Array.from(text.matchAll(/\n(?=\$\$|\\\[)/g), ({ index }) => index + 1).find((index) => blockFormulaAt(text.slice(index))),
};

const inlineFormula = {
  name: "inlineFormula",
  level: "inline",
  start: (text) => text.match(/\$|\\[([]/)?.index,
  tokenizer(text) {
    const found = text.slice(0, MAX_FORMULA).match(/^(?:\$\$?(?=[^\s$])([^\n$]*[^\s$\\])\$\$?(?!\d)|\\\(([^\n]+?)\\\)|\\\[([^\n]+?)\\\])/);
    return found ? { type: "inlineFormula", raw: found[0], text: (found[1] ?? found[2] ?? found[3]).trim() } : undefined;
  },
};

const { defaults } = new Marked({ gfm: true, breaks: true }).use({ extensions: [blockFormula, inlineFormula] });

/** Quotes and lists that are nested too deeply are text: each level reads all that is within it again. */
class BoundedTokenizer extends Tokenizer {
  depth = 0;

  blockquote(text) {
    return this.nested(() => super.blockquote(text));
  }

  list(text) {
    return this.nested(() => super.list(text));
  }

  nested(read) {
    if (this.depth >= MAX_DEPTH) return undefined;
    this.depth += 1;
    const token = read();
    this.depth -= 1;
    return token;
  }
}

/** A piece of Markdown, taken apart. */
export class Markdown {
  /** `links` are the targets of links that other pieces define, by name. */
  constructor(text, links) {
    this.lexer = new Lexer({ ...defaults, tokenizer: new BoundedTokenizer() });
    Object.assign(this.lexer.tokens.links, links);
    this.tokens = this.lexer.blockTokens(text, []);
    this.lexer.inlineQueue.length = 0; // inline text is read when it is drawn, and bounded
  }

  /** The element of a block, or null for one that shows nothing. */
  block(token, depth = 0) {
    return this[`_${token.type}`]?.(token, depth) ?? null;
  }

  blocks(tokens, depth) {
    return tokens.map((token) => this.block(token, depth)).filter(Boolean);
  }

  inline(text) {
    return text.length > MAX_INLINE ? [text] : inlines(this.lexer.inlineTokens(text, []), 0);
  }

  _heading({ text, depth: size }, depth) {
    if (!text) return null;
    const place = depth ? "p" : `h${size}`; // one within a list is no heading of the whole
    return element(place, { class: "heading", "data-size": size }, ...this.inline(text));
  }

  _paragraph({ text }) {
    return element("p", {}, ...this.inline(text));
  }

  _text(token) {
    return this._paragraph(token);
  }

  _html({ raw }) {
    return plain(raw);
  }

  _blockFormula({ text }) {
    return element("p", { class: "formula" }, element("code", {}, text));
  }

  _hr() {
    return element("hr");
  }

  _code({ text, lang }) {
    const head = element("div", { class: "head" }, element("span", {}, lang?.match(/^\S{1,30}/)?.[0] ?? "text"), quietButton("copy-code", "Copy"));
    return element("div", { class: "code" }, head, element("pre", { tabindex: 0 }, element("code", {}, text)));
  }

  _blockquote({ tokens }, depth) {
    return element("blockquote", {}, ...this.blocks(tokens, depth + 1));
  }

  _list({ ordered, start, loose, items }, depth) {
    const kind = ordered ? "ol" : "ul";
    const attributes = { class: loose ? "loose" : null, start: ordered && start !== 1 ? start : null };
    return element(kind, attributes, ...items.map((item) => this.item(item, depth + 1)));
  }

  item({ task, checked, tokens }, depth) {
    if (!task) return element("li", {}, ...this.blocks(tokens, depth));
    const [first, ...rest] = tokens.filter(({ type }) => type !== "checkbox");
    const text = (checked ? "☑ " : "☐ ") + (first?.text ?? "").replace(/^\[[ x]\]\s*/i, "");
    return element("li", { class: "task" }, ...this.blocks([{ ...first, type: "text", text }, ...rest], depth));
  }

  _table({ header, rows }) {
    const row = (cells, tag) => element("tr", {}, ...cells.map((cell) => this.cell(cell, tag)));
    const table = element("table", {}, element("thead", {}, row(header, "th")), element("tbody", {}, ...rows.map((cells) => row(cells, "td"))));
    return element("div", { class: "wide", tabindex: 0, role: "group", "aria-label": "Table" }, table);
  }

  cell({ text, align }, tag) {
    return element(text ? tag : "td", { "data-align": align, scope: tag === "th" && text && "col" }, ...this.inline(text));
  }
}

const plain = (text) => element("p", { class: "plain" }, text.trimEnd());

// Inline text.

const inlines = (tokens, depth) => tokens.map((token) => inline(token, depth));

function inline(token, depth) {
  const make = depth < MAX_DEPTH && INLINE[token.type];
  return make ? make(token, depth + 1) : token.raw;
}

const INLINE = {
  text: ({ text }) => decoded(text),
  escape: ({ text }) => text,
  br: () => element("br"),
  html: ({ raw }) => (/^<br ?\/?>$/i.test(raw) ? element("br") : raw),
  strong: ({ tokens }, depth) => element("strong", {}, ...inlines(tokens, depth)),
  em: ({ tokens }, depth) => element("em", {}, ...inlines(tokens, depth)),
  del: ({ tokens }, depth) => element("del", {}, ...inlines(tokens, depth)),
  codespan: ({ text }) => element("code", {}, text),
  inlineFormula: ({ text }) => element("code", { class: "formula" }, text),
  link: ({ href, tokens }, depth) => link(href, inlines(tokens, depth)),
  image: ({ href, text }) => link(href, [`Picture: ${decoded(text) || href}`]),
};

function link(target, children) {
  const href = webAddress(decoded(target));
  if (!href) return element("span", {}, ...children);
  return element("a", { href, title: href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}

function webAddress(target) {
  try {
    const url = new URL(target);
    return WEB.includes(url.protocol) ? url.href : null;
  } catch {
    return null; // relative, or no address at all
  }
}

const NAMED = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", hellip: "…", mdash: "—", ndash: "–", lsquo: "‘", rsquo: "’",
  ldquo: "“", rdquo: "”", bull: "•", middot: "·", deg: "°", times: "×", divide: "÷", minus: "−", plusmn: "±", le: "≤", ge: "≥", ne: "≠",
  asymp: "≈", infin: "∞", larr: "←", rarr: "→", euro: "€", pound: "£",
};

/** Character references as the characters; those that are not known stay as they are. */
function decoded(text) {
  return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|([a-z]{2,8}));/gi, (raw, decimal, hex, name) => {
    if (name) return Object.hasOwn(NAMED, name) ? NAMED[name] : raw;
    const code = decimal ? Number(decimal) : parseInt(hex, 16);
    return code && code <= 0x10ffff ? String.fromCodePoint(code) : "\ufffd";
  });
}
