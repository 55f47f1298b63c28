// What became of each token's draft: told by colour, by a line, and in words at the token that is pointed at.

import { byId, say } from "./dom.js";

const SHOWN = "swarm-fates";
const WORDS = {
  drafted: () => "Drafted, and what the model itself would say.",
  branch: ({ instead_of }) => `The draft’s other choice: first it had ${quoted(instead_of)}.`,
  corrected: ({ instead_of }) => `The model’s own: the draft had ${quoted(instead_of)}.`,
  relaxed: ({ instead_of, deficit_nats }) =>
    `Drafted and kept by leniency: the model would have said ${quoted(instead_of)}, by ${deficit_nats.toFixed(2)} nats.`,
  target: () => "The model’s own: nothing was drafted here.",
};

/** One or two sentences on a piece of text. */
export function fateOf(piece) {
  const words = WORDS[piece.origin]?.(piece) ?? "";
  return piece.reason ? `${words} Why: ${piece.reason}.` : words;
}

const quoted = (text) => `“${(text.trim() || text).replaceAll("\n", "↵")}”`;

/** Colour the tokens in `log`, or do not, as the switch is set. To be called again for what has been added. */
export function colour(log) {
  const { checked } = byId("fates");
  log.classList.toggle("fates", checked);
  byId("legend").hidden = !checked;
  for (const text of log.querySelectorAll(".assistant .text")) offerWay(text, checked);
  hide();
}

/** Let the switch work: `redraw(byFate)` draws the answers. Tell the fate of the token that is pointed at or moved to. */
export function showFates(log, redraw) {
  const box = byId("fates");
  box.checked = sessionStorage.getItem(SHOWN) === "true";
  box.addEventListener("change", () => {
    sessionStorage.setItem(SHOWN, box.checked);
    redraw(box.checked);
    colour(log);
  });
  colour(log);
  for (const name of ["pointerover", "focusin"]) log.addEventListener(name, ({ target }) => tell(log, target));
  for (const name of ["pointerleave", "focusout", "scroll"]) log.addEventListener(name, hide);
  log.addEventListener("keydown", (event) => {
    if (event.target.classList.contains("token")) move(event);
  });
}

/** One token of each answer can be reached with Tab; the arrow keys lead on from it. */
function offerWay(text, open) {
  const first = text.querySelector(".token");
  for (const each of text.querySelectorAll(".token[tabindex]")) each.removeAttribute("tabindex");
  if (first && open) first.tabIndex = 0;
}

function move(event) {
  const tokens = [...event.target.parentElement.children];
  const at = tokens.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tokens.length - 1 }[event.key];
  if (to === undefined || !tokens[to]) return;
  event.preventDefault();
  event.target.removeAttribute("tabindex");
  tokens[to].tabIndex = 0;
  tokens[to].focus();
}

function tell(log, token) {
  if (!token.dataset?.said || !log.classList.contains("fates")) return hide();
  const fate = byId("fate");
  say(fate, token.dataset.said);
  fate.hidden = false;
  const at = token.getBoundingClientRect();
  const left = Math.min(at.left, innerWidth - fate.offsetWidth - 8);
  const below = at.bottom + 6;
  fate.style.left = `${Math.max(8, left)}px`;
  fate.style.top = `${below + fate.offsetHeight < innerHeight ? below : at.top - fate.offsetHeight - 6}px`;
  token.setAttribute("aria-describedby", "fate");
}

function hide() {
  byId("fate").hidden = true;
  document.querySelector("[aria-describedby=fate]")?.removeAttribute("aria-describedby");
}
