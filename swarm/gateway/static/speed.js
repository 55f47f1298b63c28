// How fast this gateway generates: now, in the last minute, and in its last generations. Every event is the whole state.

import { ago, byId, count, element, figures, layers, ms, NONE, percent, plural, rate, say, shortId } from "./dom.js";
import { live } from "./gateway.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 40;

function show(speed) {
  const { running, loop } = speed;
  const idle = running.length === 0;
  byId("idle").hidden = !idle;
  say(byId("live"), idle ? "Idle" : `${plural(running.length, "generation", "generations")} now`);
  figures(byId("figures"), [
    ["Speed", idle && !speed.tokens_per_second ? NONE : rate(speed.tokens_per_second), "tokens/s"],
    ["Drafts kept", percent(speed.acceptance), "%"],
    ["Loop", ms(loop?.loop_ms), "ms"],
  ]);
  showMinute(speed.history);
  showLoop(loop);
  showSpent(speed.spent);
  showLast(running, speed.last);
}

// The last minute: a bar a second.

function showMinute(history) {
  const most = Math.max(1, ...history);
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", `0 0 ${history.length} ${HEIGHT}`);
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.setAttribute("aria-hidden", "true");
  history.forEach((tokens, second) => {
    const bar = document.createElementNS(SVG, "rect");
    const high = (HEIGHT * tokens) / most;
    for (const [name, value] of Object.entries({ x: second + 0.15, y: HEIGHT - high, width: 0.7, height: high })) bar.setAttribute(name, value);
    drawing.append(bar);
  });
  const total = history.reduce((sum, tokens) => sum + tokens, 0);
  const said = total ? `${plural(total, "token", "tokens")}, at most ${count(most)} in a second` : "No tokens in the last minute";
  byId("minute").replaceChildren(drawing, element("p", {}, said));
}

// Where a loop's time goes: a bar, and the same in a table.

function showLoop(loop) {
  if (!loop) {
    byId("loop").replaceChildren(element("p", {}, "Not measured yet."));
    return;
  }
  const parts = loop.hops.flatMap((hop) => [
    ["compute", hop.compute_ms],
    ["queue", hop.queue_ms],
  ]);
  const bar = timeBar([...parts, ["links", loop.links_ms]]);
  const rows = loop.hops.map((hop) => [
    element("span", {}, element("span", { class: "id", title: hop.peer_id }, shortId(hop.peer_id)), ` ${layers(hop.layers)}`),
    ms(hop.compute_ms),
    ms(hop.queue_ms),
    ms(hop.compute_ms + hop.queue_ms),
  ]);
  rows.push(["Links between them, and all else", NONE, NONE, ms(loop.links_ms)], ["The whole loop", NONE, NONE, ms(loop.loop_ms)]);
  const legend = legendOf([["compute", "computes"], ["queue", "waits for other sessions"], ["links", "links"]]);
  byId("loop").replaceChildren(bar, legend, table("A loop, in ms", ["Hop, in ms", "Computes", "Waits", "Together"], rows));
}

function timeBar(parts) {
  const bar = element("div", { class: "time", "aria-hidden": "true" });
  for (const [kind, took] of parts) {
    const part = element("span", { "data-kind": kind });
    part.style.flexGrow = took;
    bar.append(part);
  }
  return bar;
}

function legendOf(kinds) {
  return element("ul", { class: "legend" }, ...kinds.map(([kind, name]) => element("li", {}, element("span", { class: "kind", "data-kind": kind }, name))));
}

// What the last generation waited for: here, at the peers, and between them.

const WAITED_FOR = [
  ["links", "links"],
  ["compute", "peers computing", "stages"],
  ["judging", "judging here"],
  ["drafting", "drafting here"],
  ["queue", "waiting", "waiting"],
];

function showSpent(spent) {
  byId("spent-section").hidden = !spent;
  if (!spent) return;
  const parts = WAITED_FOR.map(([kind, name, part = kind]) => [kind, name, spent.share[part]]);
  byId("spent").replaceChildren(
    timeBar(parts.map(([kind, , part]) => [kind, part])),
    legendOf(parts.map(([kind, name, part]) => [kind, `${name} ${percent(part)} %`])),
    element("p", { id: "bottleneck" }, spent.bottleneck ? `No faster because ${spent.bottleneck}.` : ""),
  );
}

// The last generations, and those that go on.

function showLast(running, last) {
  const now = running.map((run) => ["now", run.model, count(run.tokens), rate(run.tokens / run.seconds), share(run.acceptance), NONE, NONE, "running"]);
  const past = last.map((run) => [
    ago(run.ago_s),
    run.model,
    count(run.tokens),
    rate(run.tokens_per_second ?? run.tokens / run.seconds),
    share(run.acceptance),
    ms(run.loop_ms),
    ms(run.time_to_first_token_ms),
    run.finish_reason ?? "stopped",
  ]);
  if (!now.length && !past.length) {
    byId("last").replaceChildren(element("p", {}, "None since the gateway was started."));
    return;
  }
  const columns = ["When", "Model", "Tokens", "Tokens/s", "Kept", "Loop ms", "First ms", "End"];
  byId("last").replaceChildren(table("The last generations", columns, [...now, ...past]));
}

const share = (acceptance) => (acceptance == null ? NONE : `${percent(acceptance)} %`);

function table(name, columns, rows) {
  const head = element("tr", {}, ...columns.map((column) => element("th", { scope: "col" }, column)));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell))));
  const made = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { class: "wide", role: "group", "aria-label": name, tabindex: 0 }, made);
}

live("/events/speed", show);
