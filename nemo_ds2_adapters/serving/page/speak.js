/** Say anything, and see what is understood while you speak, by the base and with the adapter. */

import { complain, find, make, onClick, RECOGNISED, tell } from "./dom.js";
import { pcm } from "./microphone.js";
import { Recorder } from "./recorder.js";

const KINDS = { base: "live-base", personal: "live-own" };

let app;
let recorder;
let talks = [];

export function start(shared) {
  app = shared;
  recorder = new Recorder(find("speak-recorder"), {
    onStart: begin,
    onSamples: (samples) => talks.forEach((talk) => talk.send(pcm(samples))),
    onStop: finish,
    onSound: recognise,
  });
  recorder.label = "Speak";
  onClick("to-next", () => app.go("words"));
}

export function forget() {
  for (const id of Object.values(KINDS)) find(id).replaceChildren();
}

export function leave() {
  recorder.cancel();
  talks.forEach((talk) => talk.close());
  talks = [];
}

function begin(rate) {
  forget();
  talks = Object.keys(KINDS).map((kind) => app.api.talk(app.user, kind, rate, (message) => show(kind, message)));
  for (const talk of talks) {
    talk.ended.catch((error) => {
      if (!talks.includes(talk)) return; // left
      leave();
      complain(error);
    });
  }
}

async function finish() {
  await Promise.all(talks.map((talk) => talk.finish()));
  leave();
  say();
}

async function recognise(sound) {
  const kinds = Object.keys(KINDS);
  const results = await Promise.all(kinds.map((kind) => app.api.transcribe(app.user, sound, kind)));
  kinds.forEach((kind, i) => show(kind, results[i]));
  say();
}

/** What may still change looks different from what will not. */
function show(kind, { type, adapter, text, stable, unstable }) {
  if (adapter && kind === "personal") find("live-own-title").textContent = RECOGNISED[adapter];
  if (type === "ready") return;
  const parts = type === "partial" ? [stable, make("span", { class: "partial" }, unstable)] : [text || "(nothing)"];
  find(KINDS[kind]).replaceChildren(...parts);
}

/** To a screen reader only what is final: two texts that grow at once cannot be listened to. */
function say() {
  tell(`Base: ${find(KINDS.base).textContent}. ${find("live-own-title").textContent}: ${find(KINDS.personal).textContent}.`);
}
