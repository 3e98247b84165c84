// Changes the sample rate of sound that comes in pieces. Browsers resample a microphone to the
// rate of its context, but not all of them, and not all well.

const STEPS = 256; // of the kernel's table between two samples
const LOBES = 16;

export class Resampler {
  constructor(from, to) {
    this.step = from / to;
    // Slightly below half of the lower rate, for the filter falls off over some hertz.
    const cut = Math.min(1, to / from) * 0.94;
    this.half = Math.ceil(LOBES / cut);
    this.kernel = new Float32Array(this.half * STEPS + 2);
    for (let i = 0; i < this.half * STEPS; i++) {
      const x = i / STEPS;
      const sinc = i ? Math.sin(Math.PI * cut * x) / (Math.PI * x) : cut;
      const angle = (Math.PI * x) / this.half;
      this.kernel[i] = sinc * (0.42 + 0.5 * Math.cos(angle) + 0.08 * Math.cos(2 * angle));
    }
    this.held = new Float32Array(this.half);
    this.at = this.half; // of the next sample to make, in what is held
  }

  push(samples) {
    const all = new Float32Array(this.held.length + samples.length);
    all.set(this.held);
    all.set(samples, this.held.length);
    const made = [];
    for (; this.at + this.half < all.length; this.at += this.step) {
      const first = Math.ceil(this.at - this.half);
      const last = Math.floor(this.at + this.half);
      let sum = 0;
      for (let i = Math.max(first, 0); i <= last; i++) {
        sum += all[i] * this.kernel[Math.round(Math.abs(i - this.at) * STEPS)];
      }
      made.push(sum);
    }
    const drop = Math.max(0, Math.floor(this.at) - this.half - 1);
    this.held = all.slice(drop);
    this.at -= drop;
    return Float32Array.from(made);
  }
}
