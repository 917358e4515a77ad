/** Names and terms that recognition favours for one person. */

import { find, onClick, run, tell } from "./dom.js";

let app;

export function start(shared) {
  app = shared;
  onClick("words-next", () => app.go("mine"));
  find("words-form").addEventListener("submit", (event) => {
    event.preventDefault();
    run(find("words-save"), save);
  });
}

export async function enter() {
  find("words-saved").textContent = "";
  enable(false); // until it is known what is there
  show((await app.api.user(app.user))?.words ?? []);
}

async function save() {
  const lines = find("word-list").value.split("\n");
  const { words } = await app.api.putWords(app.user, lines.map((line) => line.trim()).filter(Boolean));
  show(words);
  find("words-saved").textContent = words.length ? `Saved: ${words.length}.` : "Saved: none.";
  tell(find("words-saved").textContent);
}

function show(words) {
  find("word-list").value = words.join("\n");
  enable(true);
}

function enable(yes) {
  find("word-list").disabled = find("words-save").disabled = !yes;
}
