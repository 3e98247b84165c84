"""Kinds of inputs that are mutated, and the public entry points that they are given to."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
from fuzzing import (
    REFUSED,
    TEXTS,
    Kind,
    integer_bytes,
    mutated,
    mutated_json,
    nested,
    write_file,
)

RATE = 16000


def _copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, dirs_exist_ok=True)
    return target


# ---- audio -------------------------------------------------------------------------------------

# Suffix, format, subtype, rate, channels, seconds.
_FORMATS = (
    ("wav", "WAV", "PCM_16", 16000, 1, 0.2), ("wav", "WAV", "PCM_24", 44100, 2, 0.1),
    ("wav", "WAV", "FLOAT", 22050, 2, 0.1), ("wav", "WAV", "ULAW", 8000, 1, 0.3),
    ("wav", "WAV", "DOUBLE", 16000, 1, 0.1), ("wav", "WAV", "PCM_U8", 11025, 1, 0.1),
    ("wav", "WAV", "IMA_ADPCM", 16000, 1, 0.2), ("wav", "WAV", "MS_ADPCM", 16000, 2, 0.2),
    ("wav", "WAV", "GSM610", 8000, 1, 0.3), ("wav", "WAVEX", "PCM_16", 48000, 2, 0.1),
    ("wav", "RF64", "PCM_16", 16000, 1, 0.2), ("aiff", "AIFF", "PCM_16", 44100, 2, 0.1),
    ("aif", "AIFF", "FLOAT", 16000, 1, 0.1), ("au", "AU", "PCM_16", 16000, 1, 0.1),
    ("au", "AU", "ULAW", 8000, 1, 0.2), ("caf", "CAF", "PCM_16", 16000, 2, 0.1),
    ("caf", "CAF", "ALAC_16", 44100, 2, 0.2), ("w64", "W64", "PCM_16", 16000, 1, 0.1),
    ("flac", "FLAC", "PCM_16", 16000, 1, 0.3), ("flac", "FLAC", "PCM_24", 44100, 2, 0.1),
    ("ogg", "OGG", "VORBIS", 16000, 1, 0.3), ("oga", "OGG", "VORBIS", 44100, 2, 0.2),
    ("opus", "OGG", "OPUS", 48000, 1, 0.3), ("mp3", "MP3", "MPEG_LAYER_III", 16000, 1, 0.4),
    ("mp3", "MP3", "MPEG_LAYER_III", 44100, 2, 0.2),
)  # fmt: skip


@functools.cache
def audio_seeds() -> tuple[tuple[str, bytes], ...]:
    """Short files in all formats that libsndfile writes: suffix, content."""
    import soundfile as sf

    rng, found = np.random.default_rng(0), []
    for suffix, form, subtype, rate, channels, seconds in _FORMATS:
        times = np.arange(round(rate * seconds)) / rate
        tone = 0.4 * np.sin(2 * np.pi * 440 * times)[:, np.newaxis]
        samples = tone + 0.05 * rng.standard_normal((len(times), channels))
        file = io.BytesIO()
        sf.write(file, samples, rate, format=form, subtype=subtype)
        found.append((suffix, file.getvalue()))
    return tuple(found)


def _ogg_crc(page: bytes) -> int:
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def _right_ogg_checksums(content: bytes) -> bytes:
    """Compute anew what would have a changed page skipped, of the first pages alone."""
    data, at = bytearray(content), 0
    for _ in range(3):
        at = data.find(b"OggS", at)
        if at < 0 or len(data) < at + 27:
            break
        end = at + 27 + data[at + 26]
        end += sum(data[at + 27 : end])
        if end - at > 1500:
            break
        data[at + 22 : at + 26] = bytes(4)
        data[at + 22 : at + 26] = _ogg_crc(bytes(data[at:end])).to_bytes(4, "little")
        at = end
    return bytes(data)


def _hostile_header(rng: random.Random, suffix: str, content: bytes) -> bytes:
    """Numbers that a header promises: frames, rate, channels, sizes of chunks."""
    data = bytearray(content)
    if data[:4] in (b"RIFF", b"RF64"):
        at = rng.choice((4, 16, 20, 22, 24, 28, 32, 34, data.find(b"data") + 4))
    elif data[:4] == b"FORM":
        at = data.find(b"COMM") + rng.choice((4, 8, 10, 14, 16, 18))
    elif data[:4] == b"fLaC":
        # Sizes of blocks, rate and channels, 36 bits of length.
        at = 8 + rng.choice((0, 2, 10, 12, 13, 14))
        if rng.random() < 0.3:
            data[8 + 13] |= 0x0F
            data[8 + 14 : 8 + 18] = b"\xff\xff\xff\xff"
            return bytes(data)
    elif data[:4] == b".snd":
        at = rng.choice((4, 8, 12, 16, 20))
    elif data[:4] == b"caff":
        at = rng.choice((12, 20, 28, 36, 40, 44, 48, 60, 68, 76))
    elif data[:4] == b"riff":
        at = rng.choice((16, 40, 56, 64, 68, 76, 80, 96, 104))
    elif data[:4] == b"OggS":
        at = rng.choice((6, 26, 28, 37, 39, 40, 44, 56, data.rfind(b"OggS") + 6))
    else:
        # Xing or Info: frames and bytes.
        at = max(data.find(b"Info"), data.find(b"Xing"), 0) + rng.choice((0, 4, 8, 12, 16))
    number = integer_bytes(rng)
    data[at : at + len(number)] = number
    return bytes(data)


def mutated_audio(rng: random.Random) -> tuple[str, bytes]:
    """Suffix and content of a mutated audio file."""
    seeds = audio_seeds()
    suffix, content = rng.choice(seeds)
    if rng.random() < 0.35:
        content = _hostile_header(rng, suffix, content)
    if rng.random() < 0.8:
        content = mutated(rng, content, rng.choice(seeds)[1])
    if content[:4] == b"OggS" and rng.random() < 0.7:
        content = _right_ogg_checksums(content)
    if rng.random() < 0.05:
        suffix = rng.choice(("wav", "mp3", "au", "flac", "ogg", "raw", "vox", "m4a", "aac", "xyz"))
    return suffix, content


class Audio(Kind):
    """Audio files, to what decodes them."""

    def __init__(self, folder: Path, seeds: Path) -> None:
        super().__init__(folder, seeds)
        from preprocess.signal.audio import load_audio
        from preprocess.signal.features import FRONT_ENDS
        from preprocess.signal.windows import stream_windows, windows_of_file

        self._load_audio, self._stream = load_audio, stream_windows
        self._windows_of_file = windows_of_file
        self._front_end = FRONT_ENDS.create("vggish", {})

    def _entry(self, path: Path, how: int):
        def enter():
            if how == 0:
                self._load_audio(path, target_rate=RATE)
            elif how == 1:
                self._windows_of_file(path, self._front_end)
            else:
                middle = 0.1 if how == 2 else None
                for _ in self._stream(path, self._front_end, middle_seconds=middle):
                    pass

        return enter

    def whole(self):
        files = [
            write_file(self.folder / f"{n}.{suffix}", content)
            for n, (suffix, content) in enumerate(audio_seeds())
        ]
        # libsndfile does not seek in GSM.
        return [
            self._entry(path, how)
            for path, (*_, subtype, _, _, _) in zip(files, _FORMATS, strict=True)
            for how in range(4)
            if how != 2 or subtype != "GSM610"
        ]

    def make(self, rng):
        suffix, content = mutated_audio(rng)
        return self._entry(write_file(self.folder / f"a.{suffix}", content), rng.randrange(6))


class Metadata(Kind):
    """Audio files, to what writes tags into them."""

    # mutagen asks for as many bytes as a chunk is said to have; no more are used than there are.
    asks_for_what_is_promised = True

    def _entry(self, path: Path, undo: bool):
        from tagger.tagging.file_tags import undo_tags, write_tags

        def enter():
            if undo:
                undo_tags(path)
            write_tags(path, ["rock", "a tag"])
            undo_tags(path)

        return enter

    def whole(self):
        good = ("wav", "aiff", "flac", "ogg", "opus", "mp3")
        return [
            self._entry(write_file(self.folder / f"{n}.{suffix}", content), n % 2 == 0)
            for n, (suffix, content) in enumerate(audio_seeds())
            if suffix in good and content[:4] != b"RF64"
        ]

    def make(self, rng):
        from tagger.tagging.file_tags import write_tags

        suffix, content = mutated_audio(rng)
        if rng.random() < 0.6:
            # Fields that are there already are mutated as well.
            suffix, whole = rng.choice([item for item in audio_seeds() if item[0] != "caf"])
            path = write_file(self.folder / f"b.{suffix}", whole)
            with contextlib.suppress(Exception):
                write_tags(path, ["x", "y"])
            content = mutated(rng, path.read_bytes())
        return self._entry(write_file(self.folder / f"a.{suffix}", content), rng.random() < 0.5)


# ---- annotations -------------------------------------------------------------------------------

_MTT = (
    b'"clip_id"\t"guitar"\t"slow"\t"mp3_path"\r\n'
    b'"10"\t"1"\t"0"\t"0/ann-first-01-river-0-29.mp3"\r\n'
    b'"11"\t"0"\t"1"\t"c/ann-first-02-stone-0-29.mp3"\r\n'
    b'"12"\t"1"\t"1"\t"d/bob-loud-01-steel-29-58.mp3"\r\n'
)
_INFO = (
    b'"clip_id"\t"title"\t"artist"\t"album"\r\n"10"\t"river"\t"ann"\t"first"\r\n'
    b'"11"\t"stone"\t"ann"\t"first"\r\n"12"\t"steel"\t"bob"\t"loud"\r\n'
)
_CLIPS = (
    b"path,tags,part,artist,track,album\n0/song.mp3,rock;fast,train,ann,one,x\n"
    b'1/other.wav,"slow; rock",test,bob,two,y\n2/third.flac,slow,validation,cid,three,z\n'
)
_TRACKS = (
    b",set,set,album,artist,track\n,split,subset,id,id,genre_top\ntrack_id,,,,,\n"
    b"2,training,small,1,1,Rock\n5,test,small,1,2,Folk\n140,validation,small,3,3,Rock\n"
)
_FEATURES = (
    b"filename,length,tempo,rms,label\nblues.00000.0.wav,66149,1.5,2e3,blues\n"
    b"blues.00000.1.wav,66149,2.5,-1,blues\nrock.00001.0.wav,66149,0,20,rock\n"
)
_FEATURE_PARAMS = {"files": ["features.csv"], "group": r"^(\w+\.\d+)"}
_SYNONYMS = b"guitar: [slow]\nrock: [fast]\n"
_PATHS = (
    "../canary/x.mp3", "/etc/passwd", "..\\canary\\x.mp3", "C:\\x.mp3", "\\\\host\\x.mp3",
    "0/../../canary/x.mp3", "gs://bucket/x.mp3", "file:///etc/passwd", ".", "..", "/", "0/./x",
    "0//x.mp3", "~/x.mp3", "link/x.mp3", "a" * 5000, "0/a\0b.mp3", "0/\x1b[31m.mp3", " ", "",
    "//x.mp3", "0/..", "...",
)  # fmt: skip
_FIELDS = (
    "1", "0", "2", "", " ", '"', '""', "1\t", ",", ";", "\r", "\n", "x" * 200_000, "\0", "\ufeff",
    "=1+1", "é", "\u2028", "nan", "-1", "1e400", *_PATHS,
)  # fmt: skip


_POSSIBLE = ("1", "0", '"1"', '"0"', "é", "a;b", "x/y.mp3", "3/a-b-c-0-9.mp3", "train", "ann", "20")


def mutated_table(rng: random.Random, content: bytes, separator: str) -> bytes:
    """Change fields, rows, quotes and encoding of a table."""
    how = rng.randrange(10)
    if how < 2:
        return mutated(rng, content, _CLIPS)
    # Others are hardly ever read, and what follows is not reached.
    fields = _FIELDS if how < 6 else _POSSIBLE
    lines = [line.split(separator) for line in content.decode().splitlines()]
    for _ in range(rng.choice((1, 1, 2, 5))):
        row = rng.choice(lines if how < 6 else lines[1:])
        at = rng.randrange(len(row)) if row else 0
        kind = rng.randrange(8) if how < 6 else rng.choice((0, 0, 0, 6))
        if kind < 3 and row:
            row[at] = rng.choice(fields)
        elif kind == 3 and row:
            row[at] = '"' + rng.choice(_PATHS) + '"'
        elif kind == 4:
            field = rng.choice(fields)
            row[at:at] = [field] * (1 if len(field) > 1000 else rng.choice((1, 2, 300)))
        elif kind == 5:
            del row[at:]
        elif kind == 6:
            lines.insert(rng.randrange(len(lines) + 1), list(row))
        else:
            rng.shuffle(lines)
    end = rng.choice(("\n", "\n", "\r\n", "\r"))
    text = end.join(separator.join(row) for row in lines) + rng.choice(("", end, end * 50))
    others = ("utf-8-sig", "utf-16", "latin-1", "utf-32", "cp1252")
    encoding = rng.choice(others) if rng.random() < 0.15 else "utf-8"
    return text.encode(encoding, "replace")


class Annotations(Kind):
    """Tables of annotations, to data sets, splits and vocabularies."""

    also_named = ("data.tags", "data.synonyms")

    def _entry(self, name: str, params: dict, *, split: str, wanted: object = "all"):
        from preprocess.clips.datasets import DATASETS
        from preprocess.clips.splits import split_parts
        from preprocess.clips.vocabulary import read_synonyms, resolve_vocabulary

        root = self.folder / "data"

        def enter():
            index = DATASETS.create(name, params).index(root)
            for clip in index.clips:
                place = os.path.normpath(root / clip.path)
                assert place.startswith(f"{root}{os.sep}"), f"clip outside its root: {clip.path!r}"
            synonyms = self.folder / "data" / "synonyms.yaml"
            merged = read_synonyms(synonyms) if synonyms.exists() else None
            vocabulary = resolve_vocabulary(index, wanted, synonyms=merged)
            vocabulary.labels(index.labels, index.tags)
            split_parts(index, split)

        return enter

    def whole(self):
        write_file(self.folder / "data/annotations_final.csv", _MTT)
        write_file(self.folder / "data/clip_info_final.csv", _INFO)
        write_file(self.folder / "data/clips.csv", _CLIPS)
        write_file(self.folder / "data/fma_metadata/tracks.csv", _TRACKS)
        write_file(self.folder / "data/features.csv", _FEATURES)
        return [
            *(self._entry("magnatagatune", {}, split=s) for s in ("folder", "artist", "won2020")),
            *(self._entry("tag_csv", {}, split=s) for s in ("column", "artist", "random")),
            self._entry("fma", {}, split="column"),
            self._entry("feature_table", _FEATURE_PARAMS, split="random"),
        ]

    def make(self, rng):
        root = self.folder / "data"
        kind, params, separator = rng.random(), {}, ","
        if kind < 0.4:
            name, split = "magnatagatune", rng.choice(("folder", "artist", "random", "won2020"))
            tables = {"annotations_final.csv": _MTT, "clip_info_final.csv": _INFO}
            separator = "\t"
        elif kind < 0.8:
            name, split = "tag_csv", rng.choice(("column", "artist", "random"))
            tables = {"clips.csv": _CLIPS}
        elif kind < 0.9:
            name, split, tables = "fma", "column", {"fma_metadata/tracks.csv": _TRACKS}
        else:
            name, split, params = "feature_table", "random", _FEATURE_PARAMS
            tables = {"features.csv": _FEATURES}
        chosen = rng.choice(list(tables))
        for file, content in tables.items():
            if file == chosen:
                content = mutated_table(rng, content, separator)
            write_file(root / file, content)
        if rng.random() < 0.15:
            write_file(root / "synonyms.yaml", mutated_yaml(rng, _SYNONYMS))
        if rng.random() < 0.03:
            (root / chosen).unlink()
            (root / chosen).symlink_to(rng.choice((chosen, self.folder / "gone", "/dev/null")))
        wanted = rng.choice(("all", "all", 1, 2, 50, ["guitar"], ["rock", "slow"]))
        return self._entry(name, params, split=split, wanted=wanted)


# ---- configs -----------------------------------------------------------------------------------

_BOMB = b"a0: &a0 [x, x]\n" + b"".join(
    b"a%d: &a%d [*a%d, *a%d, *a%d, *a%d]\n" % (n, n, n - 1, n - 1, n - 1, n - 1)
    for n in range(1, 40)
)
_YAML = (
    b"!!python/object/apply:os.system ['touch /tmp/never']", b"!!python/name:os.system", b"*x",
    b"!!python/object/new:subprocess.Popen [[touch, never]]", b"!!binary not", b"2001-99-99",
    b"&a [*a]", b"&a {x: *a}", b"<<: *b", b"!!int x", b"0x", b"1e400", b".inf", b".nan", b"~",
    b"!!timestamp x", b"? [a]\n: b", b"? {a: b}\n: c", b"[" * 3000, b"{" * 2000, b"\t",
    b"- " * 3000,
    b"!!set {a, b}", b"!!omap [a: b]", b"!!pairs [a: b]", b"'", b'"\\x00"', b'"\\ud800"', b"0o17",
    b"9" * 10_000, b"190:20:30:99999999", b"!!float x", b"%YAML 9.9\n---\n", b"--- a\n--- b\n",
    b"!<tag:yaml.org,2002:python/object:os.X> {}", b"\xef\xbb\xbf", b"\xff\xfea\0",
    b"2" + b":59" * 5000,
)  # fmt: skip


_POSSIBLE_VALUES = (
    b"1",
    b"0",
    b"0.5",
    b"true",
    b"null",
    b"a",
    b"[a, b]",
    b"1e-3",
    b"gs://b/c",
    b"{}",
)


def mutated_yaml(rng: random.Random, content: bytes) -> bytes:
    """Change values, lines and bytes of a YAML file."""
    how = rng.randrange(16)
    if how < 2:
        return mutated(rng, content)
    if how > 11:
        lines = content.splitlines()
        at = rng.choice([at for at, line in enumerate(lines) if not line.endswith(b":")])
        lines[at] = lines[at].partition(b":")[0] + b": " + rng.choice(_POSSIBLE_VALUES)
        return b"\n".join(lines) + b"\n"
    if how == 2:
        return content + b"\n" + rng.choice(_YAML)
    if how == 3:
        bomb = _BOMB if rng.random() < 0.3 else b"".join(_BOMB.splitlines(keepends=True)[:9])
        key = content.split(b":")[0].splitlines()[-1]
        return bomb + rng.choice((b"", content, key + b": *a8\n", b"data: {name: *a8}\n"))
    lines = content.splitlines()
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        line, what = lines[at], rng.randrange(6)
        value = rng.choice(_YAML) if rng.random() < 0.5 else _text(rng)
        if what < 3:
            lines[at] = line.partition(b":")[0] + b": " + value
        elif what == 3:
            lines[at] = line.replace(b":", b"x:", 1)
        elif what == 4:
            lines.insert(at, rng.choice(lines))
        else:
            lines[at] = b" " * rng.choice((1, 2, 4)) + line
    return b"\n".join(lines) + b"\n"


def _text(rng: random.Random) -> bytes:
    value = rng.choice((*TEXTS, -1, 0, 10**30, 0.5, True, None, [], {}, [1], {"a": 1}, nested(400)))
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


_SPACE = (
    b"train.learning_rate: {low: 0.0001, high: 0.1, log: true}\n"
    b"stream.batch_size: [16, 32]\ntrain.epochs: {low: 1, high: 9, step: 2}\n"
)


class Configs(Kind):
    """Configs and what overrides them, to what reads them."""

    also_named = ("--set", "tagger config show")
    reads_elsewhere = True

    def __init__(self, folder: Path, seeds: Path) -> None:
        super().__init__(folder, seeds)
        from tagger.config import load_config, with_overrides
        from tagger.train.search import read_space

        self._load_config, self._read_space = load_config, read_space
        self._with_overrides = with_overrides
        self._default = load_config(None)
        self._default.save(folder / "default.yaml")
        self._full = (folder / "default.yaml").read_bytes()
        self._keys = [
            f"{section}.{key}"
            for section, values in self._default.to_dict().items()
            # A section that is not given has no keys.
            for key in values or ()
        ]

    def _load(self, path: Path | None, overrides: list[str]):
        def enter():
            config = self._load_config(path, overrides)
            # What is read can be written and read again.
            config.save(self.folder / "saved.yaml")
            assert self._load_config(self.folder / "saved.yaml") == config

        return enter

    def whole(self):
        path = write_file(self.folder / "a.yaml", self._full)
        space = write_file(self.folder / "space.yaml", _SPACE)
        return [
            self._load(path, ["train.epochs=5"]),
            lambda: self._read_space(space),
        ]

    def make(self, rng):
        what = rng.randrange(10)
        if what < 2:
            space = write_file(self.folder / "space.yaml", mutated_yaml(rng, _SPACE))

            def search():
                read = self._read_space(space)
                first = {k: v[0] if isinstance(v, list) else v.low for k, v in read.items()}
                self._with_overrides(self._default, first)

            return search
        if what < 4:
            key = rng.choice((*self._keys, *TEXTS[:12], "data", "a.b.c", "." * 50))
            value = rng.choice(_YAML) if rng.random() < 0.5 else _text(rng)
            return self._load(None, [f"{key}={value.decode('utf-8', 'replace')}"])
        content = mutated_yaml(rng, self._full)
        if rng.random() < 0.1:
            content += b"extends: " + rng.choice((b"a.yaml", b"b.yaml", b".", b"''", _text(rng)))
            write_file(self.folder / "b.yaml", b"extends: a.yaml\n")
        return self._load(write_file(self.folder / "a.yaml", content), [])


# ---- pickles -----------------------------------------------------------------------------------


class _Calls:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments) -> None:
        self._parts = (function, arguments)

    def __reduce__(self):
        return self._parts


def _attacks() -> list[bytes]:
    import builtins
    import operator
    import subprocess

    calls = [
        _Calls(os.system, "touch never"),
        _Calls(builtins.eval, "__import__('os').system('touch never')"),
        _Calls(builtins.exec, "open('../canary/x','w')"),
        _Calls(subprocess.Popen, ["touch", "never"]),
        _Calls(builtins.open, "never", "w"),
        _Calls(operator.attrgetter, "x"),
        _Calls(builtins.bytearray, 1 << 40),
        _Calls(np.load, "x", None, True),
        _Calls(np.ndarray, (1 << 30,)),
        _Calls(np.zeros, 1 << 32),
    ]
    found = [pickle.dumps(call, protocol) for call in calls for protocol in (2, 3, 4, 5)]
    found += [
        b"cos\nsystem\n(S'touch never'\ntR.", b"\x80\x02cposix\nsystem\nX\x05\0\0\0touch\x85R.",
        b"\x80\x04\x95\x05\0\0\0\0\0\0\0\x8c\x01xQ.", b"Px\n.", b"\x80\x02\x82\x01.",
        b"\x80\x02\x83\xff\xff.", b"\x80\x02\x84\xff\xff\xff\x7f.", b"(ios\nsystem\n.",
        b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.",
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"x.",
        b"\x80\x05\x96" + (3 << 30).to_bytes(8, "little") + b"x.",
        b"\x80\x04\x8d" + (1 << 62).to_bytes(8, "little") + b"x.",
        b"\x80\x02\x8b\xff\xff\xff\x7fx.", b"\x80\x02]r\xff\xff\xff\x7f.",
        b"\x80\x02Nr\xff\xff\xff\xff.",
        b"\x80\x04\x95" + (1 << 50).to_bytes(8, "little") + b"N.", b"\x80\x05\x97.",
        b"\x80\x05\x98.",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x02" + b")" + b"\x85" * 200_000 + b".",
        b"\x80\x02" + b"(" * 100_000 + b".", b"\x80\x02]" + b"2a" * 500 + b".",
        b"\x80\x02]q\0h\0a.", b"\x80\x02}q\0h\0h\0s.", b"\x80\x02" + b"}" * 3 + b"Ns.",
        b"\x80\x02](h\0" + b"2" * 1000 + b"e.", b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".",
        b"\x80\x04]\x94" + b"]\x94(h\0h\0e" * 50 + b".",
    ]  # fmt: skip
    # Each list holds the one before it ten times: as a tree it would be exponentially large.
    bomb = b"\x80\x02]q\x00"
    for n in range(60):
        bomb += b"](" + b"h" + bytes([n]) + b"h" + bytes([n]) + b"eq" + bytes([n + 1])
    found.append(bomb + b".")
    # Arrays whose shapes promise more than they hold, or nothing at all.
    whole = pickle.dumps(np.arange(6, dtype=np.float32), 2)
    for shape in (b"M\xff\xff", b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff", b"K\x00"):
        found.append(whole.replace(b"K\x06\x85", shape + b"\x85"))
    objects = np.array([_Calls(os.system, "touch never")], dtype=object)
    found += [pickle.dumps(objects, protocol) for protocol in (2, 5)]
    found.append(pickle.dumps(np.zeros(2, dtype=[("a", "O"), ("b", "f4")])))
    found.append(pickle.dumps(np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")])))
    found.append(pickle.dumps(np.ma.zeros(3)))
    return found


class Pickles(Kind):
    """Pickles, to the safe reader, and to the store that they are in."""

    allowed = (pickle.UnpicklingError,)

    def __init__(self, folder: Path, seeds: Path) -> None:
        super().__init__(folder, seeds)
        from preprocess.store.store import Store
        from tagger.untrusted import pickles as safe_pickle

        self._safe_pickle, self._store_class = safe_pickle, Store
        self._root = self.folder / "store"
        rng = np.random.default_rng(0)
        self._store = seeds / "store"
        windows = rng.normal(size=(2, 4, 3)).astype(np.float16)
        value = {"id": "1", "label": np.ones(3, np.uint8), "windows": {"log_mel": windows}}
        value["more"] = [None, True, 1.5, 1 << 70, "é", b"x" * 300, (1, 2, 3), {"a": [1]}]
        self._plain = [pickle.dumps(value, protocol) for protocol in (2, 3, 4, 5)]
        fortran = {**value, "windows": {"a": np.asfortranarray(np.ones((3, 4)))}}
        self._plain += [
            pickle.dumps(fortran, 5),
            pickle.dumps(np.ones((2, 3, 4)).transpose(1, 0, 2)),
        ]
        self._attacks = _attacks()

    def _read(self, content: bytes):
        def enter():
            value = self._safe_pickle.loads(content)
            _require_plain(value, {})

        return enter

    def _clip(self, content: bytes):
        from preprocess.store.stored_clips import StoredClip
        from tagger.base.files import content_hash

        root = _copy(self._store, self._root)
        store = self._store_class(root)
        clip = store.clips[0]
        write_file(root / clip.file, content)
        changed = StoredClip(**{**vars(clip), "checksum": content_hash(content)})

        def enter():
            from preprocess.store.store import read_clip

            for array in read_clip(root, changed, store.spec)["windows"].values():
                float(array.sum())

        return enter

    def whole(self):
        store = self._store_class(self._store)
        content = (self._store / store.clips[0].file).read_bytes()
        self._stored = content
        return [*(self._read(plain) for plain in self._plain), self._clip(content)]

    def make(self, rng):
        what = rng.randrange(20)
        if what < 4:
            content = rng.choice(self._attacks)
            if rng.random() < 0.5:
                content = mutated(rng, content[:4000])
            elif rng.random() < 0.3:
                # Within a value that looks right.
                content = rng.choice(self._plain)[:-1] + b"0" + content.removeprefix(b"\x80\x02")
        elif what < 6:
            return self._clip(mutated(rng, rng.choice((self._stored, *self._attacks))))
        else:
            content = mutated(rng, rng.choice(self._plain), rng.choice(self._plain))
        return self._read(content)


def _require_plain(value: object, seen: dict) -> None:
    """Check that a value is what the safe reader promises."""
    stack = [value]
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen[id(item)] = item
        kinds = (type(None), bool, int, float, str, bytes, list, tuple, dict, np.ndarray)
        assert type(item) in kinds, f"a {type(item)} came through"
        if isinstance(item, np.ndarray):
            assert item.dtype.kind in "biuf" and not item.flags.writeable
            # Read all of it: one that reaches beyond its buffer would end the process.
            item.tobytes()
        elif isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            stack += item


# ---- stores ------------------------------------------------------------------------------------


class Stores(Kind):
    """Manifests, journals and shards, to what opens a store."""

    def __init__(self, folder: Path, seeds: Path) -> None:
        super().__init__(folder, seeds)
        import preprocess.store.shards
        import preprocess.store.store

        self._module, self._shards = preprocess.store.store, preprocess.store.shards
        self._manifest = (seeds / "store/manifest.json").read_bytes()
        store = self._module.Store(seeds / "store")
        self._spec, self._tags = store.spec, store.tags
        header = self._module._header(store.spec, store.tags)
        lines = [header, *(clip.to_json() for clip in store.clips)]
        self._journal = b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    def _open(self, root: Path):
        def enter():
            store = self._module.Store(root)
            for clip in store.index.clips:
                assert isinstance(clip.path, str)
            store.n_windows.sum()
            store.require_front_end(_vggish(), user="the test")
            for row in range(min(2, len(store))):
                store.read(row)

        return enter

    def _fill(self, root: Path):
        def enter():
            writer = self._module.StoreWriter(root, self._spec, tags=self._tags)
            writer.abandon()

        return enter

    def _shard(self, root: Path):
        def enter():
            store = self._module.Store(root)
            if not len(store):
                return
            shard = self._shards.open_shard(store)
            for name in shard.names:
                shard.memory_map(name).sum()

        return enter

    def whole(self):
        root = _copy(self.seeds / "store", self.folder / "store")
        journal = write_file(self.folder / "other/journal.jsonl", self._journal)
        shard = self._shard(root)
        shard()
        self._shard_files = {
            path.name: path.read_bytes()
            for path in sorted((root / "shard").iterdir())
            if path.is_file()
        }
        return [self._open(root), self._fill(root), self._fill(journal.parent), shard]

    def make(self, rng):
        what = rng.randrange(10)
        if what < 2:
            lines = self._journal.splitlines(keepends=True)
            if rng.random() < 0.3:
                content = mutated(rng, self._journal)
            else:
                at = rng.randrange(len(lines))
                lines[at] = mutated_json(rng, lines[at]) + rng.choice((b"\n", b"\n", b""))
                content = b"".join(lines)
            return self._fill(write_file(self.folder / "other/journal.jsonl", content).parent)
        root = _copy(self.seeds / "store", self.folder / "store")
        if what == 2:
            for name, content in self._shard_files.items():
                write_file(root / "shard" / name, content)
            name = rng.choice(list(self._shard_files))
            change = mutated_json if name.endswith(".json") else mutated
            write_file(root / "shard" / name, change(rng, self._shard_files[name]))
            return self._shard(root)
        (root / "manifest.json").write_bytes(mutated_json(rng, self._manifest))
        return rng.choice((self._open, self._open, self._fill, self._shard))(root)


@functools.cache
def _vggish():
    from preprocess.signal.features import FRONT_ENDS

    return FRONT_ENDS.create("vggish", {})


# ---- bundles -----------------------------------------------------------------------------------


def _resealed(root: Path) -> None:
    """Compute the checksums of a bundle anew, so that what was changed is read."""
    path = root / "bundle.json"
    content = json.loads(path.read_bytes())
    for name in content["files"]:
        with contextlib.suppress(OSError, ValueError):
            content["files"][name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(content))


def mutated_model(rng: random.Random, content: bytes) -> bytes:
    """Change a LiteRT model: small numbers where its tables are."""
    if rng.random() < 0.4:
        return mutated(rng, content)
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        size = rng.choice((2, 4, 4))
        near = min(len(data) // size, 3000)
        at = size * rng.choice((rng.randrange(near), len(data) // size - 1 - rng.randrange(near)))
        old = int.from_bytes(data[at : at + size], "little")
        values = (0, 1, 2, 4, 8, 12, old + 1, old - 1, old * 2, old + 4, 255, 65535, 1 << 31)
        data[at : at + size] = (rng.choice(values) % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(data)


class Bundles(Kind):
    """Model bundles, to what checks, describes and runs them."""

    def __init__(self, folder: Path, seeds: Path) -> None:
        super().__init__(folder, seeds)
        self._files = {
            path.relative_to(seeds / "bundle").as_posix(): path.read_bytes()
            for path in sorted((seeds / "bundle").rglob("*"))
            if path.is_file()
        }
        self._samples = np.sin(np.arange(20_000) / 20).astype(np.float32)

    def _entry(self, root: Path):
        from tagger.bundle.find import describe_model
        from tagger.bundle.read import Bundle
        from tagger.tagging.tagger import Tagger

        def enter():
            bundle = Bundle(root)
            described = describe_model(str(root))
            assert all(isinstance(line, str) for line in described)
            bundle.metrics()
            tagger = Tagger.load(root, jobs=1)
            prediction = tagger.predict(self._samples, RATE)
            assert prediction.scores.shape == (len(tagger.tags),)
            assert prediction.taggram.shape == (len(prediction.times), len(tagger.tags))
            for layer in tagger.embeddings:
                tagger.embed(self._samples, RATE, layer=layer)

        return enter

    def whole(self):
        return [self._entry(_copy(self.seeds / "bundle", self.folder / "model"))]

    def make(self, rng):
        root = self.folder / "model"
        for name, content in self._files.items():
            write_file(root / name, content)
        what = rng.randrange(20)
        if what < 5:
            (root / "bundle.json").write_bytes(mutated_json(rng, self._files["bundle.json"]))
        elif what < 7:
            # Files that are named are elsewhere.
            content = json.loads(self._files["bundle.json"])
            place = rng.choice(
                ("../../canary/x", "/etc/passwd", "..\\x", "a/../../x", "C:/x", "./x")
            )
            old = rng.choice(list(content["files"]))
            content["files"][place] = content["files"].pop(old)
            if rng.random() < 0.5:
                content["exports"][0]["file"] = place
            (root / "bundle.json").write_text(json.dumps(content))
        elif what == 7:
            name = rng.choice(list(self._files))
            (root / name).unlink()
            target = rng.choice((self.folder / "gone", root, root / name, "bundle.json"))
            (root / name).symlink_to(target)
        else:
            names = ["model.tflite"] * 6 + [n for n in self._files if n.endswith((".json", ".npz"))]
            names = [name for name in names if name != "bundle.json"]
            name = rng.choice(names)
            change = mutated_json if name.endswith(".json") else mutated
            if name.endswith(".npz"):
                content = mutated_archive(rng, self._files[name])
            elif name.endswith(".tflite"):
                content = mutated_model(rng, self._files[name])
            elif name == "vocabulary.json" and rng.random() < 0.3:
                tags = [rng.choice(TEXTS) for _ in range(3)]
                content = json.dumps({"tags": tags}).encode()
            else:
                content = change(rng, self._files[name])
            (root / name).write_bytes(content)
            if rng.random() < 0.95:
                _resealed(root)
        return self._entry(root)


# ---- tagging -----------------------------------------------------------------------------------


class Tagging(Kind):
    """Folders with mutated files among good ones, and what is kept, to the verb that tags them."""

    def __init__(self, folder: Path, seeds: Path) -> None:
        super().__init__(folder, seeds)
        from tagger.tagging.tagger import Tagger

        self._tagger = Tagger.load(seeds / "bundle", jobs=1)
        self._good = audio_seeds()[0]

    def _entry(self, *, n_bad: int, suffix: str):
        from tagger.tagging.inputs import expand_inputs
        from tagger.tagging.tag_files import Options, tag_files

        output = self.folder / f"out.{suffix}"

        def enter():
            inputs = expand_inputs([self.folder / "music"])
            options = Options(format=suffix, output=output)
            n_failed = tag_files(self._tagger, inputs, options)
            # Good ones are tagged whatever lies beside them.
            assert n_failed <= n_bad, f"{n_failed} of {n_bad} mutated files failed"
            text = output.read_text(encoding="utf-8")
            assert "good.wav" in text
            if suffix == "jsonl":
                rows = [json.loads(line) for line in text.splitlines()]
                errors = [row["error"] for row in rows if row.get("error")]
                assert all(len(error.splitlines()) == 1 for error in errors)
            return REFUSED if n_failed else None

        return enter

    def whole(self):
        write_file(self.folder / "music/good.wav", self._good[1])
        return [self._entry(n_bad=0, suffix=suffix) for suffix in ("jsonl", "csv", "json")]

    def make(self, rng):
        write_file(self.folder / "music/good.wav", self._good[1])
        suffix = rng.choice(("jsonl", "jsonl", "csv", "json"))
        for number in range(3):
            ending, content = mutated_audio(rng)
            write_file(self.folder / f"music/{rng.choice('ahz')}{number}.{ending}", content)
        if rng.random() < 0.4:
            from tagger.base.cache import cache_folder
            from tagger.tagging.kept import FILE

            self._entry(n_bad=3, suffix=suffix)()
            kept = cache_folder() / FILE
            kept.write_bytes(mutated(rng, kept.read_bytes()))
        return self._entry(n_bad=3, suffix=suffix)


# ---- score files -------------------------------------------------------------------------------


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _archive(members: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(_named(name), content)
    return file.getvalue()


def _named(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    # Not made by what is given a name that cannot be.
    member.filename = name.encode("utf-8", "replace").decode()
    return member


def _npy_header(text: str, *, version: bytes = b"\x01\x00") -> bytes:
    """Start of an .npy file of any content."""
    header = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    return b"\x93NUMPY" + version + size + header


_DESCRIPTIONS = (
    "'<f4'", "'<f8'", "'|O'", "'|u1'", "'<U300000000'", "'<U4'", "'|S9999999999'", "'<c16'",
    "'|V0'", "'|b1'", "[('a', '<f4')]", "'<M8[D]'", "'<f4', 'x': __import__('os').getcwd()", "1",
    "'>f4'", "'<f2'", "'|V99999999999999999999'", "'object'", "()", "'<i8'", "[('a', '|O')]",
)  # fmt: skip
_SHAPES = (
    "(4, 3)", "(3,)", "(4,)", "()", "(1099511627776, 3)", "(4, 1099511627776)", "(-1, 3)", "(0, 3)",
    "(4, 0)", "(1 << 9,)", "(4.0, 3)", "(True, 3)", "(300000000,)", "(99999999999999999999, 9)",
    "(2, 2, 3)", "(4, 3" + ", 1" * 40 + ")", "(4294967296, 4294967296)", "'x'", "(40000000, 3)",
)  # fmt: skip


def mutated_archive(rng: random.Random, content: bytes) -> bytes:
    """Change an .npz: its bytes, a member's header or content, its members."""
    what = rng.randrange(10)
    if what < 2:
        return mutated(rng, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    if what < 6:
        header = (
            f"{{'descr': {rng.choice(_DESCRIPTIONS)}, 'fortran_order': "
            f"{rng.choice(('False', 'False', 'True', '1', 'x'))}, 'shape': {rng.choice(_SHAPES)}}}"
        )
        if rng.random() < 0.1:
            header = rng.choice(
                ("{", "[" * 5000, "1" * 20_000, "{}", "''", "(" * 300, "x" * 60_000)
            )
        version = rng.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
        members[name] = _npy_header(header, version=version) + members[name][128:]
    elif what == 6:
        members[name] = mutated(rng, members[name])
    elif what == 7:
        members[rng.choice((*TEXTS[:8], "est.npy/", "../../canary/x"))] = members.pop(name)
    elif what == 8:
        attack = rng.choice(_attacks()[:20])
        header = _npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}")
        members[name] = rng.choice((attack, header + attack))
    else:
        array = np.random.default_rng(0).choice(
            [0.0, 1.0, np.nan, np.inf, -np.inf, 1e308, -1], size=rng.choice(((4, 3), (4,), (9, 3)))
        )
        members[name] = _npy(array)
    made = bytearray(_archive(members, compression=rng.choice((zipfile.ZIP_STORED, 8))))
    if rng.random() < 0.1:
        # The list of members says other sizes than they have.
        entry = made.find(b"PK\x01\x02", made.find(b"PK\x01\x02") + rng.randrange(2))
        at = entry + rng.choice((20, 24, 24, 24, 10, 42))
        number = integer_bytes(rng)[:4]
        made[at : at + len(number)] = number
    return bytes(made)


def _score_members() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    labels = (np.arange(90).reshape(30, 3) % 5 < 2).astype(np.uint8)
    return {
        "gt.npy": _npy(labels),
        "est.npy": _npy(rng.random((30, 3)).astype(np.float32)),
        "tags.npy": _npy(np.array(["a", "b", "c"])),
        "clip_ids.npy": _npy(np.arange(30).astype(str)),
        "artists.npy": _npy((np.arange(30) // 2).astype(str)),
        "thresholds.npy": _npy(np.array([0.5, np.nan, 0.1])),
    }


class Scores(Kind):
    """Archives of scores, to what compares and measures them."""

    def _entry(self, path: Path, whole: Path, how: int):
        from tagger.evaluate.compare import compare
        from tagger.evaluate.evaluate import evaluate_scores
        from tagger.metrics.score_files import read_scores

        def enter():
            if how == 0:
                compare(path, whole, n_draws=5)
            elif how == 1:
                evaluate_scores(path, n_draws=5)
            else:
                read_scores(path)

        return enter

    def whole(self):
        content = _archive(_score_members())
        whole = write_file(self.folder / "whole.npz", content)
        return [self._entry(write_file(self.folder / "a.npz", content), whole, n) for n in range(3)]

    def make(self, rng):
        content = _archive(_score_members())
        whole = write_file(self.folder / "whole.npz", content)
        path = write_file(self.folder / "a.npz", mutated_archive(rng, content))
        return self._entry(path, whole, rng.randrange(3))


# ---- runs --------------------------------------------------------------------------------------


class Runs(Kind):
    """Files of a training run, to what reads them."""

    also_named = ("data.tags",)
    # Lists in lists in lists, and thresholds that no float holds.

    def __init__(self, folder: Path, seeds: Path) -> None:
        super().__init__(folder, seeds)
        from tagger.config import load_config
        from tagger.scoring.clip_heads import save_clip_head
        from tagger.scoring.clip_heads.linear import N_STATISTICS, Linear, LinearParams

        run = folder / "run"
        run.mkdir()
        config = load_config(None, ["data.tags=[a, b]"])
        config.save(run / "config.yaml")
        front_end = config.make_front_end().spec_hash()
        head = Linear(LinearParams(layers=("pooled",)))
        head.weights, head.bias = (
            np.ones((N_STATISTICS * 2, 2), np.float32),
            np.zeros(2, np.float32),
        )
        save_clip_head(head, run / "clip_head.npz")
        curve = {"scores": [0.0, 1.0], "values": [0.1, 0.9]}
        calibration = {"schema_version": 1, "method": "isotonic", "tags": [curve, None]}
        texts = {
            "run.json": {"format_version": 1, "front_end_hash": front_end, "versions": {"a": "1"}},
            "vocabulary.json": {"tags": ["a", "b"], "members": [["a"], ["b", "c"]]},
            "thresholds.json": {"thresholds": [0.5, None]},
            "calibration.json": calibration,
        }
        for name, value in texts.items():
            (run / name).write_text(json.dumps(value))
        (run / "split.csv").write_text("clip_id,path,part\n1,a.mp3,train\n2,b.mp3,test\n")
        (run / "metrics.csv").write_text("epoch,loss\n1,0.5\n2,0.25\n")
        (run / "best.weights.h5").write_bytes(b"x")
        self._files = {path.name: path.read_bytes() for path in sorted(run.iterdir())}

    def _entry(self, root: Path):
        from tagger.runs.folder import RunFolder, read_history

        def enter():
            run = RunFolder.at(str(root))
            run.require()
            config = run.load_config()
            run.require_front_end(config.make_front_end())
            vocabulary = run.load_vocabulary()
            vocabulary.labels(np.zeros((2, 3), np.uint8), ["a", "b", "c"])
            run.load_thresholds()
            calibration = run.load_calibration(n_tags=2)
            if calibration is not None:
                calibration(np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2))
            run.load_clip_head(sizes={"pooled": 2}, n_tags=2)
            run.load_split()
            read_history(run)

        return enter

    def whole(self):
        for name, content in self._files.items():
            write_file(self.folder / "run" / name, content)
        return [self._entry(self.folder / "run")]

    def make(self, rng):
        root = self.folder / "run"
        for name, content in self._files.items():
            write_file(root / name, content)
        name = rng.choice([name for name in self._files if name != "best.weights.h5"])
        changes = {".json": mutated_json, ".yaml": mutated_yaml, ".npz": mutated_archive}
        content = self._files[name]
        if name.endswith(".csv"):
            content = mutated_table(rng, content, ",")
        else:
            content = changes[Path(name).suffix](rng, content)
        write_file(root / name, content)
        return self._entry(root)


# ---- weights -----------------------------------------------------------------------------------


class Classifiers(Kind):
    """ONNX models of clip heads, in archives that are whole, to what reads and runs them."""

    def __init__(self, folder: Path, seeds: Path) -> None:
        super().__init__(folder, seeds)
        self._heads = []
        names = ("logistic_regression", "nearest_neighbours", "rbf_svm", "xgboost")
        for name in names:
            with np.load(seeds / f"{name}.npz") as content:
                self._heads.append(dict(content))

    def _entry(self, path: Path):
        from tagger.scoring.clip_heads import load_clip_head

        def enter():
            head = load_clip_head(path, sizes={"pooled": 2}, n_tags=2)
            outputs = np.linspace(-2, 2, 8, dtype=np.float32).reshape(4, 2)
            assert head({"pooled": outputs}).shape == (2,)

        return enter

    def _written(self, name: str, head) -> Path:
        file = io.BytesIO()
        np.savez(file, **head)
        return write_file(self.folder / name, file.getvalue())

    def whole(self):
        return [
            self._entry(self._written(f"{number}.npz", head))
            for number, head in enumerate(self._heads)
        ]

    def make(self, rng):
        head, other = rng.choice(self._heads), rng.choice(self._heads)
        content = bytearray(head["array_onnx"].tobytes())
        if rng.random() < 0.5:
            # Numbers of an operator, most of the time.
            for _ in range(rng.choice((1, 1, 2, 8))):
                content[rng.randrange(len(content))] = rng.choice((0, 1, 127, 128, 255))
        else:
            content = mutated(rng, bytes(content), other["array_onnx"].tobytes())
        changed = np.frombuffer(bytes(content), dtype=np.uint8)
        return self._entry(self._written("a.npz", {**head, "array_onnx": changed}))


class Weights(Kind):
    """HDF5 files, to what reads tensors from them."""

    def __init__(self, folder: Path, seeds: Path) -> None:
        super().__init__(folder, seeds)
        self._seed = (seeds / "small.h5").read_bytes()

    def _entry(self, path: Path):
        from tagger.network.weights import read_tensors

        def enter():
            for tensor in read_tensors(path).values():
                float(tensor.sum())

        return enter

    def whole(self):
        return [self._entry(write_file(self.folder / "a.h5", self._seed))]

    def make(self, rng):
        return self._entry(write_file(self.folder / "a.h5", mutated(rng, self._seed, self._seed)))


# ---- states ------------------------------------------------------------------------------------


class States(Kind):
    """Saved states, checkpoints and weights of a network, to what restores them."""

    def __init__(self, folder: Path, seeds: Path) -> None:
        super().__init__(folder, seeds)
        from tagger.bundle.read import Bundle
        from tagger.bundle.write import load_model
        from tagger.network.keras import tf
        from tagger.train.checkpoint import Checkpoints

        self._checkpoints = Checkpoints
        self._values = tf.Variable(np.arange(6, dtype=np.float32), name="values")
        self._model = load_model(Bundle(seeds / "bundle"))
        self._weights = (seeds / "bundle/weights.h5").read_bytes()
        root = folder / "states"
        states = Checkpoints(root, values=self._values)
        for step in (1, 2):
            states.save(step, {"step": step, "history": [{"loss": 0.5}], "best": None})
        self._files = {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }

    def _restore(self):
        def enter():
            progress = self._checkpoints(self.folder / "states", values=self._values).restore()
            assert isinstance(progress, dict)
            # The one before it was taken.
            return None if progress.get("step") == 2 else REFUSED

        return enter

    def _read(self):
        from tagger.network.weights import read_tensors

        return lambda: read_tensors(self.folder / "states/00000002/variables")

    def _load(self, content: bytes):
        path = write_file(self.folder / "weights.h5", content)
        return lambda: self._model.load_weights(path)

    def whole(self):
        self._write()
        return [self._restore(), self._read(), self._load(self._weights)]

    def _write(self) -> None:
        for name, content in self._files.items():
            write_file(self.folder / "states" / name, content)

    def make(self, rng):
        if rng.random() < 0.3:
            return self._load(mutated(rng, self._weights))
        self._write()
        for step in ("00000002", "00000001")[: rng.choice((1, 1, 2))]:
            names = [name for name in self._files if name.startswith(step)]
            name = rng.choice(names)
            change = mutated_json if name.endswith(".json") else mutated
            write_file(self.folder / "states" / name, change(rng, self._files[name]))
        return self._restore() if rng.random() < 0.7 else self._read()


# ---- lists of files, and standard input --------------------------------------------------------


class Lists(Kind):
    """Lists of names and audio on standard input, to what reads them."""

    def _names(self, content: bytes):
        from tagger.tagging.inputs import expand_inputs, read_list

        def enter():
            names = read_list(io.BytesIO(content), str(self.folder / "list"))
            for item in expand_inputs(names):
                str(item.path)

        return enter

    def _spool(self, content: bytes):
        from preprocess.signal.audio import load_audio
        from tagger.tagging.inputs import spool_stdin

        def enter():
            path = spool_stdin(io.BytesIO(content), self.folder)
            load_audio(path, target_rate=RATE)

        return enter

    def whole(self):
        write_file(self.folder / "music/a.wav", audio_seeds()[0][1])
        return [self._names(b"music\nmusic/*.wav\n"), self._spool(audio_seeds()[0][1])]

    def make(self, rng):
        if rng.random() < 0.5:
            return self._spool(mutated_audio(rng)[1])
        write_file(self.folder / "music/a.wav", audio_seeds()[0][1])
        # A list may name the root folder, which is then searched for as long as that takes.
        names = [text for text in (*TEXTS, *_PATHS) if text.strip("/.") or text == ".."]
        # Whether a folder lies in a bucket is asked of the bucket.
        names = [text for text in names if not text.startswith(("gs:", "memory:"))]
        texts = [text.encode("utf-8", "replace") for text in names]
        patterns = (
            b"**",
            b"*",
            b"[",
            b"[!]",
            b"music/**/**/**/*",
            b"?" * 300,
            b"music/[a-",
            b"a//*",
        )
        parts = [rng.choice((*texts, *patterns, rng.randbytes(9))) for _ in range(5)]
        end = rng.choice((b"\n", b"\n", b"\r\n", b"\0", b"\r"))
        return self._names(rng.choice((b"", b"\xef\xbb\xbf", b"\xff\xfe")) + end.join(parts))


# ---- archives ----------------------------------------------------------------------------------


def _zip_member(name: str, content: bytes, *, mode: int = 0) -> tuple[zipfile.ZipInfo, bytes]:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    return member, content


class Archives(Kind):
    """Parts of MagnaTagATune's archive, lists of checksums and notes, to what unpacks them."""

    def __init__(self, folder: Path, seeds: Path) -> None:
        super().__init__(folder, seeds)
        self._clips = {f"{n}/a-b-0{n}-c-0-29.mp3": random.Random(n).randbytes(900) for n in "0af"}
        self._tables = {"annotations_final.csv": _MTT, "clip_info_final.csv": _INFO}

    def _entry(self, folder: Path, sums: Path | None):
        from preprocess.clips.fetch_magnatagatune import fetch_magnatagatune

        def fetch(address: str, path: Path, *, sha256: str | None = None) -> bool:
            source = self.folder / "there" / address.rpartition("/")[2]
            if not source.exists():
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)
            return True

        def enter():
            done = fetch_magnatagatune(
                folder,
                fetch_file=fetch,
                source="https://example.org/mtt",
                checksums=None if sums is None else str(sums),
            )
            assert done.n_clips

        return enter

    def _publish(self, archive: bytes) -> None:
        third = -(-len(archive) // 3)
        for number in range(3):
            part = archive[number * third : (number + 1) * third]
            write_file(self.folder / f"there/mp3.zip.00{number + 1}", part)
        for name, content in self._tables.items():
            write_file(self.folder / "there" / name, content)

    def _zip(self, members: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for member, content in members:
                archive.writestr(member, content)
        return file.getvalue()

    def _good(self) -> list[tuple[zipfile.ZipInfo, bytes]]:
        return [_zip_member(name, content) for name, content in self._clips.items()]

    def whole(self):
        self._publish(self._zip(self._good()))
        self._sums = "".join(
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
            for path in sorted((self.folder / "there").iterdir())
        ).encode()
        sums = write_file(self.folder / "SUMS", self._sums)
        entry = self._entry(self.folder / "mtt", sums)
        entry()
        self._note = (self.folder / "mtt/fetched.json").read_bytes()
        return [entry]

    def make(self, rng):
        members, what, sums = self._good(), rng.randrange(10), None
        folder = self.folder / "mtt"
        if what == 0:
            sums = write_file(self.folder / "SUMS", mutated(rng, self._sums))
        elif what == 1:
            write_file(folder / "fetched.json", mutated_json(rng, self._note))
        elif what < 6:
            names = (
                *_PATHS, "0/../../../canary/x.mp3", "0/..\\..\\x.mp3", "g/x.mp3", "0/x.MP3",
                "0/x.mp3\0.sh", "0/.mp3", "0/a-b-00-c-0-29.mp3", "fetched.json", "0/fetched.json",
                "0", "0/" + "x" * 300 + ".mp3", "0/\ud7ff.mp3", "0/-.mp3", "0/\n.mp3",
            )  # fmt: skip
            name = rng.choice(names)
            content, mode = rng.randbytes(50), rng.choice((0, 0, 0o100644, 0o120777, 0o010644))
            if mode == 0o120777:
                content = rng.choice((b"/etc/passwd", b"../../canary", b"x"))
            if rng.random() < 0.2:
                name, content = "0/bomb.mp3", bytes(rng.choice((17 << 20, 40 << 20)))
            with contextlib.suppress(ValueError):
                members.insert(rng.randrange(4), _zip_member(name, content, mode=mode))
        archive = self._zip(members)
        if what > 6:
            archive = mutated(rng, archive)
        self._publish(archive)
        return self._entry(folder, sums)


KINDS: dict[str, type[Kind]] = {
    kind.__name__.lower(): kind
    for kind in (
        Audio, Metadata, Annotations, Configs, Pickles, Stores, Bundles, Tagging, Scores, Runs,
        Classifiers, Weights, States, Lists, Archives,
    )
}  # fmt: skip
