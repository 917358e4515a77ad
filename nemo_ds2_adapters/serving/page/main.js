/** The steps, and which of them is shown. */

import { Api } from "./api.js";
import { clear, complain, find, make, tell } from "./dom.js";
import * as compare from "./compare.js";
import * as mine from "./mine.js";
import * as personalWords from "./personal_words.js";
import * as read from "./read.js";
import * as speak from "./speak.js";
import * as train from "./train.js";
import * as who from "./who.js";

const STEPS = { who, read, train, compare, speak, words: personalWords, mine };

const app = {
  api: new Api(),
  service: null, // what it says of itself
  user: null,
  prompts: [], // to train with
  tests: [], // to see the difference by
  job: null, // the training that was begun last
  open: new Set(["who"]), // steps that can be gone to

  /** Shows a step, and moves the focus to its heading. */
  async go(step) {
    clear();
    this.open.add(step);
    for (const name of Object.keys(STEPS)) {
      if (name !== step && !find(name).hidden) STEPS[name].leave?.();
      find(name).hidden = name !== step;
    }
    this.showSteps(step);
    document.title = `${find(step).dataset.step} – Be understood`;
    find(`${step}-title`).focus();
    window.scrollTo(0, 0);
    try {
      await STEPS[step].enter?.(this);
    } catch (error) {
      complain(error);
    }
  },

  unlock(...steps) {
    steps.forEach((step) => this.open.add(step));
    this.showSteps(this.step);
  },

  showSteps(current) {
    this.step = current;
    for (const button of find("steps").querySelectorAll("button")) {
      button.disabled = !this.open.has(button.dataset.to);
      if (button.dataset.to === current) button.setAttribute("aria-current", "step");
      else button.removeAttribute("aria-current");
    }
  },

  /** Back to the beginning, as if nobody had been here. */
  async leaveUser(message) {
    this.user = this.job = null;
    this.open = new Set(["who"]);
    for (const step of Object.values(STEPS)) step.forget?.();
    await this.go("who");
    find("erased").textContent = message;
    find("erased").hidden = false;
    tell(message);
  },
};

async function begin() {
  try {
    app.service = await app.api.about();
  } catch (error) {
    find("who").hidden = false;
    complain(error);
    return;
  }
  for (const [name, step] of Object.entries(STEPS)) {
    const to = make("button", { "data-to": name, onclick: () => app.go(name) }, find(name).dataset.step);
    find("steps").append(make("li", {}, to));
    step.start(app);
  }
  await app.go("who");
}

begin();
