"""Audio files that libsndfile does not know -> samples, through a pipe from ffmpeg."""

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from preprocess.clips.audio_files import MOST_MISSING
from preprocess.signal.container_decoder import ONLY_AUDIO_FILES, ContainerDecoder, undecodable
from preprocess.signal.decoders import Part, Samples, block_frames, require_most_of
from tagger.base.errors import AudioError

_WHITELIST = ("-format_whitelist", ONLY_AUDIO_FILES)

# For a block, or for the whole file where it is read at once.
_FFMPEG_TIMEOUT_SECONDS = 600


class FfmpegDecoder(ContainerDecoder):
    """m4a, aac and others, through a pipe from ffmpeg."""

    @staticmethod
    def is_installed() -> bool:
        """Tell whether there are the programs that it needs."""
        return all(shutil.which(name) is not None for name in ("ffmpeg", "ffprobe"))

    @classmethod
    def probe(cls, path: Path, *, most_missing: float = MOST_MISSING) -> "FfmpegDecoder":
        """Ask ffprobe for what raw samples do not tell of themselves.

        Parameters
        ----------
        path : Path
            The file.
        most_missing : float
            Share of its audio that may be missing.
        """
        entries = "stream=sample_rate,channels,duration:format=duration,format_name"
        command = ["ffprobe", "-v", "error", *_WHITELIST, "-select_streams", "a:0"]
        command += ["-show_entries", entries]
        try:
            probe = subprocess.run(  # noqa: S603 (no shell; the name begins with no dash)
                [*command, "-of", "json", _ffmpeg_name(path)],
                capture_output=True,
                timeout=_FFMPEG_TIMEOUT_SECONDS,
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise _ffmpeg_too_slow(path) from None
        except subprocess.CalledProcessError as error:
            raise _ffmpeg_failed(path, error.stderr) from None
        try:
            found = json.loads(probe.stdout)
            streams = found.get("streams")
            if not streams:
                raise AudioError(f"{path}: holds no audio stream; give an audio file")
            stream = streams[0]
            rate, channels = int(stream["sample_rate"]), int(stream["channels"])
            if channels < 1:
                raise ValueError("no channels")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _ffmpeg_failed(path, b"ffprobe tells no sample rate and channels") from None
        container = found.get("format")
        names = str(container.get("format_name", "")) if isinstance(container, dict) else ""
        seconds = _duration(stream) or _duration(container)
        return cls(path, rate, channels, seconds, names, most_missing)

    def blocks(  # noqa: D102
        self, part: Part | None, block_seconds: float | None
    ) -> Generator[tuple[Samples, int], None, None]:
        cut = [] if part is None else ["-ss", f"{part.start:.6f}", "-t", f"{part.length:.6f}"]
        # Rate and channels are those of the file; given, they cannot be others than is thought.
        form = ["-ar", str(self.sample_rate), "-ac", str(self.n_channels)]
        source = [*_WHITELIST, *cut, "-i", _ffmpeg_name(self.path), "-map", "0:a:0"]
        command = ["ffmpeg", "-v", "error", "-nostdin", *source, *form, "-f", "f32le"]
        size = None
        if block_seconds is not None:
            size = block_frames(block_seconds, self.sample_rate, self.n_channels)
        n_read, self.missing = 0, 0.0
        # Into a file, for a pipe that nobody reads would stop ffmpeg when it is full.
        with (
            tempfile.TemporaryFile() as complaints,
            subprocess.Popen(  # noqa: S603 (no shell; the name begins with no dash)
                [*command, "-c:a", "pcm_f32le", "-"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
            ) as process,
        ):
            try:
                while True:
                    samples = self._read(process, size)
                    ended = size is None or len(samples) < size
                    n_read += len(samples)
                    if ended:
                        self.missing = self._missing(n_read, part)
                        self._require_success(process, complaints, n_read)
                    yield samples, self.sample_rate
                    if ended:
                        break
            finally:
                # Dropped half way, it would wait for a reader for ever.
                process.kill()

    def _read(self, process: "subprocess.Popen[bytes]", size: int | None) -> Samples:
        assert process.stdout is not None
        frame_bytes = 4 * self.n_channels
        with _killed_after(process, _FFMPEG_TIMEOUT_SECONDS) as overdue:
            content = process.stdout.read(-1 if size is None else size * frame_bytes)
        if overdue.is_set():
            raise _ffmpeg_too_slow(self.path)
        n_frames, left_over = divmod(len(content), frame_bytes)
        if left_over:
            raise AudioError(
                f"{self.path}: what ffmpeg decodes of it breaks off within a sample; "
                "convert it to wav, flac, ogg or mp3"
            )
        samples = np.frombuffer(content, dtype="<f4").reshape(n_frames, self.n_channels)
        # A copy that may be written to, as from every other decoder.
        return samples.astype(np.float32)

    def _require_success(
        self, process: "subprocess.Popen[bytes]", complaints: IO[bytes], n_read: int
    ) -> None:
        with _killed_after(process, _FFMPEG_TIMEOUT_SECONDS) as overdue:
            status = process.wait()
        if overdue.is_set():
            raise _ffmpeg_too_slow(self.path)
        if status != 0 and not 0 < self.missing <= self.most_missing:
            complaints.seek(0)
            raise _ffmpeg_failed(self.path, complaints.read())
        if n_read == 0:
            raise AudioError(
                f"{self.path}: ffmpeg decodes nothing of it; convert it to wav, flac, ogg or mp3"
            )
        require_most_of(self.path, self.missing, most_missing=self.most_missing)


def _ffmpeg_name(path: Path) -> str:
    # The prefix keeps a file name such as "-i" or "http:x" from being taken for something else.
    return f"file:{path}"


def _duration(entry: Any) -> float | None:
    try:
        seconds = float(entry["duration"])
    except (KeyError, TypeError, ValueError):
        return None
    # Not of NaN or infinity.
    return seconds if 0 < seconds < 1e9 else None


@contextmanager
def _killed_after(process: "subprocess.Popen[bytes]", seconds: float) -> Iterator[threading.Event]:
    """Kill a process that keeps its reader waiting; the event tells that it was."""
    overdue = threading.Event()

    def kill() -> None:
        overdue.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield overdue
    finally:
        timer.cancel()


def _ffmpeg_too_slow(path: Path) -> AudioError:
    return AudioError(
        f"{path}: ffmpeg did not finish within {_FFMPEG_TIMEOUT_SECONDS} s; convert the file"
    )


def _ffmpeg_failed(path: Path, complaints: bytes) -> AudioError:
    lines = complaints.decode("utf-8", "replace").strip().splitlines()
    return undecodable(path, "ffmpeg", lines[-1] if lines else "unknown reason")
