// Text files that are sent with a message.

import { byId, element, quietButton } from "./dom.js";
import { Trouble } from "./gateway.js";

const MAX_FILES = 8;
const MAX_BYTES = 256 * 1024; // of one file; long before that most models have no room for it

/** The files that wait to be sent, as chips. */
export class Attachments {
  constructor() {
    this.files = [];
    byId("files").addEventListener("click", ({ target }) => {
      const chips = [...byId("files").children];
      const at = chips.indexOf(target.closest("li"));
      if (target.dataset.act !== "leave-out" || at < 0) return;
      this.set(this.files.filter((_, other) => other !== at));
      byId("attach").focus();
    });
  }

  /** Throws a Trouble that names the file that cannot be sent; those before it are taken. */
  async add(chosen) {
    for (const file of chosen) {
      if (this.files.length >= MAX_FILES) throw new Trouble(`A message takes ${MAX_FILES} files at most.`);
      this.set([...this.files, await read(file)]);
    }
  }

  set(files) {
    this.files = files;
    byId("files").hidden = !files.length;
    byId("files").replaceChildren(...files.map((file) => element("li", {}, chip(file), quietButton("leave-out", "×", { "aria-label": `Leave out ${file.name}` }))));
  }

  take() {
    const { files } = this;
    this.set([]);
    return files;
  }
}

/** A file's name and size; its text is folded beneath. */
export function chip({ name, text }) {
  const size = element("span", { class: "size" }, bytes(new Blob([text]).size));
  return element("details", { class: "chip" }, element("summary", {}, name, " ", size), element("pre", { tabindex: 0 }, text));
}

const bytes = (n) => (n < 1000 ? `${n} bytes` : `${Math.round(n / 1000)} kB`);

async function read(file) {
  const name = file.name.replace(/[\s`]+/g, " ").trim().slice(0, 100) || "file";
  if (file.size > MAX_BYTES) throw new Trouble(`${name} has ${bytes(file.size)}; a file may have ${bytes(MAX_BYTES)} at most.`);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (text.includes("\0")) throw new TypeError("binary");
    return { name, text: text.replaceAll("\r\n", "\n") };
  } catch {
    throw new Trouble(`${name} is not a text file in UTF-8; save it as text first.`);
  }
}
