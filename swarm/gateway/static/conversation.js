// A conversation is a tree of turns. To edit a question or to retry an answer adds a version beside the old one.

const TITLE = 60; // characters of the first question

export class Conversation {
  /** `turns` are {role, text, parent, files, thoughts, pieces, note}; a turn's parent comes before it. */
  constructor({ id = newId(), title = "", changed = 0, turns = [], last = null } = {}) {
    this.id = id;
    this.title = title;
    this.changed = changed;
    this.turns = turns;
    this.last = last; // the index of the last turn that is shown
  }

  /** The turns that are shown, first to last. */
  get path() {
    const path = [];
    for (let at = this.last; at !== null; at = this.turns[at].parent) path.unshift(this.turns[at]);
    return path;
  }

  /** Add a turn behind another one, or as a first one, and show it. */
  add(turn, parent) {
    turn.parent = parent ? this.turns.indexOf(parent) : null;
    this.turns.push(turn);
    this.last = this.turns.length - 1;
    this.title ||= titleOf(this.turns[0]);
    return turn;
  }

  parentOf(turn) {
    return turn.parent === null ? null : this.turns[turn.parent];
  }

  /** Return the versions of a turn, itself included, oldest first. */
  versions(turn) {
    return this.turns.filter(({ parent }) => parent === turn.parent);
  }

  /** Show a turn, and the newest turns after it. */
  show(turn) {
    let at = this.turns.indexOf(turn);
    for (let next = at; next >= 0; next = this.turns.findLastIndex(({ parent }) => parent === at)) at = next;
    this.last = at;
  }

  /** Return a function that removes all turns added from now on. */
  checkpoint() {
    const { title, last } = this;
    const { length } = this.turns;
    return () => {
      this.turns.length = length;
      this.last = last;
      this.title = title;
    };
  }

  /** The turns as the gateway takes them, without the answer that is yet to be written. */
  get messages() {
    return this.path.slice(0, -1).map((turn) => ({ role: turn.role, content: contentOf(turn) }));
  }
}

/** The text of a turn, with its files before it. */
const contentOf = ({ text, files = [] }) => [...files.map(quoted), text].filter(Boolean).join("\n\n");

function quoted({ name, text }) {
  const longest = (text.match(/`+/g) ?? []).reduce((most, run) => Math.max(most, run.length), 2);
  const fence = "`".repeat(longest + 1);
  return `${name}:\n${fence}\n${text}${text.endsWith("\n") ? "" : "\n"}${fence}`;
}

function titleOf({ text, files = [] }) {
  const line = (text || files[0]?.name || "").replace(/\s+/g, " ").trim();
  return line.length > TITLE ? `${line.slice(0, TITLE - 1)}…` : line;
}

/** Browsers offer `crypto.randomUUID` with TLS or on this machine alone. */
const newId = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("");
