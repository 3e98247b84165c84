// Sound in the browser: waveforms of files, the microphone, recordings.

const RATE = 8000; // enough for a waveform, and a fraction of the memory
const LARGEST = 300e6; // bytes: a browser decodes a file as a whole
const COLUMNS = 3000;

/** Loudness over time: the peak of each of many columns, and how long the sound lasts. */
export async function waveform(file) {
  if (file.size > LARGEST) throw new Error("The file is too large to draw its waveform.");
  let decoded;
  try {
    const bytes = await file.arrayBuffer();
    decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
  } catch {
    throw new Error("No waveform: this browser cannot decode the file.");
  }
  const columns = Math.min(COLUMNS, decoded.length);
  const peaks = new Float32Array(columns);
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    const samples = decoded.getChannelData(channel);
    for (let i = 0; i < samples.length; i++) {
      const column = Math.floor((i * columns) / samples.length);
      peaks[column] = Math.max(peaks[column], Math.abs(samples[i]));
    }
  }
  return { peaks, seconds: decoded.duration };
}

/** Open the microphone; `heard` gets its samples. Returns its rate, `at(rate)` and `close()`. */
export async function microphone(heard) {
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) {
    throw new Error("A browser gives the microphone to https and localhost only: open the page there.");
  }
  let stream;
  try {
    // What makes speech clear spoils music.
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  } catch (error) {
    throw new Error(
      error.name === "NotFoundError"
        ? "No microphone was found: connect one, then try again."
        : "The microphone was refused: allow it in the browser's settings of this page, then try again.",
    );
  }
  const context = new AudioContext();
  const close = () => {
    stream.getTracks().forEach((track) => track.stop());
    if (context.state !== "closed") context.close();
  };
  try {
    await context.audioWorklet.addModule("/page/worklet.js");
    await context.resume();
  } catch (error) {
    close();
    throw new Error(`The sound could not be opened: ${error.message}`);
  }
  const tap = new AudioWorkletNode(context, "tap", { numberOfOutputs: 0 });
  tap.port.onmessage = ({ data }) => heard(data);
  context.createMediaStreamSource(stream).connect(tap);
  return { rate: context.sampleRate, at: (rate) => tap.port.postMessage(rate), close };
}

/** Root mean square, stretched so that quiet music moves a meter too. */
export function level(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.min(1, Math.sqrt(sum / samples.length) ** 0.5 * 1.4);
}

const to16 = (samples) =>
  Int16Array.from(samples, (sample) => Math.round(Math.max(-1, Math.min(1, sample)) * 32767));

/** A recording as WAV: 16 bits, mono. Pieces are kept as such, for that halves the memory. */
export class Recording {
  constructor() {
    this.pieces = [];
    this.frames = 0;
  }

  add(samples) {
    this.pieces.push(to16(samples));
    this.frames += samples.length;
  }

  file(rate, name) {
    const header = new DataView(new ArrayBuffer(44));
    const text = (at, letters) => [...letters].forEach((c, i) => header.setUint8(at + i, c.charCodeAt(0)));
    const bytes = this.frames * 2;
    text(0, "RIFF");
    header.setUint32(4, 36 + bytes, true);
    text(8, "WAVEfmt ");
    header.setUint32(16, 16, true);
    header.setUint16(20, 1, true); // PCM
    header.setUint16(22, 1, true);
    header.setUint32(24, rate, true);
    header.setUint32(28, rate * 2, true);
    header.setUint16(32, 2, true);
    header.setUint16(34, 16, true);
    text(36, "data");
    header.setUint32(40, bytes, true);
    return new File([header, ...this.pieces], name, { type: "audio/wav" });
  }
}
