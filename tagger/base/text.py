"""Texts that anybody may have written, made fit to be shown."""


def drawable(name: str) -> str:
    """Escape the bytes of a file name that is no Unicode, which fonts refuse."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
