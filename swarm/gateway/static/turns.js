// A turn as it is seen: what was asked, with its files; or an answer, as Markdown or token by token.

import { element, fit, quietButton, say } from "./dom.js";
import { fateOf } from "./fates.js";
import { chip } from "./files.js";
import { GrowingMarkdown } from "./growing.js";

export class TurnView {
  /** `follow(change)` makes a change, and keeps the end of the conversation in sight if it was. */
  constructor(turn, follow) {
    const mine = turn.role === "user";
    this.turn = turn;
    this.follow = follow;
    this.text = element(mine ? "p" : "div", { class: "text" });
    this.note = element("p", { class: "note" });
    this.versions = element("span", { class: "versions" });
    this.growing = null;
    const acts = mine ? [quietButton("edit", "Edit")] : [quietButton("copy", "Copy"), quietButton("retry", "Retry")];
    const actions = element("div", { class: "actions" }, this.versions, ...acts, this.note);
    const name = element("h2", { class: "unseen" }, mine ? "You" : "Answer");
    const files = turn.files?.length ? [element("ul", { class: "files", "aria-label": "Files" }, ...turn.files.map((file) => element("li", {}, chip(file))))] : [];
    this.element = element("article", { class: turn.role }, name, ...files, ...thoughts(turn), this.text, actions);
    if (mine) this.text.append(turn.text);
    this.text.hidden = mine && !turn.text;
  }

  /** Draw an answer again: by the fates of its tokens, or as Markdown. */
  draw(byFate) {
    if (this.turn.role === "user") return;
    this.text.replaceChildren();
    this.text.classList.toggle("markdown", !byFate);
    this.growing = byFate ? null : new GrowingMarkdown(this.text, this.follow);
    if (this.growing) this.grow(this.turn.text).finish();
    else this.text.append(...tokens(this.turn.pieces ?? [{ text: this.turn.text }], true));
  }

  grow(text) {
    this.growing.add(this.growing.text ? text : text.trimStart());
    return this.growing;
  }

  think(text) {
    this.turn.thoughts = (this.turn.thoughts ?? "") + text;
    const thought = this.element.querySelector(".thought");
    if (thought) this.follow(() => thought.append(text));
    else this.text.before(...thoughts(this.turn));
  }

  /** Add text as it comes, with its tokens. */
  add(text, pieces) {
    const first = !this.turn.text;
    this.turn.text += text;
    this.turn.pieces.push(...pieces);
    if (first && this.turn.thoughts) say(this.element.querySelector(".thoughts summary"), "Thoughts");
    if (this.growing) this.grow(text);
    else this.follow(() => this.text.append(...tokens(pieces, first)));
  }

  /** Draw the rest of an answer, and its note. */
  finish() {
    say(this.note, this.turn.note ?? "");
    this.growing?.finish();
  }

  /** Offer the other versions of this turn. */
  offer(versions) {
    const at = versions.indexOf(this.turn);
    if (versions.length < 2) return this.versions.replaceChildren();
    const step = (act, sign, name, disabled) => quietButton(act, sign, { "aria-label": `${name} version`, disabled });
    this.versions.replaceChildren(
      step("earlier", "‹", "Earlier", at === 0),
      element("span", {}, `${at + 1} of ${versions.length}`),
      step("later", "›", "Later", at === versions.length - 1),
    );
  }

  /** Let a question be edited in its place; `send(text)` is called unless it is given up. */
  edit(send, text = this.turn.text) {
    if (this.element.querySelector("form")) return;
    const field = element("textarea", { "aria-label": "Edited message", rows: 1 });
    const form = element(
      "form",
      { class: "edit" },
      field,
      element("div", {}, element("button", { type: "button", "data-act": "cancel" }, "Cancel"), element("button", { type: "submit", class: "main" }, "Send")),
    );
    field.value = text;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!field.value.trim() && !this.turn.files) return;
      this.stopEditing();
      send(field.value.trim());
    });
    form.addEventListener("click", ({ target }) => target.dataset.act === "cancel" && this.stopEditing());
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.stopEditing();
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.target !== field) return;
      event.preventDefault();
      form.requestSubmit();
    });
    this.element.classList.add("editing");
    this.text.after(form);
    field.addEventListener("input", () => fit(field));
    fit(field);
    field.focus();
  }

  stopEditing() {
    this.element.querySelector("form")?.remove();
    this.element.classList.remove("editing");
    this.element.querySelector('[data-act="edit"]').focus();
  }
}

/** What the model thought, folded away. */
function thoughts(turn) {
  if (!turn.thoughts) return [];
  const text = element("p", { class: "thought" }, turn.thoughts);
  return [element("details", { class: "thoughts" }, element("summary", {}, turn.text ? "Thoughts" : "Thinking …"), text)];
}

/** Pieces of an answer as elements; the space that a first token often begins with is left out. */
function tokens(pieces, first) {
  return pieces.map((piece, at) => {
    const text = first && at === 0 ? piece.text.trimStart() : piece.text;
    return element("span", { class: "token", "data-fate": piece.origin, "data-said": fateOf(piece) || null }, text);
  });
}
