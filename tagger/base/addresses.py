"""Addresses as text: which names are some, and what of them nobody else should read."""

import re
from pathlib import PurePath

ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
"""Scheme, and all behind it."""

# What a log must not hold: who one is at an address, what gives rights to it, and tokens. Where a
# Path was made of an address it is https:/host. Each pattern ends before the next place at which it
# could begin, or takes it in: so a text is read about once, however it is made.
_START = r"(?i)(://|\b(?:https?|ftp|gs):/)"
_SECRETS = (
    (re.compile(rf"{_START}[^/?#\s'\"]*@"), r"\1***@"),
    # Of a password with a slash, which nobody has quoted; after a colon a short number is a port.
    (
        re.compile(rf"{_START}[^/?#@:\s'\"]*+:(?!\d{{1,5}}/)(?:(?!:/)[^\s'\"])*@"),
        r"\1***@",
    ),
    (
        re.compile(r"(?i)(\bhttps?:/[^?\s'\"]*+)(?:(\?)[^\s'\"()<>]*[^\s'\"()<>:;,.])?"),
        lambda found: f"{found[1]}?***" if found[2] else found[1],
    ),
    (
        re.compile(
            r"(?i)([?&](?:upload_id|sig|signature|token|access_token|key|x-(?:goog|amz)-[a-z-]+)=)"
            r"[^&\s'\"()<>]+"
        ),
        r"\1***",
    ),
    (
        re.compile(
            r"(?i)(\bauthorization['\"]?\s*[:=]\s*['\"]?)(?:(?:bearer|basic)\s+)?[^\s'\",}]+"
        ),
        r"\1***",
    ),
    (re.compile(r"(?i)(\bbearer\s+)[\w.~+/=-]{16,}"), r"\1***"),
    # As Google's access tokens begin.
    (re.compile(r"\bya29\.[\w.-]+"), "***"),
)


def without_secrets(text: object) -> str:
    """Text as it may be shown and logged.

    Parameters
    ----------
    text : object
        An address, or a message that may hold some: e.g. one with ``user:password@``, or signed in
        what follows its ``?``.

    Returns
    -------
    str
        With ``***`` instead of passwords, queries and tokens.
    """
    shown = str(text)
    for pattern, replacement in _SECRETS:
        shown = pattern.sub(replacement, shown)
    return shown


def is_remote(path: str | PurePath) -> bool:
    """Whether `path`, a name or what `location` made of it, is an address and no local name."""
    if isinstance(path, str):
        found = ADDRESS.fullmatch(path)
        return found is not None and found[1].lower() != "file"
    return not isinstance(path, PurePath)
