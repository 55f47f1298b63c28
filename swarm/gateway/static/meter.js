// Figures of an answer: as it goes, from its tokens; at the end, as the gateway has measured them.

import { count, ms, percent, plural, rate } from "./dom.js";

export class Meter {
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

export const entries = (speed, acceptance, loop, first, tokens) => [
  ["Speed", rate(speed), "tokens/s"],
  ["Drafts kept", percent(acceptance), "%"],
  ["Loop", ms(loop), "ms"],
  ["First token", ms(first), "ms"],
  ["Written", count(tokens), "tokens"],
];

export function summary(stats, acceptance) {
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
