"""Ports that nobody listens on."""

import socket


def ports(number: int) -> list[int]:
    """Free ports: all are open at once, so that they differ."""
    sockets = [socket.socket() for _ in range(number)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    found = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return found
