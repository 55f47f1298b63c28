// The chat: a conversation that lives in this tab, streamed token by token.

import { byId, count, element, figures, layers, ms, percent, plural, rate, say, shortId, trouble } from "./dom.js";
import { colour, fateOf, showFates } from "./fates.js";
import { events, request, sentence, Trouble } from "./gateway.js";

const KEPT = "swarm-chat";
const NEAR_END_PX = 80; // who has scrolled up further wants to read there

const log = byId("log");
const prompt = byId("prompt");

let turns = []; // {role, text, thoughts, pieces, note}
let running = null; // the AbortController of the answer that is being written

// One question and its answer.

async function ask() {
  const question = prompt.value.trim();
  if (!question || running || !byId("ask").reportValidity()) return;
  trouble("");
  const asked = { role: "user", text: question };
  const answer = { role: "assistant", text: "", pieces: [], note: "" };
  turns.push(asked, answer);
  setPrompt("");
  run(new AbortController());
  const shown = [show(asked), show(answer)];
  try {
    await stream(answer, shown[1], running.signal);
    say(byId("said"), "The answer is complete.");
  } catch (error) {
    if (error.name === "AbortError") answer.note = "Stopped.";
    else tell(error);
  } finally {
    run(null);
    if (answer.text) finish(answer, shown[1]);
    else giveBack(question, shown);
    keep();
  }
}

async function stream(answer, shown, signal) {
  if (!byId("model").value) await offerModels();
  const meter = new Meter();
  const body = { ...settings(), messages: messages(), stream: true, stream_options: { include_usage: true }, explain: true };
  const headers = { "Content-Type": "application/json" };
  const response = await request("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  for await (const chunk of events(response)) {
    if (chunk.error) throw new Trouble(sentence(chunk.error.message));
    const ours = chunk.swarm ?? {};
    if (ours.route) showRoute(ours.route);
    const { content, reasoning_content: thought } = chunk.choices?.[0]?.delta ?? {};
    const text = content ?? "";
    const pieces = ours.pieces ?? (text ? [{ text, origin: "target" }] : []);
    if (thought) think(answer, shown, thought);
    if (text || pieces.length) {
      // a token's own text may belong to the thoughts, or mark where they end
      if (text || !thought) add(answer, shown, text, pieces.map((piece) => ({ ...piece, text })));
      meter.add(pieces);
      figures(byId("figures"), meter.figures());
    }
    if (ours.stats) {
      figures(byId("figures"), meter.measured(ours.stats));
      answer.note = summary(ours.stats, meter.acceptance);
    }
  }
}

function settings() {
  const chosen = { model: byId("model").value, verify: byId("verify").value };
  for (const name of ["temperature", "max_tokens", "seed"]) if (byId(name).value) chosen[name] = byId(name).valueAsNumber;
  return chosen;
}

const messages = () => turns.filter((turn) => turn.text).map(({ role, text }) => ({ role, content: text }));

function run(controller) {
  running = controller;
  log.setAttribute("aria-busy", controller !== null);
  byId("send").hidden = controller !== null;
  byId("stop").hidden = controller === null;
  if ([byId("send"), byId("stop"), document.body].includes(document.activeElement)) prompt.focus();
}

// What is seen of it.

function show(turn) {
  byId("empty").hidden = true;
  const text = element("p", { class: "text" }, ...(turn.pieces ? tokens(turn.pieces, true) : [turn.text]));
  const who = element("h2", { class: "unseen" }, turn.role === "user" ? "You" : "Answer");
  const note = element("p", { class: "note" }, turn.note ?? "");
  const shown = element("article", { class: turn.role }, who, ...thoughts(turn), text, note);
  log.append(shown);
  log.scrollTop = log.scrollHeight;
  return shown;
}

/** What the model thought, folded away. */
function thoughts(turn) {
  if (!turn.thoughts) return [];
  const text = element("p", { class: "thought" }, turn.thoughts);
  return [element("details", { class: "thoughts" }, element("summary", {}, "Thoughts"), text)];
}

function think(answer, shown, text) {
  answer.thoughts = (answer.thoughts ?? "") + text;
  const thought = shown.querySelector(".thought");
  if (thought) thought.append(text);
  else shown.querySelector(".text").before(...thoughts(answer));
}

function add(answer, shown, text, pieces) {
  const follow = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END_PX;
  shown.querySelector(".text").append(...tokens(pieces, !answer.text));
  answer.text += text;
  answer.pieces.push(...pieces);
  if (follow) log.scrollTop = log.scrollHeight;
}

/** Pieces of an answer as elements; the space that a first token often begins with is left out. */
function tokens(pieces, first) {
  return pieces.map((piece, at) => {
    const text = first && at === 0 ? piece.text.trimStart() : piece.text;
    return element("span", { class: "token", "data-fate": piece.origin, "data-said": fateOf(piece) }, text);
  });
}

function finish(answer, shown) {
  say(shown.querySelector(".note"), answer.note);
  colour(log);
  log.scrollTop = log.scrollHeight;
}

/** Nothing came: the question is the user's again. */
function giveBack(question, shown) {
  turns = turns.slice(0, -2);
  shown.forEach((each) => each.remove());
  byId("empty").hidden = turns.length > 0;
  if (!prompt.value) setPrompt(question);
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

// Figures: as it goes, from the pieces; at the end, as the gateway has measured them.

class Meter {
  constructor() {
    this.tokens = this.drafted = this.kept = this.since = 0;
  }

  add(pieces) {
    if (!this.tokens) this.since = performance.now();
    this.tokens += pieces.length;
    this.drafted += pieces.filter((piece) => piece.origin !== "target").length;
    this.kept += pieces.filter((piece) => ["drafted", "relaxed"].includes(piece.origin)).length;
  }

  /** The share of places with a draft where its first choice was kept. */
  get acceptance() {
    return this.drafted ? this.kept / this.drafted : null;
  }

  figures() {
    const seconds = (performance.now() - this.since) / 1000;
    return entries(seconds > 0.5 ? this.tokens / seconds : null, this.acceptance, null, null, this.tokens);
  }

  measured(stats) {
    return entries(stats.tokens_per_second, this.acceptance, stats.loop_ms, stats.time_to_first_token_ms, stats.new_tokens);
  }
}

const entries = (speed, acceptance, loop, first, tokens) => [
  ["Speed", rate(speed), "tokens/s"],
  ["Drafts kept", percent(acceptance), "%"],
  ["Loop", ms(loop), "ms"],
  ["First token", ms(first), "ms"],
  ["Written", count(tokens), "tokens"],
];

function summary(stats, acceptance) {
  const said = [plural(stats.new_tokens, "token", "tokens"), `${rate(stats.tokens_per_second)} tokens/s`];
  if (acceptance != null) said.push(`${percent(acceptance)} % of drafts kept`);
  said.push(`${plural(stats.loops, "loop", "loops")} of ${ms(stats.loop_ms)} ms`);
  if (stats.failovers?.length) said.push(`peers replaced ${plural(stats.failovers.length, "time", "times")}`);
  if (stats.finish_reason === "length") said.push("ended at the most tokens");
  if (stats.verification !== "exact") said.push("relaxed");
  said.push(...audited(stats.audits));
  return said.join(" · ");
}

/** What this gateway's audits have come to so far, where that is news. */
function audited({ caught, failures }) {
  const failed = Object.entries(failures);
  const count = failed.reduce((sum, [, texts]) => sum + texts, 0);
  const reasons = failed.map(([reason, texts]) => `${reason.replaceAll("_", " ")}: ${texts}`).join(", ");
  return [
    ...(caught.length ? [`${plural(caught.length, "peer", "peers")} caught lying so far`] : []),
    ...(count ? [`${plural(count, "text", "texts")} not audited so far (${reasons})`] : []),
  ];
}

// The conversation, kept for as long as the tab is open.

function keep() {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(turns));
  } catch {
    sessionStorage.removeItem(KEPT); // it has become too long to be kept
  }
}

function forget() {
  running?.abort();
  turns = [];
  sessionStorage.removeItem(KEPT);
  log.querySelectorAll("article").forEach((each) => each.remove());
  byId("empty").hidden = false;
  trouble("");
  prompt.focus();
}

function setPrompt(text) {
  prompt.value = text;
  fit();
}

/** As high as its text, up to what the style sheet allows. */
function fit() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight + 2}px`;
}

async function offerModels() {
  const { data } = await (await request("/v1/models")).json();
  byId("model").replaceChildren(...data.map(({ id }) => element("option", {}, id)));
}

function tell(error) {
  if (!(error instanceof Trouble)) throw error;
  trouble(error.message);
}

prompt.addEventListener("input", fit);
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask();
});
byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
byId("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => event.key === "Escape" && running?.abort());
byId("new").addEventListener("click", forget);
byId("examples").addEventListener("click", (event) => {
  if (event.target.tagName !== "BUTTON") return;
  setPrompt(event.target.textContent);
  prompt.focus();
});

byId("beside").open = matchMedia("(min-width: 60rem)").matches;
figures(byId("figures"), entries(null, null, null, null, null));
turns = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
turns.forEach(show);
showFates(log);
offerModels().catch(tell);
prompt.focus();
