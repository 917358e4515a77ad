/** Three sentences, recognised by the base and with the adapter. */

import { align, count, rate } from "./differences.js";
import { find, make, onClick, RECOGNISED, tell } from "./dom.js";
import { Recorder } from "./recorder.js";

const KINDS = ["base", "personal"];

let app;
let recorders = [];
let counts; // by number of the sentence, of both kinds
let labels; // of both kinds

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
  const results = await Promise.all(KINDS.map((kind) => app.api.transcribe(app.user, sound, kind)));
  const steps = results.map(({ text }) => align(said, text));
  labels = ["Base", RECOGNISED[results[1].adapter]];
  counts[number] = steps.map(count);
  pair.replaceChildren(...steps.map((some, i) => result(i, some)));
  pair.hidden = false;
  recorders[number].label = "Record again";
  recorders[number].isMain = false;
  total();
  const [base, own] = counts[number];
  tell(`Base: ${base.wrong} of ${base.words} words wrong. ${labels[1]}: ${own.wrong}.`);
}

function result(i, steps) {
  const counted = count(steps);
  const text = make("p", {}, ...steps.flatMap((step) => [marked(step), " "]));
  const line = make("p", { class: "rate" }, `${counted.wrong} of ${counted.words} words wrong, ${rate(counted)}`);
  return make("div", { class: i ? "own" : "" }, make("h3", {}, labels[i]), text, line);
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
  const rows = labels.map((label, i) => {
    const sum = (what) => known.reduce((before, one) => before + one[i][what], 0);
    const counted = { wrong: sum("wrong"), words: sum("words") };
    const cells = [`${counted.wrong} of ${counted.words}`, rate(counted)].map((cell) => make("td", {}, cell));
    return make("tr", {}, make("th", { scope: "row" }, label), ...cells);
  });
  find("totals-rows").replaceChildren(...rows);
  find("totals").hidden = false;
}
