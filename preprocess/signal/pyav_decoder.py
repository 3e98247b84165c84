"""Audio files that libsndfile does not know -> samples, through the libraries of ffmpeg in PyAV.

They are the samples that ffmpeg gives, without starting a process for each file, and the part of a
file begins where it should also in formats whose frames overlap.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.clips.audio_files import MOST_MISSING
from preprocess.signal.container_decoder import ONLY_AUDIO_FILES, ContainerDecoder, undecodable
from preprocess.signal.decoders import LEAD_SECONDS, Part, Samples, block_frames, require_most_of
from tagger.base.errors import AudioError


class PyavDecoder(ContainerDecoder):
    """m4a, aac and others, through PyAV."""

    @staticmethod
    def is_installed() -> bool:
        """Tell whether there is the package that it needs."""
        try:
            import av  # noqa: F401
        except ImportError:
            return False
        return True

    @classmethod
    def probe(cls, path: Path, *, most_missing: float = MOST_MISSING) -> "PyavDecoder":
        """Ask a file for its rate, channels and length.

        Parameters
        ----------
        path : Path
            The file.
        most_missing : float
            Share of its audio that may be missing.

        Raises
        ------
        AudioError
            If it cannot be read, or holds no audio.
        """
        with _opened(path) as (container, stream):
            seconds = _seconds(stream.duration, stream.time_base)
            if seconds is None:
                # In millionths.
                seconds = _seconds(container.duration, 1e-6)
            # A stream of an unknown kind has neither.
            rate, n_channels = getattr(stream, "rate", 0), getattr(stream, "channels", 0)
            if not rate or not n_channels:
                raise undecodable(path, "PyAV", "it tells no sample rate and channels")
            return cls(path, rate, n_channels, seconds, container.format.name, most_missing)

    def blocks(  # noqa: D102 (in Decoder)
        self, part: Part | None, block_seconds: float | None
    ) -> Generator[tuple[Samples, int], None, None]:
        size = None
        if block_seconds is not None:
            size = block_frames(block_seconds, self.sample_rate, self.n_channels)
        wanted = None if part is None else round(part.length * self.sample_rate)
        held: list[Samples] = []
        n_held = n_read = 0
        for samples in self._decoded(part):
            left = len(samples) if wanted is None else min(len(samples), wanted - n_read)
            held.append(samples[:left])
            n_held, n_read = n_held + left, n_read + left
            while size is not None and n_held >= size:
                joined = np.concatenate(held)
                yield joined[:size], self.sample_rate
                held, n_held = [joined[size:]], n_held - size
            if wanted is not None and n_read >= wanted:
                break
        self.missing = self._missing(n_read, part)
        if n_read == 0:
            raise undecodable(self.path, "PyAV", "nothing comes of it")
        require_most_of(self.path, self.missing, most_missing=self.most_missing)
        yield np.concatenate(held), self.sample_rate

    def _decoded(self, part: Part | None) -> Iterator[Samples]:
        """Give the samples of frame after frame; of a part, from its start on."""
        import av

        with _opened(self.path) as (container, stream):
            if part is not None:
                container.seek(int(max(0.0, part.start - LEAD_SECONDS) * 1_000_000))
            origin = (stream.start_time or 0) * (stream.time_base or 0)
            layout, kind, resampler = stream.layout, None, None
            for frame in self._frames(container, stream):
                skipped = 0
                if part is not None and frame.time is not None:
                    ahead = part.start - float(frame.time - origin)
                    skipped = max(0, round(ahead * self.sample_rate))
                if skipped < frame.samples:
                    # Of another rate or layout within the stream, it is made the first one's.
                    if resampler is None or kind != _kind(frame):
                        kind = _kind(frame)
                        resampler = av.AudioResampler("flt", layout, self.sample_rate)
                    for made in resampler.resample(frame):
                        values = made.to_ndarray().reshape(-1, self.n_channels)
                        yield values[skipped:].astype(np.float32)
                        skipped = 0

    def _frames(self, container: Any, stream: Any) -> Iterator[Any]:
        """Decode packet after packet, past those that cannot be decoded."""
        import av

        failure, n_frames = None, 0
        # Where it breaks off, what is missing is counted.
        with suppress(av.error.FFmpegError):
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.error.EOFError:
                    break
                except av.error.FFmpegError as error:
                    failure = error
                    continue
                n_frames += len(frames)
                yield from frames
        if failure is not None and n_frames == 0:
            raise undecodable(self.path, "PyAV", str(failure.strerror))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    import av

    # What it has to say of damage is told by us, in one line.
    av.logging.set_level(None)
    options = {"format_whitelist": ONLY_AUDIO_FILES}
    try:
        # The prefix keeps a file name such as "http:x" from being taken for something else.
        with av.open(f"file:{path}", container_options=options, metadata_errors="ignore") as found:
            if not found.streams.audio:
                raise AudioError(f"{path}: holds no audio stream; give an audio file")
            yield found, found.streams.audio[0]
    except av.error.FFmpegError as error:
        raise undecodable(path, "PyAV", str(error.strerror)) from None


def _seconds(duration: int | None, unit: Any) -> float | None:
    seconds = float(duration * unit) if duration and unit else 0.0
    return seconds if 0 < seconds < 1e9 else None


def _kind(frame: Any) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.rate
