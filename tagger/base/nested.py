"""Settings as nested values: merged, and flattened."""

from typing import Any


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key, as ``--set`` takes them."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Put changes over a base; with another name an entry's parameters begin anew."""
    whole = dict(base)
    # Parameters belong to their entry: another name starts from that entry's own defaults.
    if "name" in changes and changes["name"] != base.get("name"):
        whole.pop("params", None)
    for key, value in changes.items():
        if f"{key}_params" in whole and value != base.get(key):
            whole.pop(f"{key}_params")
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(whole.get(key), dict):
            whole[key] = merged(whole[key], value)
        else:
            whole[key] = value
    return whole
