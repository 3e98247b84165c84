// Talks to the server.

const KEY = "tagger-token";

// For this tab alone: a token should not outlive it.
export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
};

export class ServerError extends Error {
  constructor(message, status = 0, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const SILENT = "The server does not answer. See whether it is running, then try again.";
const UNSENT = "The file could not be sent. See whether the server is running, then try again.";

/** Send a request; only XMLHttpRequest tells how much of a body has been sent. */
export function request(method, path, { body, headers = {}, signal, sent } = {}) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open(method, path);
    if (token.get()) xhr.setRequestHeader("Authorization", `Bearer ${token.get()}`);
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    if (sent) {
      xhr.upload.onprogress = (event) => sent(event.total ? event.loaded / event.total : 1);
      xhr.upload.onload = () => sent(1);
    }
    xhr.onload = () => {
      let answer = null;
      try {
        answer = JSON.parse(xhr.responseText);
      } catch {
        // A proxy in between may answer with a page of its own.
      }
      if (xhr.status === 200 && answer) return resolve(answer);
      const message = answer?.error ?? `The server answered ${xhr.status} ${xhr.statusText}`.trim();
      const after = Number(xhr.getResponseHeader("Retry-After")) || 2;
      reject(new ServerError(String(message), xhr.status, after));
    };
    xhr.onerror = () => reject(new ServerError(body ? UNSENT : SILENT));
    xhr.onabort = () => reject(new DOMException("removed", "AbortError"));
    signal?.addEventListener("abort", () => xhr.abort());
    xhr.send(body);
  });
}

export const models = async () => (await request("GET", "/v1/models")).models;

const TRIES = 5;
const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("removed", "AbortError"));
    });
  });

/** Tags of a file; a server that is busy is asked again. */
export async function segments(file, name, model, { signal, sent, busy }) {
  for (let tries = 1; ; tries++) {
    try {
      return await request("POST", `/v1/segments?model=${encodeURIComponent(model)}`, {
        body: file,
        headers: { "Content-Type": "application/octet-stream", "X-File-Name": encodeURIComponent(name) },
        signal,
        sent,
      });
    } catch (error) {
      if (error.status !== 503 || tries === TRIES) throw error;
      const seconds = Math.min(error.retryAfter, 60);
      busy(`The server is busy: next try in ${seconds} s (${tries} of ${TRIES - 1})`);
      await pause(seconds, signal);
    }
  }
}

export function socket(model) {
  const url = new URL(`/v1/live?model=${encodeURIComponent(model)}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const opened = new WebSocket(url);
  opened.binaryType = "arraybuffer";
  // A browser cannot set headers of a socket: the token goes first through it.
  opened.addEventListener("open", () => opened.send(JSON.stringify({ token: token.get() })));
  return opened;
}
