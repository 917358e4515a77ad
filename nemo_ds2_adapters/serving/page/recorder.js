/** A button that records, with a level, and a field for a sound file in its place. */

import { clear, complain, find, tell } from "./dom.js";
import { level, Microphone, wav, whyNot } from "./microphone.js";

const LONGEST = 60; // seconds

export class Recorder {
  #parts;
  #pieces = [];
  #microphone = null;
  #isOpening = false;
  #visit = 0; // how often it was cancelled

  /**
   * @param place element that it is put into.
   * @param onSound is given a File: a recording, or one that was chosen.
   * @param onStart is given the rate of a recording that begins.
   * @param onSamples is given samples as they arrive.
   * @param onStop is called at the end of a recording, in place of `onSound`.
   */
  constructor(place, { onSound, onStart = () => {}, onSamples = () => {}, onStop = null }) {
    Object.assign(this, { onSound, onStart, onSamples, onStop });
    const root = find("recorder").content.cloneNode(true).firstElementChild;
    const part = (selector) => root.querySelector(selector);
    this.#parts = {
      root, button: part("button"), text: part(".text"), bar: part(".bar"), seconds: part(".seconds"), file: part("input"),
    };
    const reason = whyNot();
    if (reason) {
      part(".notice").textContent = reason;
      part(".notice").hidden = false;
      part(".microphone").hidden = part(".or").hidden = true;
    }
    this.#parts.button.addEventListener("click", () => this.#toggle());
    this.#parts.file.addEventListener("change", () => this.#chosen());
    place.replaceChildren(root);
  }

  get isRecording() {
    return this.#microphone !== null;
  }

  /** What the button says while it does not record. */
  set label(text) {
    this.#parts.text.textContent = this.#parts.root.dataset.label = text;
  }

  /** Whether it is what to do next. */
  set isMain(yes) {
    this.#parts.button.classList.toggle("main", yes);
  }

  focus() {
    (whyNot() ? this.#parts.file : this.#parts.button).focus();
  }

  /** Ends without a recording. */
  cancel() {
    this.#visit++;
    this.#close();
  }

  async #toggle() {
    if (this.isRecording) return this.#stop();
    if (this.#isOpening) return;
    clear();
    this.#pieces = [];
    this.#isOpening = true;
    const visit = this.#visit;
    try {
      const microphone = await Microphone.open((samples) => this.#arrived(samples));
      if (visit !== this.#visit) return microphone.close(); // cancelled while the browser asked
      this.#microphone = microphone;
      this.#show(true);
      await this.onStart(this.#microphone.rate);
    } catch (error) {
      this.#close();
      complain(error);
    } finally {
      this.#isOpening = false;
    }
  }

  #arrived(samples) {
    if (!this.isRecording) return;
    this.#pieces.push(samples);
    this.onSamples(samples);
    const seconds = (this.#pieces.length * samples.length) / this.#microphone.rate;
    this.#parts.bar.style.transform = `scaleX(${level(samples)})`;
    this.#parts.seconds.textContent = `${seconds.toFixed(1)} s`;
    if (seconds > LONGEST) this.#stop();
  }

  async #stop() {
    const sound = wav(this.#pieces, this.#microphone.rate);
    this.#close();
    tell("Recording stopped.");
    await this.#busy(() => (this.onStop ? this.onStop() : this.onSound(sound)));
  }

  #close() {
    this.#microphone?.close();
    this.#microphone = null;
    this.#show(false);
  }

  #show(isRecording) {
    this.#parts.root.classList.toggle("recording", isRecording);
    this.#parts.text.textContent = isRecording ? "Stop" : (this.#parts.root.dataset.label ?? "Record");
    this.#parts.bar.style.transform = "scaleX(0)";
    if (isRecording) tell("Recording.");
  }

  async #chosen() {
    const [file] = this.#parts.file.files;
    if (!file) return;
    clear();
    await this.#busy(() => this.onSound(file));
    this.#parts.file.value = "";
  }

  async #busy(action) {
    this.#parts.button.disabled = this.#parts.file.disabled = true;
    try {
      await action();
    } catch (error) {
      complain(error);
    } finally {
      this.#parts.button.disabled = this.#parts.file.disabled = false;
    }
  }
}
