// The swarm: who serves which layers of each model, and which are missing. Every event is the whole state.

import { ago, byId, count, element, layers, ms, NONE, plural, rate, say, set, shortId, span } from "./dom.js";
import { live, sentence } from "./gateway.js";

const COLUMNS = ["Peer", "Layers", "State", "Tokens/s", "Free cache", "Latency", "Path", "Version", "Seen"];
const STALE_S = 6; // looks come every 2 s or so
const MARKED_LAYERS = 64; // with more, lines between layers are a grey area

const models = new Map(); // by fingerprint
let heard = 0; // when the newest state came

function show({ models: seen, trouble }) {
  heard = performance.now();
  set(byId("live"), { "data-trouble": Boolean(trouble) });
  byId("live").dataset.said = trouble && sentence(trouble);
  for (const model of seen) {
    if (!models.has(model.fingerprint)) models.set(model.fingerprint, new Model(model));
    models.get(model.fingerprint).show(model);
  }
  for (const [fingerprint, model] of models) {
    if (seen.some((each) => each.fingerprint === fingerprint)) continue;
    model.section.remove();
    models.delete(fingerprint);
  }
  tick();
}

/** Between two states only time goes on. */
function tick() {
  if (!heard) return;
  const since = (performance.now() - heard) / 1000;
  say(byId("live"), byId("live").dataset.said || (since < STALE_S ? "Live" : `Last seen ${ago(since)}`));
  for (const model of models.values()) model.tick(since);
}

class Model {
  constructor({ model, fingerprint, model_layers }) {
    this.layers = model_layers;
    this.rows = new Map(); // by peer id
    const name = element("h2", { id: `model-${fingerprint}` }, model);
    const facts = `${plural(model_layers, "layer", "layers")} · weights ${fingerprint.slice(0, 12)}`;
    this.summary = element("p", { class: "summary" });
    this.gaps = element("ul", { class: "gaps" });
    this.cover = this.bar(false);
    this.rest = element("p", { class: "rest" });
    this.body = element("tbody", { role: "rowgroup" });
    this.section = element(
      "section",
      { class: "model", "aria-labelledby": name.id },
      element("div", { class: "title" }, name, element("p", {}, facts)),
      this.summary,
      this.gaps,
      this.table(),
      this.rest,
    );
    byId("models").append(this.section);
  }

  table() {
    const all = element(
      "tr",
      { role: "row", class: "all" },
      element("th", { role: "rowheader", scope: "row" }, "All together"),
      element("td", { role: "cell", class: "where" }, element("div", {}, element("span", { class: "layers" }), this.cover)),
      element("td", { role: "cell", colspan: COLUMNS.length - 2 }),
    );
    return element(
      "table",
      { role: "table", class: "peers", "aria-label": "Peers" },
      element(
        "thead",
        { role: "rowgroup" },
        element("tr", { role: "row" }, ...COLUMNS.map((name) => element("th", { role: "columnheader", scope: "col" }, name))),
        all,
      ),
      this.body,
    );
  }

  bar(lines = this.layers <= MARKED_LAYERS) {
    const bar = element("div", { class: "bar", "data-lines": lines });
    bar.style.setProperty("--layers", this.layers);
    return bar;
  }

  /** Put a part of a bar where its layers are. */
  place(part, [first, last]) {
    part.style.left = `${(100 * first) / this.layers}%`;
    part.style.width = `${(100 * (last - first)) / this.layers}%`;
  }

  show(seen) {
    const online = seen.peers.filter((peer) => peer.state === "online");
    const more = seen.rest ?? { peers: 0, online: 0, tokens_per_second: 0, free_cache_tokens: 0 };
    const sum = (name) => online.reduce((total, peer) => total + peer[name], more[name]);
    const peers = seen.peers.length + more.peers;
    const known = seen.estimated_peers ? `about ${count(seen.estimated_peers)} peers, a sample of ${count(peers)}` : plural(peers, "peer", "peers");
    say(this.summary, `${known} · ${count(online.length + more.online)} online · ${count(sum("free_cache_tokens"))} tokens of free cache`);
    this.showCoverage(seen);
    this.showPeers(seen.peers);
    say(this.rest, seen.rest ? `And ${plural(more.peers, "other peer", "other peers")}, ${count(more.online)} of them online, together ${rate(more.tokens_per_second)} tokens/s.` : "");
  }

  showCoverage({ coverage, loading }) {
    const missing = coverage.filter(([, , peers]) => !peers);
    set(this.section, { "data-whole": missing.length === 0 });
    this.cover.replaceChildren(
      ...coverage.map(([first, last, peers]) => {
        const text = peers ? `${peers}×` : "missing";
        const part = element("span", { class: peers ? "run" : "run gap", title: `${layers([first, last])}: ${peers ? plural(peers, "peer", "peers") : "no peer"}` }, text);
        part.style.setProperty("--depth", Math.min(peers, 4));
        this.place(part, [first, last]);
        return part;
      }),
    );
    const said = missing.map(([first, last]) => {
      const coming = loading.filter(([a, b]) => a < last && first < b).map((each) => `, ${layers(each)} being loaded`);
      return `${layers([first, last])} missing: no peer serves them${coming.join("")}`;
    });
    if (said.join() === this.said) return;
    this.said = said.join();
    this.gaps.replaceChildren(...said.map((text) => element("li", {}, text.charAt(0).toUpperCase() + text.slice(1))));
    say(byId("said"), said.join("; ") || "All layers are served.");
  }

  showPeers(peers) {
    const left = new Set(this.rows.keys());
    peers.forEach((peer, at) => {
      left.delete(peer.peer_id);
      let row = this.rows.get(peer.peer_id);
      if (!row) this.rows.set(peer.peer_id, (row = new Row(this)));
      row.show(peer);
      if (this.body.children[at] !== row.line) this.body.insertBefore(row.line, this.body.children[at] ?? null);
    });
    for (const id of left) {
      this.rows.get(id).line.remove();
      this.rows.delete(id);
    }
  }

  tick(since) {
    for (const row of this.rows.values()) row.tick(since);
  }
}

class Row {
  constructor(model) {
    this.model = model;
    this.part = element("span", { class: "part" });
    this.layers = element("span", { class: "layers" });
    this.state = element("span", { class: "state" });
    const bar = model.bar();
    bar.append(this.part);
    this.id = element("th", { role: "rowheader", scope: "row", class: "id" });
    this.where = element("td", { role: "cell", class: "where" }, element("div", {}, this.layers, bar));
    this.cells = COLUMNS.slice(3).map((name) => element("td", { role: "cell", "data-name": name }));
    this.line = element("tr", { role: "row" }, this.id, this.where, element("td", { role: "cell", class: "how" }, this.state), ...this.cells);
  }

  show(peer) {
    this.peer = peer;
    set(this.line, { "data-state": peer.state });
    set(this.id, { title: peer.peer_id });
    set(this.part, { "data-state": peer.state });
    set(this.state, { "data-state": peer.state });
    say(this.id, shortId(peer.peer_id));
    say(this.layers, span(peer.layers));
    say(this.state, peer.state);
    this.model.place(this.part, peer.layers);
    const latency = peer.rtt_ms == null ? NONE : `${ms(peer.rtt_ms)} ms`;
    const told = [rate(peer.tokens_per_second), count(peer.free_cache_tokens), latency, peer.path ?? NONE, peer.software];
    told.forEach((text, at) => say(this.cells[at], text));
  }

  tick(since) {
    const { seen_s } = this.peer;
    say(this.cells.at(-1), ago(seen_s == null ? null : seen_s + since));
  }
}

setInterval(tick, 1000);
live("/events/swarm", show);
