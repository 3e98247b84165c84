"""A service on an address, until it is told to end."""

import signal
import socket
from pathlib import Path
from types import FrameType

from tagger.base.errors import ConfigError
from tagger.base.log import notice
from tagger.serve.settings import ServeSettings

_MOST_CONNECTIONS = 1000


def run_service(settings: ServeSettings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C: requests that are under way are answered, then it ends.

    Parameters
    ----------
    settings : ServeSettings
        Models and bounds.
    host : str
        Where to listen.
    port : int
        0 for one that is free.

    Raises
    ------
    ConfigError
        If nothing can listen there.
    ModelError
        If a model cannot be loaded.
    """
    import uvicorn

    from tagger.serve.app import create_app

    if not Path("/proc/self/fd").is_dir():
        raise ConfigError(
            "the service reads uploads from files without a name, by /proc, which this system does "
            "not have; run it on Linux, e.g. in the container of deploy/service"
        )

    class Server(uvicorn.Server):
        """Tells its jobs, whose followers it would wait for, that it is ending."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.state.service.jobs.stop()
            super().handle_exit(sig, frame)

    listening = _listening(host, port)
    try:
        app = create_app(settings)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=round(settings.timeout_seconds),
            # Between two requests of a client; before its first a connection is only counted.
            timeout_keep_alive=10,
            limit_concurrency=_MOST_CONNECTIONS,
            ws_max_size=1 << 22,
        )
        server = Server(config)
        # Before it has handlers of its own, and after: once it has ended cleanly it sends itself
        # the signal again, for whoever wants to know.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        at = listening.getsockname()[:2]
        notice(f"page and service: http://{_shown(at[0])}:{at[1]}/")
        server.run(sockets=[listening])
    finally:
        listening.close()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        # Who is told of the address may ask at once, and waits until somebody answers.
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"--host {host} --port {port}: nothing can listen there ({error.strerror or error}); "
            "choose another port"
        ) from None
    return listening


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
