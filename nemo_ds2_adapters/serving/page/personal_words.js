/** Names and terms that recognition favours for one person. */

import { find, run, tell } from "./dom.js";

let app;

export function start(shared) {
  app = shared;
  find("words-form").addEventListener("submit", (event) => {
    event.preventDefault();
    run(event.submitter, save);
  });
}

export async function enter() {
  find("word-list").value = (await app.api.words(app.user)).join("\n");
}

async function save() {
  const words = find("word-list").value.split("\n").map((line) => line.trim()).filter(Boolean);
  await app.api.putWords(app.user, words);
  find("words-saved").textContent = words.length ? `Saved: ${words.length}.` : "Saved: none.";
  tell(find("words-saved").textContent);
}
