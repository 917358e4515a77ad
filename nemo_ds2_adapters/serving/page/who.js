/** Who are you? */

import { find, make, run, tell } from "./dom.js";

const PROMPTS = 20; // ten, and as many to skip to
const TESTS = 3;
const MOST = 100; // sentences that the service lets one leave out

export function start(app) {
  find("token-field").hidden = !app.service.needs_token;
  find("token").required = app.service.needs_token;
  find("stored-policy").append(...policy(app.service).map((line) => make("li", {}, line)));
  find("who-form").addEventListener("submit", (event) => {
    event.preventDefault();
    run(event.submitter ?? find("who-form").querySelector("button"), () => begin(app));
  });
}

export function forget() {
  find("who-form").reset();
}

async function begin(app) {
  const user = find("user").value.trim();
  app.api.token = find("token").value.trim();
  const known = await app.api.user(user);
  Object.assign(app, { user });
  await choose(app, known);
  find("erased").hidden = true;
  app.unlock("read", "mine", "words");
  if (known?.adapter) app.unlock("compare", "speak");
  await app.go(known?.adapter ? "mine" : "read");
  if (known) tell(`Welcome back, ${user}.`);
}

/** What the service keeps, and how long. */
function policy({ keep_recordings: days }) {
  const recordings = {
    [null]: "until you erase them",
    0: "until your adapter was made of them, a day at most",
  }[days] ?? `${days} days, or until you erase them`;
  return [
    "Your adapter, and words of your own: until you erase them.",
    `The sentences that you read for it: ${recordings}.`,
    "What you say to be recognised: not at all.",
    "Nothing of you goes into other people’s adapters.",
    "In this browser: nothing.",
  ];
}

/** Sentences to read, others after each training; and those to compare with, always the same for the same person. */
export async function choose(app, known) {
  const read = (PROMPTS * (known?.adapter?.version ?? 0)) % MOST;
  Object.assign(app, await app.api.prompts(PROMPTS, TESTS, seed(app.user), read));
}

function seed(user) {
  return [...user].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 2 ** 31, 7);
}
