/** The microphone: samples, as they arrive, and a WAV of them. */

/** Why there is no microphone to be had; null if there may be one. */
export function whyNot() {
  if (!window.isSecureContext) {
    return "Browsers give the microphone only to pages that come by HTTPS, or from this machine itself (localhost). " +
      "This page came by neither: choose sound files instead.";
  }
  return navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode
    ? null
    : "This browser gives pages no microphone: choose sound files instead.";
}

export class Microphone {
  #stream;
  #context;

  /** Opens it; from then on `onSamples` is given Float32Arrays. */
  static async open(onSamples) {
    const microphone = new Microphone();
    try {
      microphone.#stream = await navigator.mediaDevices.getUserMedia({
        audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
      });
      const context = (microphone.#context = new AudioContext());
      await context.audioWorklet.addModule("samples.js");
      const node = new AudioWorkletNode(context, "samples", { numberOfOutputs: 0 });
      node.port.onmessage = ({ data }) => onSamples(data);
      context.createMediaStreamSource(microphone.#stream).connect(node);
      await context.resume();
    } catch (error) {
      microphone.close();
      throw new Error(WHY[error.name] ?? `The microphone cannot be used (${error.message}): choose a sound file instead.`);
    }
    return microphone;
  }

  /** Samples per second. */
  get rate() {
    return this.#context.sampleRate;
  }

  close() {
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#context?.close();
  }
}

const WHY = {
  NotAllowedError: "The browser was told not to give this page the microphone: allow it in the address bar, or choose a sound file.",
  NotFoundError: "No microphone was found: plug one in, or choose a sound file.",
};

/** How loud samples are, 0 to 1: from -60 dB to full scale. */
export function level(samples) {
  const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
  return Math.min(1, Math.max(0, 1 + Math.log10(power + 1e-12) / 6));
}

/** 16-bit samples, little-endian. */
export function pcm(samples) {
  const view = new DataView(new ArrayBuffer(2 * samples.length));
  samples.forEach((sample, i) => view.setInt16(2 * i, Math.max(-1, Math.min(1, sample)) * 32767, true));
  return view.buffer;
}

/** A WAV with one channel. */
export function wav(pieces, rate) {
  const bodies = pieces.map(pcm);
  const size = bodies.reduce((sum, body) => sum + body.byteLength, 0);
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((letter, i) => head.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  head.setUint32(4, 36 + size, true);
  text(8, "WAVEfmt ");
  head.setUint32(16, 16, true);
  head.setUint16(20, 1, true); // PCM
  head.setUint16(22, 1, true); // channels
  head.setUint32(24, rate, true);
  head.setUint32(28, 2 * rate, true); // bytes per second
  head.setUint16(32, 2, true); // bytes per frame
  head.setUint16(34, 16, true); // bits
  text(36, "data");
  head.setUint32(40, size, true);
  return new File([head, ...bodies], "recording.wav", { type: "audio/wav" });
}
