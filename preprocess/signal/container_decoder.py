"""What containers that libsndfile does not know say of themselves: the base of their decoders."""

from dataclasses import dataclass, field
from pathlib import Path

from preprocess.clips.audio_files import FFMPEG_SUFFIXES, MOST_MISSING
from preprocess.signal.decoders import LEAD_SECONDS, Part, middle_part
from tagger.base.errors import AudioError
from tagger.base.extras import install_command

# Formats that refer to no other files: a playlist by the name of a song would be followed.
ONLY_AUDIO_FILES = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,loas,matroska,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,ogg,rm,tak,truehd,tta,voc,w64,wav,webm,wv,xwma"
)

# Containers that say how long they are; of others their length is estimated.
_MEASURED = frozenset({"mov", "matroska", "asf", "wv", "tta", "ape", "caf"})


@dataclass
class ContainerDecoder:
    """A container whose audio another library decodes.

    Parameters
    ----------
    path : Path
        The file.
    sample_rate, n_channels : int
        Of its first audio stream.
    seconds : float, optional
        How long it says that it is.
    format_name : str
        Names of its format, by commas.
    most_missing : float
        Share of its audio that may be missing.
    """

    path: Path
    sample_rate: int
    n_channels: int
    seconds: float | None
    format_name: str
    most_missing: float = MOST_MISSING
    missing: float = field(default=0.0, init=False)

    def middle(self, seconds: float) -> Part | None:  # noqa: D102 (in Decoder)
        if self.seconds is None:
            raise AudioError(
                f"{self.path}: it does not say how long it is, so that its middle is not known; "
                "use all of it, or convert it to wav, flac, ogg or mp3"
            )
        n_frames = round(self.seconds * self.sample_rate)
        return middle_part(self.path, seconds, n_frames=n_frames, sample_rate=self.sample_rate)

    def _missing(self, n_read: int, part: Part | None) -> float:
        """Share of the audio that nothing came of; 0 where nobody knows how much it is."""
        if part is None and _MEASURED.isdisjoint(self.format_name.split(",")):
            return 0.0
        wanted = self.seconds if part is None else part.length
        # Encoders add a little in front, which not every container tells.
        if not wanted or wanted - n_read / self.sample_rate < LEAD_SECONDS:
            return 0.0
        return 1 - n_read / self.sample_rate / wanted


def undecodable(path: Path, decoder: str, reason: str) -> AudioError:
    """Error of a file that a decoder cannot read."""
    return AudioError(
        f"{path}: {decoder} cannot decode it ({reason}); convert it to wav, flac, ogg or mp3"
    )


def nothing_decodes(path: Path, kind: str | None) -> AudioError:
    """Error of a file for which nothing is installed; `kind` is what it is, in words."""
    what = f"{path.suffix} files need"
    if kind is not None and path.suffix.lower() not in FFMPEG_SUFFIXES:
        what = f"is {kind}{f' named {path.suffix}' if path.suffix else ''}, and needs"
    return AudioError(
        f"{path}: {what} ffmpeg, which is not installed; install it, or its libraries with "
        f"{install_command('m4a')}, or convert the file to wav, flac, ogg or mp3"
    )
