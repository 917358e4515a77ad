/** A training, and what came of it. */

import { find, onClick, tell } from "./dom.js";

const NEWS_MS = 5000; // between two words to a screen reader

let app;
let told = 0;
let visit = 0; // how often this step was come to, or left

export function start(shared) {
  app = shared;
  onClick("to-compare", () => app.go("compare"));
  onClick("back-to-read", () => app.go("read"));
  onClick("train-again", async () => {
    app.job = await app.api.train(app.user);
    app.go("train");
  });
}

export async function enter() {
  show("train-running");
  find("train-title").textContent = "Your adapter is being made";
  find("train-progress").removeAttribute("value");
  const mine = ++visit;
  try {
    for await (const job of app.api.job(app.job.id)) {
      if (mine !== visit) return;
      if (job.state === "done") finished(job.result);
      else if (job.state === "failed") throw new Error(job.problem.detail);
      else progress(job);
    }
  } catch (error) {
    if (mine !== visit) return;
    show("train-failed");
    find("train-title").textContent = "There is no adapter yet";
    throw error;
  }
}

/** The training goes on; whoever comes back sees how far it is. */
export function leave() {
  visit++;
}

function show(part) {
  for (const id of ["train-running", "train-result", "train-failed"]) find(id).hidden = id !== part;
}

function progress({ state, stage, share, seconds_left: left }) {
  if (state === "running") find("train-progress").value = share;
  const seconds = Math.ceil(left ?? 0);
  const text = state === "queued" ? "Waiting for others" : `${stage[0].toUpperCase()}${stage.slice(1)}`;
  find("train-stage").textContent = left === null ? `${text} …` : `${text}, about ${seconds} second${seconds === 1 ? "" : "s"} left`;
  if (Date.now() - told > NEWS_MS) {
    told = Date.now();
    tell(find("train-stage").textContent);
  }
}

const OUTCOMES = {
  adapted: "Your adapter is ready.",
  prior: "What suits most people suits you best: you are recognised with their adapter.",
  base: "Your sentences do not show that an adapter helps you: you are recognised with the base.",
};

function finished({ kind, reason, wer_before: before, wer_after: after, is_expected: isExpected }) {
  show("train-result");
  find("train-title").textContent = "Done";
  const rates = `${percent(before)} of words wrong before, ${percent(after)} after`;
  find("train-outcome").textContent = OUTCOMES[kind];
  find("train-reason").textContent =
    kind === "base" ? reason : `${isExpected ? "To be expected, by people like you" : "Tried on sentences left out of training"}: ${rates}. Why: ${reason}.`;
  app.unlock("compare", "speak");
  tell(OUTCOMES[kind]);
  find("to-compare").focus();
}

const percent = (share) => `${Math.round(100 * share)} %`;
