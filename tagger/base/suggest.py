"""A word that somebody mistyped -> the one that was meant."""

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ask for the known word that is closest; empty where none is close.

    Parameters
    ----------
    word : str
        As it was typed.
    known : iterable of str
        What it could be. Of a path, its last part may be meant.

    Returns
    -------
    str
        E.g. ``" (did you mean train.epochs?)"``, to be put behind the word.
    """
    import difflib  # only where something went wrong

    by_lower = {name.lower(): name for name in known}
    by_lower |= {name.lower().rpartition("/")[2]: name for name in by_lower.values()}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.7)
    return f" (did you mean {by_lower[found[0]]}?)" if found else ""
