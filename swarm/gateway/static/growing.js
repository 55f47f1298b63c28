// Markdown that grows. Blocks that can no longer change are drawn once; only the last one is read again, and what
// has not changed of its elements stays, so that nothing flickers and a selection survives.

import { become, element } from "./dom.js";
import { Markdown } from "./markdown.js";

const MAX_OPEN = 8000; // characters that are read again with every change; a longer list is continued as another one
const SLICE = MAX_OPEN / 2;
const SHARE = 8; // drawing may take one part of this many of the time
const TOP = 3; // the page has h1, every turn h2

export class GrowingMarkdown {
  /** Draw in `place`, by `around(draw)`: it calls `draw`, and may do more before and after. */
  constructor(place, around = (draw) => draw()) {
    this.place = place;
    this.around = around;
    this.text = "";
    this.timer = null;
    this.took = 0;
    this.begin();
  }

  begin(links = Object.create(null)) {
    this.links = links; // their targets, by name: of blocks that have settled,
    this.defined = links; // and of all
    this.read = 0; // characters of the text that have been taken into `open`
    this.open = ""; // what may still change
    this.settled = 0; // children that will not change any more
    this.level = TOP - 1; // of the last heading among them
  }

  /** Add text. It is drawn in one of the next frames. */
  add(text) {
    this.text += text.replaceAll("\r", "");
    this.timer ??= setTimeout(() => requestAnimationFrame(() => this.timer && this.draw()), this.took * SHARE);
  }

  /** Draw the whole text now. */
  finish() {
    this.draw();
    if (!Object.keys(this.defined).length) return;
    this.begin(this.defined); // a link may be used before its target is defined
    this.draw();
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = null;
    const began = performance.now();
    this.around(() => {
      while (this.read < this.text.length) {
        this.open += this.text.slice(this.read, this.read + SLICE);
        this.read = Math.min(this.read + SLICE, this.text.length);
        this.drawOpen();
      }
    });
    this.took = performance.now() - began;
  }

  drawOpen() {
    for (;;) {
      const blocks = blocksOf(this.open, this.links);
      const done = lastBegun(blocks, this.open);
      this.put(blocks, done);
      if (this.open.length <= MAX_OPEN || blocks[done].type === "code") return;
      const cut = cutOf(this.open);
      const rest = this.open.slice(cut);
      this.open = this.open.slice(0, cut);
      const cutOff = blocksOf(this.open, this.links);
      this.put(cutOff, cutOff.length);
      this.open = rest;
    }
  }

  /** Show `blocks`, all that is open. The first `done` of them will not change any more. */
  put(blocks, done) {
    const nodes = [];
    let level = this.level;
    let length = 0;
    let settled = 0;
    for (const [at, { raw, node }] of blocks.entries()) {
      const shown = node && levelled(node, level);
      if (shown) nodes.push(shown);
      level = levelOf(shown) ?? level;
      if (at >= done) continue;
      length += raw.length;
      settled = nodes.length;
      this.level = level;
    }
    become(this.place, nodes, this.settled);
    this.settled += settled;
    this.open = this.open.slice(length);
    this.defined = linksOf(blocks, this.links);
    this.links = linksOf(blocks.slice(0, done), this.links);
  }
}

/** Draw a whole text. */
export function drawMarkdown(place, text) {
  const growing = new GrowingMarkdown(place);
  growing.text = text.replaceAll("\r", "");
  growing.finish();
}

/** Blocks with their elements. A text that `marked` cannot read is one block, as it was written. */
function blocksOf(text, links) {
  try {
    const markdown = new Markdown(text, links);
    return markdown.tokens.map((token) => ({ token, type: token.type, raw: token.raw, node: markdown.block(token) }));
  } catch {
    return [{ type: "plain", raw: text, node: element("p", { class: "plain" }, text) }];
  }
}

/** Return the index of the last block that has surely begun. The blocks before it can no longer change. */
function lastBegun(blocks, text) {
  let begins = blocks.reduce((sum, { raw }) => sum + raw.length, 0);
  if (begins !== text.length) return 0;
  for (let at = blocks.length - 1; at > 0; at -= 1) {
    begins -= blocks[at].raw.length;
    if (blocks[at].type !== "space" && hasBegun(blocks[at], text.slice(begins))) return at;
  }
  return 0;
}

/** Tell whether no more text can make another kind of block of this one: its first line is complete. */
function hasBegun({ type, raw }, text) {
  const line = text.indexOf("\n");
  if (type === "table") return line >= 0 && text.includes("\n", line + 1); // it begins with two lines
  if (type === "blockFormula") return text.includes("\n", raw.trimEnd().length); // its end is followed by nothing else
  return line >= 0;
}

/** `links`, and those that blocks define; the first definition of a name counts. */
function linksOf(blocks, links) {
  const found = Object.assign(Object.create(null), links);
  for (const { type, token } of blocks) if (type === "def") found[token.tag] ??= { href: token.href, title: token.title };
  return found;
}

/** Where to cut a block that has become too long: before the last line that begins at the margin. */
function cutOf(text) {
  for (let at = text.lastIndexOf("\n", MAX_OPEN - 1); at > 0; at = text.lastIndexOf("\n", at - 1)) if (/\S/.test(text[at + 1])) return at + 1;
  return MAX_OPEN;
}

// Headings go down one level at a time, whichever levels the model uses, so that a screen reader can follow.

function levelled(node, last) {
  if (!/^H[1-6]$/.test(node.tagName)) return node;
  const level = Math.min(Number(node.dataset.size) + TOP - 1, last + 1, 6);
  return element(`h${level}`, { class: node.className, "data-size": node.dataset.size }, ...node.childNodes);
}

const levelOf = (node) => (/^H[1-6]$/.test(node?.tagName) ? Number(node.tagName[1]) : null);
