/** Small helpers for the document. */

export const find = (id) => document.getElementById(id);

/** An element with attributes and children; texts are text, whatever is in them. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** Tells those who cannot see the page what has changed on it. */
export function tell(text) {
  find("status").textContent = "";
  setTimeout(() => (find("status").textContent = text), 50); // the same text once more is news too
}

/** Shows what went wrong, until `clear`. */
export function complain(error) {
  find("problem").textContent = error.message;
  find("problem").hidden = false;
  find("problem").scrollIntoView({ block: "nearest" });
}

export function clear() {
  find("problem").hidden = true;
}

/** Runs what a button does: not twice at once, and what goes wrong is shown. */
export async function run(button, action) {
  clear();
  button.disabled = true;
  try {
    await action();
  } catch (error) {
    complain(error);
  } finally {
    button.disabled = false;
  }
}

export const onClick = (id, action) => find(id).addEventListener("click", () => run(find(id), action));

/** What somebody is recognised with, as headings say it. */
export const RECOGNISED = {
  own: "With your adapter",
  population: "With most people’s adapter",
  base: "As you: the base",
};
