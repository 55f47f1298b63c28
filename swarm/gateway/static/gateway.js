// Asking the gateway: with an API key where it wants one, and reading its streams of events.

import { element, trouble } from "./dom.js";

const KEY = "swarm-key";
const SILENCE_MS = 30_000; // a live stream says something every few seconds
const RETRY_MS = [1000, 2000, 4000, 8000];

/** Something to tell the user as it is: one sentence with the next step. */
export class Trouble extends Error {}

class NoKey extends Trouble {}

/**
 * Fetch from the gateway. Where it asks for a key, ask for one and try again.
 * Throws a Trouble, or the AbortError of `options.signal`.
 */
export async function request(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Trouble("The gateway does not answer; see whether `swarm serve` still runs.");
    }
    if (response.ok) return response;
    if (response.status !== 401) throw new Trouble(await reason(response));
    if (sessionStorage.getItem(KEY) === key) await askForKey(key !== null);
  }
}

/** The JSON values of a stream of server-sent events, until it ends or says [DONE]. Throws a Trouble if it breaks. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.match(/^data: ?(.*)$/m)?.[1];
        if (data === "[DONE]") return;
        if (data) yield JSON.parse(data);
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The connection to the gateway broke; see whether `swarm serve` still runs.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Hand every state of a live stream to `show`, for as long as the page is looked at. */
export async function live(path, show) {
  for (let failures = 0; ; failures += 1) {
    await visible();
    const reading = new AbortController();
    const leave = () => document.hidden && reading.abort();
    document.addEventListener("visibilitychange", leave);
    let silence = setTimeout(() => reading.abort(), SILENCE_MS);
    try {
      for await (const state of events(await request(path, { signal: reading.signal }))) {
        clearTimeout(silence);
        silence = setTimeout(() => reading.abort(), SILENCE_MS);
        failures = 0;
        trouble("");
        show(state);
      }
      throw new Trouble("The gateway has stopped; start `swarm serve` again.");
    } catch (error) {
      if (error instanceof NoKey) return trouble(error.message);
      if (error instanceof Trouble) trouble(`${error.message} This page tries again by itself.`);
      else if (error.name !== "AbortError") throw error;
    } finally {
      clearTimeout(silence);
      document.removeEventListener("visibilitychange", leave);
    }
    if (!document.hidden) await new Promise((go) => setTimeout(go, RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]));
  }
}

function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((go) => document.addEventListener("visibilitychange", go, { once: true }));
}

/** What the gateway said was wrong, as a sentence. */
async function reason(response) {
  const said = (await response.json().catch(() => null))?.error?.message;
  return said ? sentence(said) : `The gateway answered ${response.status}; its log says more.`;
}

export function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

let asking = null;

/** Ask once for all requests that wait. Throws NoKey if none is given. */
function askForKey(wrong) {
  asking ??= new Promise((answered, refused) => {
    const field = element("input", { type: "password", id: "key", autocomplete: "off", required: true });
    const dialog = element(
      "dialog",
      { "aria-labelledby": "key-name" },
      element(
        "form",
        { method: "dialog" },
        element("h2", { id: "key-name" }, "This gateway asks for an API key"),
        element("p", {}, wrong ? "The one you gave is not valid." : "Ask the person who runs it for one. It is kept until you close this tab."),
        element("label", { for: "key" }, "API key"),
        field,
        element("div", {}, element("button", { type: "submit", class: "main", value: "use" }, "Use it")),
      ),
    );
    dialog.addEventListener("close", () => {
      const key = field.value.trim();
      dialog.remove();
      asking = null;
      if (dialog.returnValue !== "use" || !key) return refused(new NoKey("This gateway asks for an API key; load the page again to give one."));
      sessionStorage.setItem(KEY, key);
      answered();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}
