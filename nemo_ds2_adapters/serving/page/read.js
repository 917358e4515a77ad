/** Ten sentences to read aloud, one after the other. */

import { find, make, onClick, tell } from "./dom.js";
import { Recorder } from "./recorder.js";
import { choose } from "./who.js";

const WANTED = 10;
const READING = ["prompt", "read-recorder", "skip"];
const LEAST = 2; // of which the service makes an adapter

let app;
let recorder;
let queue; // sentences, the next one first
let kept; // by sentence: {number, seconds, url}
let text; // that is to be read now
let sound; // that was recorded last

export function start(shared) {
  app = shared;
  recorder = new Recorder(find("read-recorder"), { onSound: heard, onStart: () => (find("heard").hidden = true) });
  onClick("keep", keep);
  onClick("skip", skip);
  onClick("to-train", train);
  forget();
}

export function forget() {
  for (const { url } of kept?.values() ?? []) URL.revokeObjectURL(url);
  [queue, kept, text] = [[], new Map(), null];
}

export async function enter() {
  for (const id of READING) find(id).hidden = true; // until it is known what is there
  const known = await app.api.user(app.user);
  await choose(app, known);
  find("read-again").hidden = !known?.adapter;
  find("read-again").textContent = app.service.keep_recordings === 0
    ? "Your adapter is made anew of what you read now, alone: what you read before is not kept."
    : "Your adapter is made anew of what you read now and of what is kept of before.";
  const sounds = new Map([...kept.values()].map(({ number, url }) => [number, url]));
  kept = new Map();
  for (const { recording: number, text: said, seconds } of known?.recordings ?? []) {
    kept.set(said, { number, seconds, url: sounds.get(number) });
  }
  queue = app.prompts.filter((prompt) => !kept.has(prompt));
  show();
}

export function leave() {
  recorder.cancel();
}

function show(again = null) {
  const read = app.prompts.filter((prompt) => kept.has(prompt)).length; // others are kept of before
  const isDone = !again && (read >= WANTED || !queue.length);
  text = again ?? (isDone ? null : queue[0]);
  sound = null;
  find("heard").hidden = true;
  for (const id of READING) find(id).hidden = isDone;
  find("prompt").textContent = text ?? "";
  recorder.label = "Record";
  recorder.isMain = true;
  const sentence = `Sentence ${Math.min(read + 1, WANTED)} of ${WANTED}`;
  find("read-count").textContent = again ? "Once more" : isDone ? "All sentences are recorded." : sentence;
  find("train-ready").hidden = kept.size < LEAST;
  find("train-hint").textContent =
    kept.size < WANTED
      ? `${kept.size} sentences are recorded. Ten are better, but you need not read them all.`
      : "That is enough. Your adapter is made in some seconds.";
  find("to-train").classList.toggle("main", isDone);
  list();
  if (isDone) find("to-train").focus();
  tell(isDone ? "All sentences are recorded." : `${find("read-count").textContent}: ${text}`);
}

function heard(file) {
  if (sound) URL.revokeObjectURL(find("heard-audio").src);
  sound = file;
  find("heard-audio").src = URL.createObjectURL(file);
  find("heard").hidden = false;
  recorder.label = "Record again";
  recorder.isMain = false;
  find("keep").focus();
}

async function keep() {
  const said = text;
  const { recording: number, seconds, findings } = await app.api.record(app.user, sound, said);
  const before = kept.get(said);
  if (before && before.number !== number) await app.api.removeRecording(app.user, before.number);
  kept.set(said, { number, seconds, url: find("heard-audio").src });
  queue = queue.filter((prompt) => prompt !== said);
  show();
  if (findings.length) throw new Error(`Kept, but it is ${findings.join(", ")}: you may record it again, in the list below.`);
  if (text) recorder.focus();
}

function skip() {
  queue.push(queue.shift());
  show();
  recorder.focus();
}

function list() {
  const items = [...kept].map(([said, { url, seconds }]) => {
    const audio = make("audio", { controls: true, preload: "none", "aria-label": `Your recording of: ${said}` });
    if (url) audio.src = url;
    const again = make("button", { "aria-label": `Again: ${said}`, onclick: () => (show(said), recorder.focus()) }, "Again");
    return make("li", {}, `${said} (${seconds.toFixed(1)} s)`, make("div", { class: "row" }, ...(url ? [audio] : []), again));
  });
  find("kept").replaceChildren(...items);
  find("kept-title").hidden = !items.length;
}

async function train() {
  try {
    app.job = await app.api.train(app.user);
  } catch (error) {
    if (error.code !== "job_running") throw error;
    app.job = { id: error.problem.job };
  }
  app.go("train"); // not waited for: it takes its time
}
