/** Say anything, and see what is understood, by the base and with the adapter. */

import { find, onClick, tell } from "./dom.js";
import { Recorder } from "./recorder.js";

let app;
let recorder;

export function start(shared) {
  app = shared;
  recorder = new Recorder(find("speak-recorder"), { onSound: recognise });
  onClick("to-mine", () => app.go("mine"));
}

export function forget() {
  for (const id of ["live-base", "live-own"]) find(id).textContent = "";
}

export function leave() {
  recorder.cancel();
}

export function enter() {
  find("speak-how").textContent =
    "Say what you like. This model needs the end of a sentence before it says anything: the texts come when you stop.";
}

async function recognise(sound) {
  const [base, own] = await Promise.all(["base", "personal"].map((kind) => app.api.transcribe(app.user, sound, kind)));
  find("live-base").textContent = base || "(nothing)";
  find("live-own").textContent = own || "(nothing)";
  tell(`Base: ${base}. With your adapter: ${own}.`);
}
