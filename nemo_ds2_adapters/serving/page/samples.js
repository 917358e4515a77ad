/** Runs beside the page, where the sound arrives: hands it on in pieces of about 20 ms. */

const PIECE = 1024; // samples

class Samples extends AudioWorkletProcessor {
  #piece = new Float32Array(PIECE);
  #filled = 0;

  process([[channel]]) {
    for (const sample of channel ?? []) {
      this.#piece[this.#filled++] = sample;
      if (this.#filled === PIECE) {
        this.port.postMessage(this.#piece);
        this.#piece = new Float32Array(PIECE);
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("samples", Samples);
