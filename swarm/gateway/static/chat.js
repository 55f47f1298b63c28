// The chat: conversations that live in this browser, their answers streamed token by token.

import { Conversation } from "./conversation.js";
import { byId, copy, element, figures, fit, layers, ms, say, shortId, trouble } from "./dom.js";
import { colour, showFates } from "./fates.js";
import { Attachments } from "./files.js";
import { events, request, sentence, Trouble } from "./gateway.js";
import { entries, Meter, summary } from "./meter.js";
import { Past } from "./past.js";
import * as store from "./store.js";
import { TurnView } from "./turns.js";

const OPEN = "swarm-conversation"; // its id, for as long as this tab lives
const NEAR_END_PX = 80; // a reader who has scrolled up further stays there
const SAVE_EVERY_MS = 2000; // while an answer is written
const COPIED_MS = 2000;
const LEFT = "Broken off: the page was left.";
const WIDE = matchMedia("(min-width: 60rem)");

const log = byId("log");
const prompt = byId("prompt");
const attachments = new Attachments();
const past = new Past({ open, rename, remove, clear });

let talk = new Conversation();
let views = new Map(); // of the turns that are shown
let running = null; // the AbortController of the answer that is being written

// Questions and answers.

async function send() {
  await opened;
  const text = prompt.value.trim();
  if (running || !(text || attachments.files.length) || !byId("ask").reportValidity()) return;
  const files = attachments.take();
  setPrompt("");
  ask({ text, files }, talk.path.at(-1), () => {
    if (!prompt.value) setPrompt(text);
    attachments.set([...files, ...attachments.files]);
  });
}

/** Ask after the turn `parent`, or as a first question. If no answer comes, withdraw the question and call `nothing`. */
function ask({ text, files }, parent, nothing) {
  const undo = talk.checkpoint();
  const asked = talk.add({ role: "user", text, ...(files?.length && { files }) }, parent);
  answer(asked, undo, nothing);
}

async function answer(asked, undo, nothing = () => {}) {
  const ours = talk;
  const turn = talk.add({ role: "assistant", text: "", pieces: [], note: LEFT }, asked);
  const controller = new AbortController();
  ours.changed = Date.now();
  trouble("");
  draw();
  log.scrollTop = log.scrollHeight;
  run(controller);
  save(ours);
  try {
    await stream(ours, views.get(turn), controller.signal);
    if (turn.note === LEFT) turn.note = ""; // no figures came
    say(byId("said"), "The answer is complete.");
  } catch (error) {
    turn.note = error.name === "AbortError" ? "Stopped." : "Broken off.";
    if (error.name !== "AbortError") tell(error);
  } finally {
    if (running === controller) run(null);
    const came = turn.text || turn.thoughts;
    if (!came) undo();
    ours.changed = Date.now();
    save(ours);
    if (talk === ours) end(views.get(turn), came, nothing);
  }
}

function end(view, came, nothing) {
  follow(() => view.finish());
  draw();
  if (!came) nothing();
}

/** Stream the last answer of a conversation into its view. Throws a Trouble, or an AbortError. */
async function stream(conversation, view, signal) {
  if (!byId("model").value) await offerModels();
  const meter = new Meter();
  const body = { ...settings(), messages: conversation.messages, stream: true, stream_options: { include_usage: true }, explain: true };
  const headers = { "Content-Type": "application/json" };
  const response = await request("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  let saved = performance.now();
  for await (const chunk of events(response)) {
    if (chunk.error) throw new Trouble(sentence(chunk.error.message));
    const { route, pieces, stats } = chunk.swarm ?? {};
    if (route) showRoute(route);
    const { content: text = "", reasoning_content: thought } = chunk.choices?.[0]?.delta ?? {};
    if (thought) view.think(thought);
    if (text || pieces?.length) {
      // a token's own text may belong to the thoughts, or mark where they end
      if (text || !thought) view.add(text ?? "", kept(pieces, text ?? ""));
      meter.add(pieces ?? [{ origin: "target" }]);
      figures(byId("figures"), meter.figures());
    }
    if (stats) {
      figures(byId("figures"), meter.measured(stats));
      view.turn.note = summary(stats, meter.acceptance);
    }
    if (performance.now() - saved < SAVE_EVERY_MS) continue;
    saved = performance.now();
    save(conversation);
  }
}

/** Return a chunk's tokens, as they are stored. Their texts are the chunk's, which leaves out thoughts and marks. */
function kept(pieces, text) {
  if (!pieces?.length) return [{ text, origin: "target" }];
  const slim = pieces.map(({ text, origin, instead_of, deficit_nats, reason }) => ({ text, origin, instead_of, deficit_nats, reason }));
  return slim.map((piece) => piece.text).join("") === text ? slim : [{ ...slim.at(-1), text }];
}

function settings() {
  const chosen = { model: byId("model").value, verify: byId("verify").value };
  for (const name of ["temperature", "max_tokens", "seed"]) if (byId(name).value) chosen[name] = byId(name).valueAsNumber;
  return chosen;
}

function run(controller) {
  running = controller;
  log.setAttribute("aria-busy", controller !== null);
  byId("send").hidden = controller !== null;
  byId("stop").hidden = controller === null;
  if ([byId("send"), byId("stop"), document.body].includes(document.activeElement)) prompt.focus();
}

// The buttons of a turn.

const ACTS = {
  edit: (turn) => edit(turn),
  retry: (turn) => answer(talk.parentOf(turn), talk.checkpoint()),
  copy: (turn, button) => copied(button, turn.text.trim()),
  "copy-code": (_, button) => copied(button, button.closest(".code").querySelector("code").textContent),
  earlier: (turn) => showVersion(turn, -1),
  later: (turn) => showVersion(turn, 1),
};

function edit(turn, text) {
  const { files } = turn;
  views.get(turn).edit((changed) => ask({ text: changed, files }, talk.parentOf(turn), () => edit(turn, changed)), text);
}

async function copied(button, text) {
  try {
    await copy(text);
  } catch {
    return trouble("This browser did not let the text be copied; select it, and copy it by hand.");
  }
  say(button, "Copied");
  say(byId("said"), "Copied.");
  setTimeout(() => say(button, "Copy"), COPIED_MS);
}

function showVersion(turn, step) {
  const versions = talk.versions(turn);
  const other = versions[versions.indexOf(turn) + step];
  if (!other) return;
  talk.show(other);
  draw();
  const shown = views.get(other).versions;
  (shown.querySelector(`[data-act=${step < 0 ? "earlier" : "later"}]:enabled`) ?? shown.querySelector(":enabled")).focus();
  save();
}

// Drawing a conversation.

function draw() {
  const byFate = byId("fates").checked;
  const known = views;
  views = new Map(talk.path.map((turn) => [turn, known.get(turn) ?? viewOf(turn, byFate)]));
  for (const [turn, view] of known) if (!views.has(turn)) view.element.remove();
  for (const [turn, view] of views) {
    view.offer(talk.versions(turn));
    if (!view.element.isConnected) log.append(view.element);
  }
  byId("empty").hidden = views.size > 0;
  colour(log);
}

function viewOf(turn, byFate) {
  const view = new TurnView(turn, follow);
  view.draw(byFate);
  if (turn.text || turn.thoughts) view.finish();
  return view;
}

function follow(change) {
  const near = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END_PX;
  change();
  if (near) log.scrollTop = log.scrollHeight;
}

function showRoute(route) {
  byId("no-route").hidden = route.length > 0;
  byId("route").replaceChildren(
    element("li", { class: "you" }, "You"),
    ...route.map((stop) =>
      element(
        "li",
        {},
        element("span", { class: "id", title: stop.peer_id }, shortId(stop.peer_id)),
        element("span", {}, layers(stop.layers)),
        element("span", { class: "ms" }, `${ms(stop.rtt_ms)} ms`),
      ),
    ),
    element("li", { class: "you" }, "You"),
  );
}

// Conversations.

async function save(what = talk) {
  if (what.removed) return;
  try {
    await (what.turns.length ? store.write(what) : store.remove(what.id));
    await list();
  } catch (error) {
    tell(error);
  }
}

async function list() {
  past.show(await store.titles(), talk.id);
}

/** Replace the open conversation by another one; an answer that is being written ends. */
function take(conversation) {
  running?.abort();
  run(null);
  talk = conversation;
  sessionStorage.setItem(OPEN, talk.id);
  trouble("");
  draw();
  log.scrollTop = log.scrollHeight;
  fold(null);
  prompt.focus();
}

async function open(id) {
  try {
    const found = await store.read(id);
    if (found && id !== talk.id) take(new Conversation(found));
    await list();
  } catch (error) {
    tell(error);
  }
}

/** Show what other tabs have written in the meantime. */
async function catchUp() {
  try {
    const found = running ? null : await store.read(talk.id);
    if (found?.changed > talk.changed) take(new Conversation(found));
    await list();
  } catch (error) {
    tell(error);
  }
}

async function rename(id, title) {
  if (id === talk.id) talk.title = title;
  const found = id === talk.id ? talk : await store.read(id).catch(tell);
  if (found) await save(Object.assign(found, { title }));
}

async function remove(id) {
  if (id === talk.id) startAnew();
  await store.remove(id).then(list).catch(tell);
}

async function clear() {
  startAnew();
  await store.clear().then(list).catch(tell);
}

/** Begin a new conversation. The open one is not stored any more. */
function startAnew() {
  talk.removed = true;
  take(new Conversation());
}

/** Fold the panels that lie over the conversation in a narrow window, unless `target` is within one. */
function fold(target) {
  if (WIDE.matches) return;
  for (const side of [byId("past"), byId("beside")]) if (!side.contains(target)) side.open = false;
}

// The form.

function setPrompt(text) {
  prompt.value = text;
  fit(prompt);
}

async function attach(files) {
  trouble("");
  await attachments.add(files).catch(tell);
  prompt.focus();
}

async function offerModels() {
  const { data } = await (await request("/v1/models")).json();
  byId("model").replaceChildren(...data.map(({ id }) => element("option", {}, id)));
}

function tell(error) {
  if (!(error instanceof Trouble)) throw error;
  trouble(error.message);
}

prompt.addEventListener("input", () => fit(prompt));
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
byId("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  running?.abort();
  fold(null);
});
for (const name of ["pointerdown", "focusin"]) document.addEventListener(name, ({ target }) => fold(target));
byId("new").addEventListener("click", () => {
  take(new Conversation());
  list().catch(tell);
});
byId("attach").addEventListener("click", () => byId("chosen").click());
byId("chosen").addEventListener("change", async ({ target }) => {
  await attach([...target.files]);
  target.value = "";
});
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    if (name === "drop") attach([...event.dataTransfer.files]);
  });
}
byId("examples").addEventListener("click", (event) => {
  if (event.target.tagName !== "BUTTON") return;
  setPrompt(event.target.textContent);
  prompt.focus();
});
log.addEventListener("click", ({ target }) => {
  const view = [...views.values()].find((each) => each.element.contains(target));
  if (view && !running) ACTS[target.dataset.act]?.(view.turn, target);
});
document.addEventListener("visibilitychange", () => document.hidden || catchUp());

for (const name of ["past", "beside"]) byId(name).open = WIDE.matches;
figures(byId("figures"), entries(null, null, null, null, null));
showFates(log, (byFate) => views.forEach((view) => view.draw(byFate)));
const opened = open(sessionStorage.getItem(OPEN) ?? "").then(() => sessionStorage.setItem(OPEN, talk.id));
offerModels().catch(tell);
prompt.focus();
