/** The service, as the page calls it. */

/** What the service refuses: a problem detail (RFC 9457) with its `code`. */
export class ServiceError extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }

  get code() {
    return this.problem.code;
  }
}

const RETRIES = 30; // of a lost connection
const RETRY_MS = 1000;

export class Api {
  token = "";

  /** How the service does, and what one should know of it. */
  about() {
    return this.json("GET", "/v1/health");
  }

  prompts(count, tests, seed, skip) {
    return this.json("GET", `/v1/prompts?count=${count}&tests=${tests}&seed=${seed}&skip=${skip}`);
  }

  /** What is kept about a person; null if nothing is. */
  async user(user) {
    try {
      return await this.json("GET", path(user));
    } catch (error) {
      if (error.code === "unknown_user") return null;
      throw error;
    }
  }

  record(user, sound, text) {
    return this.json("POST", `${path(user)}/recordings`, form({ file: sound, text }));
  }

  removeRecording(user, number) {
    return this.call("DELETE", `${path(user)}/recordings/${number}`);
  }

  train(user) {
    return this.json("POST", `${path(user)}/adapter`);
  }

  /** The states of a training, until it is over. It goes on when the connection is lost, or the service started anew. */
  async *job(id) {
    for (let failures = 0; ; ) {
      try {
        const response = await this.call("GET", `/v1/jobs/${id}/events`);
        for await (const { event, data } of events(response.body)) {
          failures = 0;
          yield JSON.parse(data);
          if (event === "end") return;
        }
      } catch (error) {
        const isPassing = error.code === "unreachable" || error instanceof TypeError; // what a lost connection gives
        if (!isPassing || ++failures > RETRIES) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  /** What is said, and by which adapter that was recognised: own, population or base; `model` is `base` or `personal`. */
  async transcribe(user, sound, model) {
    const response = await this.call("POST", "/v1/audio/transcriptions", form({ file: sound, user, model }));
    return { text: (await response.json()).text, adapter: response.headers.get("X-Adapter") };
  }

  /**
   * Speech that is recognised while it arrives.
   * @param onMessage is given what the service says: {type: "ready", adapter}, then {type: "partial", stable, unstable},
   *   at last {type: "final", text}.
   */
  talk(user, model, rate, onMessage) {
    const query = new URLSearchParams({ user, model, sample_rate: rate });
    return new Talk(`${location.origin.replace("http", "ws")}/v1/stream?${query}`, this.token, onMessage);
  }

  putWords(user, words) {
    return this.json("PUT", `${path(user)}/words`, JSON.stringify({ words }));
  }

  async adapter(user) {
    return (await this.call("GET", `${path(user)}/adapter`)).blob();
  }

  erase(user) {
    return this.json("DELETE", path(user));
  }

  async json(method, where, body) {
    return (await this.call(method, where, body)).json();
  }

  async call(method, where, body) {
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    if (typeof body === "string") headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(where, { method, headers, body, cache: "no-store" });
    } catch {
      throw new ServiceError({ code: "unreachable", detail: "The service does not answer. Is it running?" });
    }
    if (!response.ok) {
      const other = { code: "request", detail: `The service answers ${response.status} ${response.statusText}.` };
      throw new ServiceError(await response.json().catch(() => other)); // a proxy's page is no JSON
    }
    return response;
  }
}

/** A talk: samples in, texts out. */
class Talk {
  #socket;
  #waiting = []; // samples that came before the service was ready

  constructor(url, token, onMessage) {
    this.#socket = new WebSocket(url, token ? ["bearer", token] : []);
    this.#socket.binaryType = "arraybuffer";
    let isReady = false;
    this.send = (samples) => (isReady ? this.#socket.send(samples) : this.#waiting.push(samples));
    /** Settles when the talk is over: with the reason, if it went wrong. */
    this.ended = new Promise((resolve, reject) => {
      this.#socket.addEventListener("message", ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "error") return reject(new ServiceError(message));
        if (message.type === "ready") {
          isReady = true;
          this.#waiting.forEach((samples) => this.#socket.send(samples));
        }
        onMessage(message);
        if (message.type === "final") resolve();
      });
      this.#socket.addEventListener("close", () => {
        reject(new ServiceError({ code: "unreachable", detail: "The connection to the service has ended." }));
      });
    });
    this.ended.catch(() => {}); // whoever waits for it is told
  }

  finish() {
    this.send("finish");
    return this.ended;
  }

  close() {
    this.#socket.close();
  }
}

const path = (user) => `/v1/users/${encodeURIComponent(user)}`;

function form(values) {
  const data = new FormData();
  for (const [name, value] of Object.entries(values)) data.append(name, value);
  return data;
}

/** Server-sent events of a body: EventSource cannot send a token. */
async function* events(body) {
  let text = "";
  for await (const chunk of chunks(body.pipeThrough(new TextDecoderStream()))) {
    const blocks = (text + chunk).split(/\r?\n\r?\n/);
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/);
      const of = (field) => lines.filter((line) => line.startsWith(`${field}:`)).map((line) => line.slice(field.length + 1).trim());
      if (of("data").length) yield { event: of("event")[0] ?? "message", data: of("data").join("\n") };
    }
  }
}

async function* chunks(stream) {
  const reader = stream.getReader(); // Safari cannot iterate a stream
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) yield value;
}
