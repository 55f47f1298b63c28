// The list of conversations that this browser keeps.

import { ask } from "./dialog.js";
import { become, byId, element, plural, quietButton } from "./dom.js";

export class Past {
  /** `acts` are {open(id), rename(id, title), remove(id), clear()}; each may return a promise. */
  constructor(acts) {
    this.acts = acts;
    this.titles = [];
    byId("list").addEventListener("click", ({ target }) => {
      const title = this.titles.find(({ id }) => id === target.closest("li")?.dataset.id);
      if (title && target.dataset.act) this[target.dataset.act](title);
    });
    byId("clear").addEventListener("click", () => this.clear());
  }

  /** Show the list. The conversation with the id `current` is the open one. */
  show(titles, current) {
    this.titles = titles;
    byId("clear").hidden = !titles.length;
    if (byId("list").querySelector("form")) return; // a name is being edited
    become(
      byId("list"),
      titles.map(({ id, title }) => {
        const open = element("button", { type: "button", class: "quiet", "data-act": "open", title, "aria-current": id === current && "true" }, title);
        const acts = element("span", { class: "acts" }, quietButton("rename", "Rename"), quietButton("remove", "Delete"));
        return element("li", { "data-id": id }, open, ...(id === current ? [acts] : []));
      }),
    );
  }

  open({ id }) {
    this.acts.open(id);
  }

  rename({ id, title }) {
    const row = [...byId("list").children].find((each) => each.dataset.id === id);
    const field = element("input", { type: "text", maxlength: 100, "aria-label": "Name of the conversation" });
    const form = element("form", {}, field);
    const done = async (name, focus) => {
      if (!form.isConnected) return;
      row.replaceChildren();
      await this.acts.rename(id, name || title);
      if (focus) byId("list").querySelector("[aria-current]")?.focus();
    };
    field.value = title;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      done(field.value.trim(), true);
    });
    form.addEventListener("keydown", (event) => event.key === "Escape" && done(title, true));
    field.addEventListener("blur", () => done(field.value.trim(), false));
    row.replaceChildren(form);
    field.select();
  }

  async remove({ id, title }) {
    if (await ask("Delete this conversation?", `“${title}” is removed from this browser for good.`, "Delete")) this.acts.remove(id);
  }

  async clear() {
    const all = plural(this.titles.length, "conversation", "conversations");
    if (await ask("Delete all conversations?", `${all} ${this.titles.length === 1 ? "is" : "are"} removed from this browser for good.`, "Delete all")) this.acts.clear();
  }
}
