/** What is kept of a person: theirs to take, and to have erased. */

import { find, make, onClick } from "./dom.js";

const KINDS = {
  adapted: "made of your sentences",
  prior: "that of most people",
  base: "none that changes anything: the base suits you",
};
const USED = { own: "with your adapter", population: "with the adapter that suits most people", base: "by the base" };

let app;

export function start(shared) {
  app = shared;
  onClick("download", download);
  onClick("record-more", () => app.go("read"));
  onClick("erase", ask);
  onClick("erase-no", () => find("erase-dialog").close());
  onClick("erase-yes", erase);
}

export async function enter() {
  const known = await app.api.user(app.user);
  const lines = { "User id": app.user, ...(known ? about(known) : { Kept: "nothing" }) };
  find("mine-list").replaceChildren(
    ...Object.entries(lines).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]),
  );
  find("download").disabled = !known?.adapter;
}

function about({ adapter, adapter_used: used, recordings, seconds, words }) {
  const lines = {};
  if (adapter) {
    const stored = new Date(adapter.stored).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    lines["Adapter"] = `${KINDS[adapter.kind] ?? "yours"}; ${Math.round(adapter.bytes / 1000)} kB, version ${adapter.version} of ${stored}`;
  }
  lines["Recognised"] = USED[used];
  lines["Recordings"] = recordings.length ? `${recordings.length} sentences, ${Math.round(seconds)} s` : "none";
  lines["Words"] = words.join(", ") || "none";
  return lines;
}

async function download() {
  const link = make("a", { href: URL.createObjectURL(await app.api.adapter(app.user)), download: "adapter.pt" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function ask() {
  find("erase-question").textContent = `Erase everything that is kept of “${app.user}”? This cannot be undone.`;
  find("erase-dialog").showModal();
}

async function erase() {
  find("erase-dialog").close();
  await app.api.erase(app.user);
  await app.leaveUser(`Everything about “${app.user}” was erased.`);
}
