"""Spectrograms of clips of 30 s by the front end mel_clip, against plain calls of librosa.

    python benchmarks/mel_clip.py [--clips 40] [--write]

Both get the same waveforms, in memory, on one thread and in turns; librosa is called as projects on
FMA and GTZAN call it.
"""

import argparse
import statistics
import time

import numpy as np
from prediction import machine, show_table
from threadpoolctl import threadpool_limits

from preprocess.signal.features import FRONT_ENDS

START, END = "<!-- mel_clip: start -->\n", "<!-- mel_clip: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    arguments = parser.parse_args()

    import librosa

    front_end = FRONT_ENDS.create("mel_clip", {})
    rate = front_end.sample_rate
    rng = np.random.default_rng(0)

    def plain(waveform: np.ndarray) -> np.ndarray:
        mel = librosa.feature.melspectrogram(
            y=waveform, sr=rate, n_fft=2048, hop_length=1024, n_mels=128
        )
        return librosa.power_to_db(mel, ref=np.max).T[:640]

    times: dict[str, list[float]] = {"librosa": [], "mel_clip": []}
    farthest = 0.0
    with threadpool_limits(1):
        for number in range(arguments.clips + 2):
            # Noise whose level changes: all bands and levels occur.
            levels = np.repeat(10 ** rng.uniform(-4, 0, 60), rate // 2)
            waveform = (levels * rng.standard_normal(len(levels))).astype(np.float32)
            begun = time.perf_counter()
            wanted = plain(waveform)
            middle = time.perf_counter()
            found = front_end.windows(waveform)["mel"][0]
            done = time.perf_counter()
            farthest = max(farthest, float(np.abs(found - wanted).max()))
            # The first ones fill caches.
            if number > 1:
                times["librosa"].append(middle - begun)
                times["mel_clip"].append(done - middle)
    reference = statistics.median(times["librosa"])
    lines = [
        f"{machine()}.",
        "",
        f"{arguments.clips} clips of 30 s, one thread, medians; largest difference "
        f"{farthest:.0e} dB.",
        "",
        "| what | ms per clip | clips per second, of librosa's |",
        "|---|---|---|",
    ]
    for name, seconds in times.items():
        median = statistics.median(seconds)
        lines.append(f"| {name} | {median * 1e3:.1f} | {reference / median:.2f} |")
    table = "\n".join(lines) + "\n"
    show_table(table, START, END, write=arguments.write)


if __name__ == "__main__":
    main()
