// Conversations, kept in this browser: their titles apart from what was said, so that a list is read fast.

import { Trouble } from "./gateway.js";

const DATABASE = "swarm-chat";
const TITLES = "titles";
const TURNS = "turns";
export const MAX_CONVERSATIONS = 200; // the oldest give way
const MAX_CHARS = 4_000_000; // of one conversation
const GONE = "it is gone when you leave this page";

let opening = null;

/** Return {id, title, changed} of all conversations, newest first. */
export async function titles() {
  const found = await transact("readonly", (at) => at(TITLES).getAll());
  return found.sort((one, other) => other.changed - one.changed);
}

/** Return a conversation as it was stored, or null. */
export async function read(id) {
  const title = await transact("readonly", (at) => at(TITLES).get(id));
  return title ? { ...title, ...(await transact("readonly", (at) => at(TURNS).get(id))) } : null;
}

/** Store a conversation; without its tokens' fates if they make it too long. Throws a Trouble. */
export async function write({ id, title, changed, turns, last }) {
  let kept = turns;
  for (const slim of [(turn) => turn, ({ pieces, ...turn }) => turn, null]) {
    if (!slim) throw new Trouble(`This conversation has become too long to be kept; ${GONE}.`);
    kept = turns.map(slim);
    if (JSON.stringify(kept).length <= MAX_CHARS) break;
  }
  await transact("readwrite", (at) => {
    at(TURNS).put({ id, turns: kept, last });
    return at(TITLES).put({ id, title, changed });
  });
  for (const old of (await titles()).slice(MAX_CONVERSATIONS)) await remove(old.id);
}

export function remove(id) {
  return transact("readwrite", (at) => {
    at(TURNS).delete(id);
    return at(TITLES).delete(id);
  });
}

export function clear() {
  return transact("readwrite", (at) => {
    at(TURNS).clear();
    return at(TITLES).clear();
  });
}

/** Run `act` in one transaction. Return the result of the request that it returns, once all is written. Throws a Trouble. */
async function transact(mode, act) {
  try {
    const database = await (opening ??= open());
    return await new Promise((done, failed) => {
      const transaction = database.transaction([TITLES, TURNS], mode);
      const asked = act((name) => transaction.objectStore(name));
      transaction.oncomplete = () => done(asked.result);
      transaction.onabort = () => failed(transaction.error);
    });
  } catch (error) {
    if (error?.name === "QuotaExceededError") throw new Trouble(`This browser has no room left. Delete conversations, or ${GONE}.`);
    throw new Trouble(`This browser does not keep conversations (${error?.name ?? "no reason given"}); ${GONE}.`);
  }
}

function open() {
  return new Promise((done, failed) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => [TITLES, TURNS].forEach((name) => request.result.createObjectStore(name, { keyPath: "id" }));
    request.onsuccess = () => {
      request.result.onversionchange = () => request.result.close();
      done(request.result);
    };
    request.onerror = () => failed(request.error);
  });
}
