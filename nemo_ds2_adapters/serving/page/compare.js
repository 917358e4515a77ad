/** Three sentences, recognised by the base and with the adapter. */

import { align, count, rate } from "./differences.js";
import { find, make, onClick, tell } from "./dom.js";
import { Recorder } from "./recorder.js";

const KINDS = { base: "Base", personal: "With your adapter" };

let app;
let recorders = [];
let counts; // by number of the sentence and kind

export function start(shared) {
  app = shared;
  onClick("to-speak", () => app.go("speak"));
  forget();
}

export function forget() {
  counts = [];
  find("tests").replaceChildren();
  find("totals").hidden = true;
}

export function enter() {
  if (find("tests").children.length) return;
  recorders = app.tests.map((said, number) => {
    const place = make("div");
    const pair = make("div", { class: "pair", hidden: true });
    find("tests").append(make("li", {}, make("h2", { class: "said" }, said), place, pair));
    return new Recorder(place, { onSound: (sound) => recognise(number, said, sound, pair) });
  });
}

export function leave() {
  recorders.forEach((recorder) => recorder.cancel());
}

async function recognise(number, said, sound, pair) {
  const kinds = Object.keys(KINDS);
  const texts = await Promise.all(kinds.map((kind) => app.api.transcribe(app.user, sound, kind)));
  const steps = texts.map((text) => align(said, text));
  counts[number] = Object.fromEntries(kinds.map((kind, i) => [kind, count(steps[i])]));
  pair.replaceChildren(...kinds.map((kind, i) => result(kind, steps[i])));
  pair.hidden = false;
  total();
  const { base, personal } = counts[number];
  tell(`Base: ${base.wrong} of ${base.words} words wrong. With your adapter: ${personal.wrong}.`);
}

function result(kind, steps) {
  const counted = count(steps);
  const text = make("p", {}, ...steps.flatMap((step) => [marked(step), " "]));
  const line = make("p", { class: "rate" }, `${counted.wrong} of ${counted.words} words wrong, ${rate(counted)}`);
  return make("div", { class: kind === "personal" ? "own" : "" }, make("h3", {}, KINDS[kind]), text, line);
}

/** Colour, line and spoken word say the same. */
function marked({ said, heard }) {
  if (said === heard) return said;
  const unseen = (text) => make("span", { class: "unseen" }, text);
  if (heard === null) return make("del", {}, unseen("missing: "), said);
  if (said === null) return make("ins", {}, unseen("not said: "), heard);
  return make("mark", { title: said }, unseen("wrong: "), heard);
}

function total() {
  const known = counts.filter(Boolean);
  const rows = Object.entries(KINDS).map(([kind, label]) => {
    const sum = (what) => known.reduce((so_far, one) => so_far + one[kind][what], 0);
    const counted = { wrong: sum("wrong"), words: sum("words") };
    return make(
      "tr", {}, make("th", { scope: "row" }, label), make("td", {}, `${counted.wrong} of ${counted.words}`), make("td", {}, rate(counted)),
    );
  });
  find("totals-rows").replaceChildren(...rows);
  find("totals").hidden = false;
}
