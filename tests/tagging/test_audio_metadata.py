"""Promises of tags in audio files."""

import base64
import json
import os
import shutil
import stat
import struct
import subprocess
import sys

import mutagen
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutagen import flac, id3, mp4
from signals import RATE, sine

from tagger.base.errors import AudioError
from tagger.tagging.encoded_audio import encoded_audio_digest
from tagger.tagging.file_tags import Writing, planned_change, undo_tags, write_tags
from tagger.tagging.tag_fields import BACKUP_FIELD

FORMATS = ["mp3", "flac", "ogg", "opus", "wav", "aiff"]
ID3 = {"mp3", "wav", "aiff"}
LABELS = ["no vocals", "müsik 二", "R&B / soul"]


def audio_file(folder, suffix, name="song"):
    path = folder / f"{name}.{suffix}"
    more = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    soundfile.write(path, sine(440, 1.0, amplitude=0.5), RATE, **more)
    return path


def set_fields(path, *, genre=(), title=None, comment=None):
    """Write fields as another program would."""
    audio = mutagen.File(path)
    if audio.tags is None:
        audio.add_tags()
    if isinstance(audio.tags, id3.ID3):
        if genre:
            audio.tags.add(id3.TCON(encoding=3, text=list(genre)))
        if title:
            audio.tags.add(id3.TIT2(encoding=3, text=[title]))
        if comment:
            audio.tags.add(id3.COMM(encoding=3, lang="eng", desc="", text=[comment]))
            audio.tags.add(
                id3.APIC(encoding=3, mime="image/png", type=3, desc="front", data=b"\x89PNG cover")
            )
    else:
        names = ("GENRE", "TITLE", "COMMENT")
        if isinstance(audio.tags, mp4.MP4Tags):
            names = ("\xa9gen", "\xa9nam", "\xa9cmt")
        for name, values in zip(names, (list(genre), title, comment), strict=True):
            if values:
                audio.tags[name] = values
    audio.save()


def fields_of(path):
    """All fields in a form that can be compared; backup and genre by one name in each format."""
    tags = mutagen.File(path).tags or {}
    if isinstance(tags, id3.ID3):
        fields = {
            key: frame.data if key.startswith("APIC") else list(frame.text)
            for key, frame in tags.items()
        }
    else:
        fields = {key.lower(): list(tags[key]) for key in set(tags.keys())}
    names = {
        "TCON": "genre",
        f"TXXX:{BACKUP_FIELD}": "backup",
        BACKUP_FIELD.lower(): "backup",
    }
    return {names.get(key, key): value for key, value in fields.items()}


@pytest.fixture(params=FORMATS)
def song(request, tmp_path):
    return audio_file(tmp_path, request.param)


def test_labels_are_the_genre_that_players_show(song):
    write_tags(song, LABELS)
    assert fields_of(song)["genre"] == LABELS


def test_the_audio_stays_sample_by_sample_the_same(song):
    before, _ = soundfile.read(song)
    write_tags(song, LABELS)
    np.testing.assert_array_equal(soundfile.read(song)[0], before)
    undo_tags(song)
    np.testing.assert_array_equal(soundfile.read(song)[0], before)


@pytest.mark.parametrize("genre", [[], ["Rock"], ["Jazz", "R&B/Soul", "Ünicode"]])
def test_undoing_puts_back_the_genre_of_before_and_all_other_fields_stay(song, genre):
    set_fields(song, genre=genre, title="A título", comment="mine")
    before = fields_of(song)
    write_tags(song, LABELS)
    changed = fields_of(song)
    assert changed["genre"] == LABELS
    assert json.loads(changed["backup"][0])["genre"] == genre
    others = {key: value for key, value in changed.items() if key not in ("genre", "backup")}
    assert others == {key: value for key, value in before.items() if key != "genre"}
    assert len(others) >= 2
    assert undo_tags(song) is True
    assert fields_of(song) == before


PICTURE = b"\x89PNG " + np.random.default_rng(0).bytes(3000)


def add_picture_and_chapters(path):
    """Add them as other programs do; MP4 has its chapters elsewhere than its fields."""
    audio = mutagen.File(path)
    if isinstance(audio.tags, id3.ID3):
        picture = id3.APIC(encoding=0, mime="image/png", type=3, desc="front", data=PICTURE)
        audio.tags.add(picture)
        for name, start in (("a", 0), ("b", 500)):
            title = [id3.TIT2(encoding=1, text=[f"part {name}"])]
            times = {"start_time": start, "end_time": start + 500}
            audio.tags.add(id3.CHAP(element_id=name, **times, sub_frames=title))
        audio.tags.add(id3.CTOC(element_id="all", flags=3, child_element_ids=["a", "b"]))
    elif isinstance(audio.tags, mp4.MP4Tags):
        audio.tags["covr"] = [mp4.MP4Cover(PICTURE, mp4.MP4Cover.FORMAT_PNG)]
    else:
        picture = flac.Picture()
        picture.data, picture.mime, picture.type = PICTURE, "image/png", 3
        if path.suffix == ".flac":
            audio.add_picture(picture)
        else:
            audio.tags["METADATA_BLOCK_PICTURE"] = base64.b64encode(picture.write()).decode()
        audio.tags["CHAPTER001"] = "00:00:00.000"
        audio.tags["CHAPTER001NAME"] = "part a"
    audio.save()


def reorder_frames(path, seed):
    """Put the frames of an mp3's ID3 tag in an order in which mutagen would not."""
    content = path.read_bytes()
    position, frames = 10, []
    while content[position : position + 4].isalnum():
        length = 0
        for byte in content[position + 4 : position + 8]:
            length = length << 7 | byte
        frames.append(content[position : position + 10 + length])
        position += 10 + length
    mixed = [frames[place] for place in np.random.default_rng(seed).permutation(len(frames))]
    path.write_bytes(content[:10] + b"".join(mixed) + content[position:])


@pytest.fixture(params=[*FORMATS, "m4a"])
def tagged_song(request, tmp_path):
    if request.param != "m4a":
        return audio_file(tmp_path, request.param)
    path = tmp_path / "song.m4a"
    samples = atom(b"mdat", np.random.default_rng(0).bytes(210))
    path.write_bytes(with_tables(len(with_tables(0)) + 8) + samples)
    return path


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.none()
    | st.fixed_dictionaries(
        {
            "genre": st.lists(
                st.sampled_from(["Rock", "Jazz", "Ünicode"]), max_size=2, unique=True
            ),
            "title": st.text("ab é", min_size=1, max_size=900),
            "comment": st.none() | st.text("xyz", min_size=1, max_size=40),
        }
    ),
    pictures=st.booleans(),
    labels=st.lists(st.sampled_from(LABELS * 2), min_size=1, max_size=60),
    field=st.sampled_from(["genre", "mood", "comment", "grouping"]),
    seed=st.integers(0, 99),
)
def test_undoing_leaves_the_file_byte_by_byte_as_it_was(
    tagged_song, fields, pictures, labels, field, seed
):
    song, whole = tagged_song, tagged_song.read_bytes()
    if fields is not None:
        set_fields(song, **fields)
    if pictures and fields is not None:
        add_picture_and_chapters(song)
    if song.suffix == ".mp3" and fields is not None:
        reorder_frames(song, seed)
    before, audio = song.read_bytes(), encoded_audio_digest(song)
    for chosen in (labels, labels[:1]):
        write_tags(song, chosen, Writing(field=field, append=True))
    assert song.read_bytes() != before
    assert encoded_audio_digest(song) == audio
    assert undo_tags(song) is True
    assert song.read_bytes() == before
    # Tags that are none any more leave nothing behind either.
    write_tags(song, labels, Writing(field=field))
    write_tags(song, [], Writing(field=field))
    assert song.read_bytes() == before
    song.write_bytes(whole)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("suffix", [*FORMATS, "m4a", "start.m4a"])
def test_files_of_another_program_are_undone_byte_by_byte(tmp_path, suffix):
    described = tmp_path / "fields.txt"
    chapters = "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start}\nEND={start + 500}\ntitle=part {start}\n"
        for start in (0, 500)
    )
    described.write_text(f";FFMETADATA1\ntitle=A song\ncomment=mine\ngenre=Rock\n{chapters}")
    song = tmp_path / f"song.{suffix}"
    sound = ["-f", "lavfi", "-i", "sine=440:d=1:r=48000", "-i", str(described)]
    options = ["-map", "0", "-map_metadata", "1", "-map_chapters", "1", "-write_id3v2", "1"]
    options = options if suffix == "aiff" else options[:-2]
    options += ["-movflags", "+faststart"] if suffix == "start.m4a" else []
    options += ["-strict", "experimental"] if suffix == "opus" else []
    command = ["ffmpeg", "-v", "error", *sound, *options, str(song)]
    subprocess.run(command, check=True, timeout=60)
    before = song.read_bytes()
    write_tags(song, LABELS)
    write_tags(song, LABELS[:1], Writing("comment"))
    assert undo_tags(song) is True
    assert song.read_bytes() == before


def test_what_another_program_has_changed_meanwhile_stays(song):
    set_fields(song, genre=["Rock"], title="Old")
    write_tags(song, LABELS)
    set_fields(song, title="New")
    assert undo_tags(song) is True
    fields = fields_of(song)
    assert fields["genre"] == ["Rock"] and "backup" not in fields
    assert ["New"] in fields.values()


def test_a_changed_file_keeps_its_time_unless_it_is_asked_to_change(song):
    os.utime(song, ns=(10**18, 10**18))
    write_tags(song, LABELS)
    undo_tags(song)
    assert song.stat().st_mtime_ns == 10**18
    write_tags(song, LABELS, Writing(touch=True))
    assert song.stat().st_mtime_ns > 10**18


def test_the_old_tag_at_the_end_of_an_mp3_stays_as_it_is(tmp_path):
    song = audio_file(tmp_path, "mp3")
    fields = [b"A song".ljust(30), b"Ann".ljust(30), b"First".ljust(30), b"1999", b"mine".ljust(30)]
    song.write_bytes(song.read_bytes() + b"TAG" + b"".join(fields) + b"\x11")
    before = song.read_bytes()
    write_tags(song, LABELS)
    assert song.read_bytes()[-128:] == before[-128:]
    assert fields_of(song)["genre"] == LABELS
    undo_tags(song)
    assert song.read_bytes() == before


@pytest.mark.parametrize("field", ["mood", "comment", "grouping"])
def test_other_fields_are_those_that_players_read(song, field):
    set_fields(song, genre=["Rock"])
    before = fields_of(song)
    change = write_tags(song, LABELS, Writing(field))
    assert change.old == []
    names = {
        "mood": ("TMOO", "TXXX:MOOD", "mood"),
        "comment": ("COMM::eng", "comment"),
        "grouping": ("TIT1", "grouping"),
    }[field]
    found = fields_of(song)
    (values,) = [found[name] for name in names if name in found]
    assert values == (LABELS if field == "mood" else ["; ".join(LABELS)]) == change.new
    assert found["genre"] == ["Rock"]
    write_tags(song, ["other"])
    assert undo_tags(song) and fields_of(song) == before


def test_what_would_be_written_is_told_and_not_written(song):
    before = song.read_bytes()
    change = planned_change(song, LABELS)
    assert (change.old, change.new) == ([], LABELS) and song.read_bytes() == before
    assert write_tags(song, LABELS) == change
    assert write_tags(song, LABELS).new == LABELS


def test_a_backup_of_an_earlier_release_is_put_back(song):
    set_fields(song, genre=["Rock"])
    before = fields_of(song)
    write_tags(song, LABELS)
    audio = mutagen.File(song)
    if isinstance(audio.tags, id3.ID3):
        audio.tags[f"TXXX:{BACKUP_FIELD}"].text = ['["Rock"]']
    else:
        audio.tags[BACKUP_FIELD] = ['["Rock"]']
    audio.save()
    assert undo_tags(song) and fields_of(song) == before


def test_a_second_write_replaces_the_labels_and_keeps_the_first_backup(song):
    set_fields(song, genre=["Rock"])
    write_tags(song, ["first"])
    write_tags(song, ["second", "third"])
    assert fields_of(song)["genre"] == ["second", "third"]
    assert undo_tags(song) is True
    assert fields_of(song)["genre"] == ["Rock"]


def test_there_is_nothing_to_undo_in_a_file_that_was_not_written_to(song):
    set_fields(song, genre=["Rock"])
    before = song.read_bytes()
    assert undo_tags(song) is False
    assert song.read_bytes() == before
    write_tags(song, LABELS)
    assert [undo_tags(song), undo_tags(song)] == [True, False]


def test_writing_the_labels_that_are_there_does_not_touch_the_file(song):
    write_tags(song, LABELS)
    before = song.stat()
    write_tags(song, LABELS)
    assert (song.stat().st_ino, song.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_no_labels_put_the_genre_of_before_back(song):
    set_fields(song, genre=["Rock"])
    write_tags(song, LABELS)
    write_tags(song, [])
    assert fields_of(song)["genre"] == ["Rock"]
    assert "backup" not in fields_of(song)


def test_control_characters_in_labels_become_spaces(song):
    write_tags(song, ["a\0b", "c\nd"])
    assert fields_of(song)["genre"] == ["a b", "c d"]


def test_permissions_stay_and_no_other_file_is_left(song):
    song.chmod(0o640)
    write_tags(song, LABELS)
    undo_tags(song)
    assert stat.S_IMODE(song.stat().st_mode) == 0o640
    assert list(song.parent.iterdir()) == [song]


def test_a_link_stays_a_link_and_the_file_it_leads_to_is_written(tmp_path):
    (tmp_path / "music").mkdir()
    song = audio_file(tmp_path / "music", "flac")
    link = tmp_path / "link.flac"
    link.symlink_to(song)
    write_tags(link, LABELS)
    assert link.is_symlink() and fields_of(song)["genre"] == LABELS
    assert sorted(tmp_path.iterdir()) == [link, tmp_path / "music"]


# ID3


@pytest.mark.parametrize("suffix", sorted(ID3))
def test_labels_that_id3_takes_for_numbers_of_genres_are_shown_as_labels(tmp_path, suffix):
    song = audio_file(tmp_path, suffix)
    write_tags(song, ["17", "(4)", "RX", "80s"])
    assert mutagen.File(song).tags["TCON"].genres == ["tag 17", "tag (4)", "tag RX", "80s"]
    before = song.stat().st_mtime_ns
    write_tags(song, ["17", "(4)", "RX", "80s"])
    assert song.stat().st_mtime_ns == before


def test_a_file_with_id3_2_3_stays_one_and_joins_the_labels(tmp_path):
    song = audio_file(tmp_path, "mp3")
    tags = id3.ID3()
    tags.add(id3.TCON(encoding=1, text=["Rock"]))
    tags.add(id3.TPE1(encoding=1, text=["AC/DC"]))
    tags.add(id3.TYER(encoding=0, text=["1999"]))
    tags.save(song, v2_version=3)
    before = {key: str(frame) for key, frame in id3.ID3(song, translate=False).items()}
    write_tags(song, LABELS)
    written = id3.ID3(song, translate=False)
    assert written.version == (2, 3, 0)
    assert written["TCON"].text == ["; ".join(LABELS)]
    write_tags(song, LABELS)
    assert undo_tags(song) is True
    restored = id3.ID3(song, translate=False)
    assert restored.version == (2, 3, 0)
    assert {key: str(frame) for key, frame in restored.items()} == before


# m4a


def atom(name, *content):
    content = b"".join(content)
    return struct.pack(">I4s", 8 + len(content), name) + content


@pytest.fixture
def m4a(tmp_path):
    """The least that is an m4a file: no decoder would like it."""
    handler = atom(b"hdlr", bytes(8), b"soun", bytes(13))
    header = atom(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, RATE, RATE, 0, 0))
    path = tmp_path / "song.m4a"
    path.write_bytes(
        atom(b"ftyp", b"M4A \0\0\0\0M4A ")
        + atom(b"moov", atom(b"trak", atom(b"mdia", header, handler)))
        + atom(b"mdat", b"sound" * 100)
    )
    return path


@pytest.mark.parametrize("genre", [[], ["Rock", "Jazz"]])
def test_m4a_files_are_written_and_undone(m4a, genre):
    audio = mp4.MP4(m4a)
    audio.add_tags()
    audio.tags["\xa9nam"] = ["A título"]
    if genre:
        audio.tags["\xa9gen"] = genre
    audio.save()
    before = dict(mp4.MP4(m4a).tags)
    write_tags(m4a, LABELS)
    tags = mp4.MP4(m4a).tags
    assert tags["\xa9gen"] == LABELS and tags["\xa9nam"] == ["A título"]
    assert json.loads(tags[f"----:com.apple.iTunes:{BACKUP_FIELD}"][0])["genre"] == genre
    assert m4a.read_bytes().endswith(b"sound" * 100)
    assert undo_tags(m4a) is True
    assert dict(mp4.MP4(m4a).tags) == before


def full(name, *content, flags=0):
    return atom(name, struct.pack(">I", flags), *content)


def fragmented(*, n_fragments):
    """An MP4 in fragments, each with the place of its samples in the file."""
    handler = full(b"hdlr", bytes(4), b"soun", bytes(13))
    header = full(b"mdhd", struct.pack(">IIIIHH", 0, 0, RATE, RATE, 0, 0))
    content = atom(b"ftyp", b"M4A \0\0\0\0M4A ")
    content += atom(b"moov", atom(b"trak", atom(b"mdia", header, handler)))
    for number in range(n_fragments):
        place = struct.pack(">IQ", 1, len(content) + 8 + 8 + 24 + 24)
        run = full(b"trun", struct.pack(">III", 2, 30, 20), flags=0x200)
        content += atom(b"moof", atom(b"traf", full(b"tfhd", place, flags=1), run))
        content += atom(b"mdat", f"{number:50}".encode())
    return content


@pytest.mark.parametrize("n_fragments", [1, 2, 5])
def test_an_mp4_whose_audio_would_be_lost_is_left_as_it_was(tmp_path, n_fragments):
    path = tmp_path / "song.m4a"
    path.write_bytes(fragmented(n_fragments=n_fragments))
    before, audio = path.read_bytes(), encoded_audio_digest(path)
    if n_fragments == 1:
        # Mutagen corrects the first place alone.
        write_tags(path, LABELS)
    else:
        with pytest.raises(AudioError, match=r"would not survive.*ffmpeg -i song.m4a -c copy"):
            write_tags(path, LABELS)
        assert path.read_bytes() == before
    assert encoded_audio_digest(path) == audio
    assert list(tmp_path.iterdir()) == [path]


def test_a_real_mp4_in_fragments_keeps_its_audio(shared, tmp_path):
    path = tmp_path / "song.m4a"
    path.write_bytes((shared / "troubles" / "fragmented.m4a").read_bytes())
    before = path.read_bytes()
    with pytest.raises(AudioError, match="its audio would not survive"):
        write_tags(path, LABELS)
    assert path.read_bytes() == before


def with_tables(offset):
    """An MP4 with tables of its samples, which lie at `offset`."""
    handler = full(b"hdlr", bytes(4), b"soun", bytes(13))
    header = full(b"mdhd", struct.pack(">IIIIHH", 0, 0, RATE, RATE, 0, 0))
    # Two chunks of two samples, then two of one.
    tables = [
        full(b"stsc", struct.pack(">7I", 2, 1, 2, 1, 3, 1, 1)),
        full(b"stsz", struct.pack(">8I", 0, 6, 10, 20, 30, 40, 50, 60)),
        full(b"stco", struct.pack(">5I", 4, *(offset + n for n in (0, 30, 100, 150)))),
    ]
    track = atom(b"trak", atom(b"mdia", header, handler, atom(b"minf", atom(b"stbl", *tables))))
    return atom(b"ftyp", b"M4A \0\0\0\0M4A ") + atom(b"moov", track)


def test_an_mp4_with_tables_is_written_and_a_wrong_table_is_noticed(tmp_path):
    path = tmp_path / "song.m4a"
    place = len(with_tables(0)) + 8
    samples = atom(b"mdat", np.random.default_rng(0).bytes(210))
    path.write_bytes(with_tables(place) + samples)
    audio = encoded_audio_digest(path)
    write_tags(path, LABELS)
    assert mp4.MP4(path).tags["\xa9gen"] == LABELS
    assert encoded_audio_digest(path) == audio
    path.write_bytes(with_tables(place + 1) + samples)
    assert encoded_audio_digest(path) != audio


def test_the_digest_of_the_audio_notices_another_byte_and_no_other_tags(song):
    audio = encoded_audio_digest(song)
    set_fields(song, genre=["Rock"] * 2000, title="A título", comment="x" * 70_000)
    assert encoded_audio_digest(song) == audio
    content = bytearray(song.read_bytes())
    # Chunks with tags may lie behind that of the audio.
    chunk = {".wav": b"data", ".aiff": b"SSND"}.get(song.suffix)
    content[len(content) - 600 if chunk is None else content.find(chunk) + 1000] ^= 1
    song.write_bytes(content)
    assert encoded_audio_digest(song) != audio


# What cannot be written to


def refused(path, match):
    """Both verbs raise one line that names the file, and leave everything as it is."""
    content = path.read_bytes() if path.is_file() else None
    for edit in (lambda: write_tags(path, LABELS), lambda: undo_tags(path)):
        with pytest.raises(AudioError, match=match) as caught:
            edit()
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and ";" in message and "\n" not in message
    if content is not None:
        assert path.read_bytes() == content
    assert not list(path.parent.glob(".tmp-*"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "no.mp3", "no such file; check")
    refused(tmp_path, "is no audio file; give one")


def test_a_read_only_file_is_refused_whoever_asks(song):
    song.chmod(0o444)
    refused(song, "is read-only.*; change its permissions")


@pytest.mark.parametrize("suffix", ["au", "caf", "w64"])
def test_a_format_without_a_genre_field_is_refused(tmp_path, suffix):
    refused(audio_file(tmp_path, suffix), "has no genre field; convert it to mp3, flac")


@pytest.mark.parametrize("suffix", [*FORMATS, "m4a", "xyz"])
@pytest.mark.parametrize("content", [b"", b"no music here " * 50])
def test_what_is_no_audio_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"text.{suffix}"
    path.write_bytes(content)
    refused(path, "its metadata cannot be read|its format has no genre field")


@pytest.mark.parametrize(("riff", "data"), [(0xFFFFFFFF, 0xFFFFFFFF), (None, 0), (500, None)])
def test_a_wav_file_that_does_not_say_where_its_audio_ends_is_refused(tmp_path, riff, data):
    song = audio_file(tmp_path, "wav")
    content = bytearray(song.read_bytes())
    chunk = content.index(b"data")
    for position, length in ((4, riff), (chunk + 4, data)):
        if length is not None:
            content[position : position + 4] = struct.pack("<I", length)
    song.write_bytes(content)
    with pytest.raises(AudioError, match=r"its (header|metadata) .*; (export|copy)"):
        write_tags(song, LABELS)
    assert song.read_bytes() == content


def test_any_damaged_file_is_written_or_refused_in_one_line_and_never_spoilt(song):
    whole = song.read_bytes()
    rng = np.random.default_rng(0)
    for number in range(60):
        content = bytearray(whole)
        if number % 2:
            del content[rng.integers(len(content)) :]
        else:
            for place in rng.integers(min(len(content), 600), size=4):
                content[place] = rng.integers(256)
        song.write_bytes(content)
        try:
            write_tags(song, LABELS)
        except AudioError as error:
            assert "\n" not in str(error)
            assert song.read_bytes() == content
        else:
            assert fields_of(song)["genre"] == LABELS
        assert list(song.parent.iterdir()) == [song]


def test_a_backup_that_another_program_changed_is_refused(tmp_path):
    song = audio_file(tmp_path, "flac")
    write_tags(song, LABELS)
    audio = mutagen.File(song)
    audio.tags[BACKUP_FIELD] = ["Rock"]
    audio.save()
    with pytest.raises(AudioError, match=r"cannot be put back; set its fields with a tag"):
        undo_tags(song)


@pytest.mark.parametrize("step", ["copyfile", "save", "replace"])
def test_a_write_that_is_broken_off_leaves_the_file_as_it_was(song, monkeypatch, step):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    before = song.read_bytes()
    if step == "copyfile":
        monkeypatch.setattr(shutil, "copyfile", fail)
    elif step == "save":
        monkeypatch.setattr(type(mutagen.File(song)), "save", fail)
    else:
        monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(AudioError, match=r"cannot be written \(No space left.*; check"):
        write_tags(song, LABELS)
    assert song.read_bytes() == before
    assert list(song.parent.iterdir()) == [song]


def test_a_folder_without_write_permission_is_refused(tmp_path, monkeypatch):
    song = audio_file(tmp_path, "flac")

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tagger.tagging.file_tags.tempfile.mkstemp", forbidden)
    with pytest.raises(AudioError, match=r"cannot be written \(Permission denied\); check"):
        write_tags(song, LABELS)


def test_a_file_whose_name_is_no_unicode_is_written(tmp_path):
    song = audio_file(tmp_path, "mp3")
    odd = song.rename(tmp_path / os.fsdecode(b"\xff.mp3"))
    write_tags(odd, LABELS)
    assert fields_of(odd)["genre"] == LABELS


def test_a_chunk_that_is_longer_than_its_file_is_refused_where_memory_is_short(tmp_path):
    path = audio_file(tmp_path, "wav")
    content = path.read_bytes()
    path.write_bytes(content[:16] + struct.pack("<I", 0xFFFFFFF0) + content[20:])
    program = (
        "import resource, sys\nfrom pathlib import Path\nimport mutagen, mutagen.wave\n"
        "from tagger.tagging.file_tags import write_tags\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "write_tags(Path(sys.argv[1]), ['rock'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60
    )
    assert f"AudioError: {path}: its metadata cannot be read" in done.stderr
