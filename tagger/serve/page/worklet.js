// Runs beside the sound: hands on what the microphone hears, in mono, at the wanted rate.

import { Resampler } from "./resample.js";

const PIECE = 4096; // frames: few messages, hardly any delay

class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Float32Array(PIECE);
    this.filled = 0;
    this.resampler = null;
    this.port.onmessage = ({ data: rate }) => {
      this.resampler = rate === sampleRate ? null : new Resampler(sampleRate, rate);
    };
  }

  process([channels]) {
    if (!channels.length) return true;
    for (let i = 0; i < channels[0].length; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      this.piece[this.filled++] = sum / channels.length;
      if (this.filled === PIECE) {
        const made = this.resampler ? this.resampler.push(this.piece) : this.piece.slice();
        this.port.postMessage(made, [made.buffer]);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("tap", Tap);
