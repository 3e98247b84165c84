"""A Cloud Storage server on loopback: an emulator, with the preconditions and troubles it lacks."""

import contextlib
import http.server
import json
import threading
import urllib.parse
from functools import partial, partialmethod

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.server import RequestHandler, Router
from gcp_storage_emulator.storage import Storage


class Handler(RequestHandler):
    def __init__(self, server_state, *arguments):
        self.state = server_state
        super().__init__(server_state.storage, *arguments)

    def log_message(self, *_):
        pass

    def refuse(self, code, message):
        content = json.dumps({"error": {"code": code, "message": message}}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def answer(self, method):
        state = self.state
        # The emulator's tables are not made for threads.
        with state.lock:
            path, _, query = self.path.partition("?")
            fields = urllib.parse.parse_qs(query)
            name = urllib.parse.unquote(path.rpartition("/o/")[2]) if "/o/" in path else ""
            body = None
            if "/upload/" in path and method == "POST":
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.rfile = _Bytes(body)
                name = fields["name"][0] if "name" in fields else _name_in(body)
            state.asked.append((method, name))
            if state.trouble or state.lost(method, name):
                code, after = state.trouble.pop(0) if state.trouble else (503, True)
                if not after:
                    self.refuse(code, "trouble")
                    return
                # Done, but the answer is lost.
                self.wfile, kept = _Bytes(b""), self.wfile
                Router(self).handle(method)
                self.wfile = kept
                self.refuse(code, "trouble")
                return
            if state.refused(method, name):
                self.refuse(403, "no permission for you")
                return
            if "ifGenerationMatch" in fields and self.generation(name) != int(
                fields["ifGenerationMatch"][0]
            ):
                self.refuse(412, "conditionNotMet")
                return
            if name in state.damaged and "media" in fields.get("alt", []):
                state.damaged[name] -= 1
                if state.damaged[name] <= 0:
                    del state.damaged[name]
                self.wfile = _Damaging(self.wfile)
            Router(self).handle(method)

    def generation(self, name):
        try:
            return int(self.state.storage.get_file_obj(self.state.bucket, name)["generation"])
        except NotFound:
            return 0


for _method in ("GET", "POST", "DELETE", "PUT", "PATCH"):
    setattr(Handler, f"do_{_method}", partialmethod(Handler.answer, _method))


class _Bytes:
    """A stream of what was read already, or of what nobody reads."""

    def __init__(self, content):
        self.content = content

    def read(self, size=-1):
        content, self.content = self.content, b""
        return content

    def write(self, content):
        return len(content)

    def flush(self):
        pass

    def close(self):
        pass


class _Damaging:
    def __init__(self, stream):
        self.stream = stream

    def write(self, content):
        if not content.startswith(b"HTTP/") and b"\r\n\r\n" not in content and content:
            content = bytes([content[0] ^ 1]) + content[1:]
        return self.stream.write(content)

    def __getattr__(self, name):
        return getattr(self.stream, name)


def _name_in(body):
    start = body.index(b"{")
    return json.JSONDecoder().raw_decode(body[start:].decode("utf-8", "replace"))[0]["name"]


class CloudServer(http.server.ThreadingHTTPServer):
    """The server; use `running`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, bucket):
        self.bucket = bucket
        self.lock = threading.RLock()
        self.storage = Storage(use_memory_fs=True)
        # It would write all its tables as JSON at each request.
        self.storage._write_config_to_file = lambda: None
        buckets.create_bucket(bucket, self.storage)
        # Methods and names of objects, in order.
        self.asked = []
        # Status codes to answer with before anything else; whether what was asked is done first.
        self.trouble = []
        # Whether a request is done, but its answer lost.
        self.lost = lambda method, name: False
        # Objects whose next downloads are damaged on their way: how many of them.
        self.damaged = {}
        # Whether a request is forbidden.
        self.refused = lambda method, name: False
        super().__init__(("127.0.0.1", 0), partial(Handler, self))

    def handle_error(self, request, client_address):
        """Say nothing of clients that have gone."""

    def objects(self, prefix=""):
        """Content of every object below `prefix`, by the rest of its name."""
        names = sorted(self.storage.objects.get(self.bucket, {}))
        return {
            name.removeprefix(prefix).lstrip("/"): self.storage.get_file(self.bucket, name)
            for name in names
            if name.startswith(prefix)
        }

    def put(self, name, content):
        """Write an object as another machine does, past all troubles."""
        with self.lock:
            entry = objects._make_object_resource(
                "", self.bucket, name, "application/octet-stream", len(content)
            )
            self.storage.create_file(self.bucket, name, content, objects._checksums(content, entry))

    def without_lock(self, work):
        """Call `work` from within a request while others are answered."""
        self.lock.release()
        try:
            return work()
        finally:
            self.lock.acquire()

    def sent(self):
        """Names of the objects that were written since the last call."""
        asked, self.asked = self.asked, []
        return [name for method, name in asked if method == "POST"]

    def fetched(self):
        """Names of the objects that were asked for since the last call."""
        asked, self.asked = self.asked, []
        return [name for method, name in asked if method == "GET" and name]


@contextlib.contextmanager
def running(monkeypatch, *, bucket="bucket"):
    """Run a server that the client of this process, and of those it starts, talks to."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with CloudServer(bucket) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
