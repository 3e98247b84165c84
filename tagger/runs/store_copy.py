"""Local copies of stores at an address: pickles are fetched once, and checked when read."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from preprocess.store.store import MANIFEST, Store, StoredClip
from tagger.base.addresses import is_remote
from tagger.base.errors import StoreError
from tagger.base.files import alone, remove_temporary_files
from tagger.base.log import progress_bar
from tagger.cloud.locations import location
from tagger.cloud.mirror import local_copy


class _CopiedStore(Store):
    """The local copy of a store; a pickle that is missing or damaged is fetched again.

    Its clips are those of `store`, whichever manifest another process may copy meanwhile.
    """

    def __init__(self, local: Path, store: Store) -> None:
        self.root = local
        self.spec, self.tags, self.clips = store.spec, store.tags, store.clips
        self._remote = store.root

    def read(self, row: int) -> dict[str, npt.NDArray[np.floating]]:
        try:
            return super().read(row)
        except StoreError:
            with _copying(self._remote, self.root):
                _fetch_clip(self.clips[row], remote=self._remote, local=self.root)
            return super().read(row)


@contextlib.contextmanager
def _copying(root: Path, local: Path) -> Iterator[None]:
    """Say in one line why a store cannot be copied."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{error.filename or local}: {root} cannot be copied ({error.strerror}); check your "
            "rights, the network and the disk space, or set TAGGER_CACHE to another folder"
        ) from None


def local_store(store: Store | Path, *, rows: Sequence[int] | None = None) -> Store:
    """Open a store for reading all of it; of one at an address a copy is made first.

    The copy is kept in the cache, and later only what has changed is fetched. One that was
    interrupted is gone on with.

    Parameters
    ----------
    store : Store or Path
        The store, or its folder, local or at an address. One that is open stays as it was opened.
    rows : sequence of int, optional
        The clips that are needed; of others the pickles are fetched when they are read.

    Returns
    -------
    Store
        On the local disk.

    Raises
    ------
    StoreError
        If there is no store, or it cannot be read, or the cache not be written.
    """
    if not isinstance(store, Store):
        store = Store(location(store))
    if not is_remote(store.root):
        return store
    local = local_copy("stores", store.root)
    with _copying(store.root, local), alone(local):
        _copy_clips(store, local, rows)
        # Written last: what it says of the pickles decides which of them are fetched next time.
        store.copy_manifest(local / MANIFEST)
    return _CopiedStore(local, store)


def _copy_clips(store: Store, local: Path, rows: Sequence[int] | None) -> None:
    from tagger.cloud.transfers import in_threads

    sizes = _sizes(store.root)
    before = _checksums(local)
    for folder in local.glob("clips/*"):
        remove_temporary_files(folder)
    present = {path.relative_to(local).as_posix(): path for path in local.glob("clips/*/*")}

    def is_current(clip: StoredClip) -> bool:
        path = present.get(clip.file)
        if path is None or path.stat().st_size != sizes.get(clip.file):
            return False
        # A clip with a new label is as long as before.
        return before.get(clip.file, clip.checksum) == clip.checksum

    wanted = store.clips if rows is None else [store.clips[row] for row in rows]
    missing = [clip for clip in wanted if not is_current(clip)]
    known = {clip.file for clip in store.clips if is_current(clip)}
    for file, path in present.items():
        if file not in known:
            path.unlink()
    if missing:
        with progress_bar("fetch the store", len(wanted)) as advance:
            advance(len(wanted) - len(missing), "")
            in_threads(
                lambda clip: _fetch_clip(clip, remote=store.root, local=local),
                missing,
                advance=advance,
            )


def _sizes(root: Path) -> dict[str, int]:
    """Sizes of the pickles at an address, by their names in the manifest."""
    fs, name = cast(Any, root).fs, str(cast(Any, root).path).rstrip("/")
    found = fs.find(f"{name}/clips", detail=True)
    return {path.removeprefix(f"{name}/"): int(entry["size"]) for path, entry in found.items()}


def _checksums(local: Path) -> dict[str, str]:
    """Checksums of the pickles as they were when the copy was complete."""
    try:
        return {clip.file: clip.checksum for clip in Store(local).clips}
    except StoreError:
        return {}


def _fetch_clip(clip: StoredClip, *, remote: Path, local: Path) -> None:
    source = remote / clip.file
    try:
        cast(Any, source).fs.get_file(cast(Any, source).path, str(local / clip.file))
    except FileNotFoundError:
        raise StoreError(
            f"{source}: missing; run 'tagger preprocess' again to rebuild it"
        ) from None
