"""A corpus of eight clips in MagnaTagATune's layout."""

import soundfile as sf
from signals import RATE, noise, sine

# Columns of the tiny corpus; the first three clips share an artist, the last carries no tag.
TINY_TAGS = ("guitar", "slow", "techno")

TINY_CLIPS = (
    # id, folder, track, artist, labels, seconds
    ("10", "0", "ann-first-01-river", "ann", "110", 2.0),
    ("11", "0", "ann-first-01-river", "ann", "100", 2.0),
    ("12", "3", "ann-first-02-stone", "ann", "101", 3.0),
    ("13", "b", "bob-loud-01-steel", "bob", "001", 2.0),
    ("14", "c", "bob-loud-02-iron", "bob", "011", 2.5),
    ("15", "d", "cid-night-01-owl", "cid", "010", 2.0),
    ("16", "e", "cid-night-02-bat", "cid", "111", 0.5),
    ("17", "f", "dot-noon-01-sun", "dot", "000", 2.0),
)


def clip_path(clip):
    return f"{clip[1]}/{clip[2]}-{int(clip[0])}-{int(clip[0]) + 3}.mp3"


def write_tiny_corpus(root):
    """Write a corpus in MagnaTagATune's layout: two tables, quoted and CRLF, and mp3 files."""
    header = ["clip_id", *TINY_TAGS, "mp3_path"]
    rows = [[clip[0], *clip[4], clip_path(clip)] for clip in TINY_CLIPS]
    infos = [
        [c[0], c[2].split("-")[-1], c[3], c[2].split("-")[1], clip_path(c)] for c in TINY_CLIPS
    ]
    tables = {
        "annotations_final.csv": [header, *rows],
        "clip_info_final.csv": [["clip_id", "title", "artist", "album", "mp3_path"], *infos],
    }
    for name, lines in tables.items():
        text = "".join("\t".join(f'"{value}"' for value in line) + "\r\n" for line in lines)
        (root / name).write_bytes(text.encode("utf-8"))
    for number, clip in enumerate(TINY_CLIPS):
        path = root / clip_path(clip)
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = sine(200 * (number + 1), clip[5], amplitude=0.4)
        sf.write(path, tone + noise(clip[5], seed=number, amplitude=0.05), RATE)
    return root
