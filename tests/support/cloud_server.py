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

_JSON = "application/json"
# Objects that a listing gives at once.
_PAGE = 1000


class Handler(RequestHandler):
    def __init__(self, server_state, *arguments):
        self.state = server_state
        super().__init__(server_state.storage, *arguments)

    def log_message(self, *_):
        pass

    def refuse(self, code, message):
        self.reply(code, {"error": {"code": code, "message": message}})

    def answer(self, method):
        state = self.state
        # The emulator's tables are not made for threads.
        with state.lock:
            path, _, query = self.path.partition("?")
            fields = urllib.parse.parse_qs(query)
            name = urllib.parse.unquote(path.rpartition("/o/")[2]) if "/o/" in path else ""
            upload = fields.get("upload_id", [None])[0]
            if "/upload/" in path:
                n_bytes = int(self.headers["Content-Length"])
                if upload is not None and upload in state.uploads:
                    name = state.uploads[upload][0]
                    if self.breaks(method, name):
                        state.asked.append((method, name))
                        self.rfile.read(n_bytes // 2)
                        return
                body = self.rfile.read(n_bytes)
                if upload is None:
                    name = fields["name"][0] if "name" in fields else _name_in(body)
                    if self.breaks(method, name):
                        state.asked.append((method, name))
                        return
                if name in state.damaged_uploads and not self.headers["Content-Type"].startswith(
                    _JSON
                ):
                    state.damaged_uploads.remove(name)
                    # In the middle of the content.
                    body = body[: -len(body) // 3] + b"#" + body[-len(body) // 3 + 1 :]
                self.rfile = _Bytes(body)
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
            condition = fields.get("ifGenerationMatch", [None])[0]
            if upload is not None:
                condition = state.uploads[upload][1]
                if upload not in state.storage.resumable:
                    # Complete: what was answered then is answered again.
                    self.reply(200, state.storage.get_file_obj(state.bucket, name))
                    return
            wanted = fields.get("generation", [None])[0]
            if wanted is not None and self.generation(name) != int(wanted):
                # Buckets keep no earlier versions unless they are asked to.
                self.refuse(404, f"No such object: {state.bucket}/{name}")
                return
            if condition is not None and self.generation(name) != int(condition):
                self.refuse(412, "conditionNotMet")
                return
            if "/upload/" in path and fields.get("uploadType") == ["resumable"] and not upload:
                before = set(state.storage.resumable)
                Router(self).handle(method)
                for found in set(state.storage.resumable) - before:
                    state.uploads[found] = (name, condition)
                return
            if path.endswith(f"/b/{state.bucket}/o") and method == "GET":
                self.list_page(fields)
                return
            if upload and not self.is_undamaged(upload, body):
                return
            if "media" in fields.get("alt", []) and self.breaks(method, name):
                self.wfile = _Breaking(self.wfile)
            if name in state.damaged and "media" in fields.get("alt", []):
                state.damaged[name] -= 1
                if state.damaged[name] <= 0:
                    del state.damaged[name]
                self.wfile = _Damaging(self.wfile)
            Router(self).handle(method)

    def reply(self, code, content):
        content = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", _JSON)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def is_undamaged(self, upload, body):
        """Compare a whole upload with the checksum that came with its last piece."""
        kind, _, wanted = self.headers.get("X-Goog-Hash", "").partition("=")
        storage = self.state.storage
        if kind != "crc32c":
            return True
        start = storage.get_resumable_byte_count(upload)
        before = storage.get_file("_resumable", storage.safe_id(upload)) if start else b""
        found = objects._crc32c(before + body)
        if found != wanted:
            del storage.resumable[upload]
            text = f'Provided CRC32C "{wanted}" doesn\'t match calculated CRC32C "{found}".'
            self.refuse(400, text)
        return found == wanted

    def breaks(self, method, name):
        """Whether the connection breaks in the middle of this request."""
        if (method, name) not in self.state.breaking:
            return False
        self.state.breaking.remove((method, name))
        self.close_connection = True
        return True

    def list_page(self, fields):
        """Answer with a page of a listing: the emulator gives all at once."""
        first = {name: values[0] for name, values in fields.items()}
        found, prefixes = self.state.storage.get_file_list(
            self.state.bucket, first.get("prefix"), first.get("delimiter")
        )
        start = int(first.get("pageToken", 0))
        end = start + min(int(first.get("maxResults", _PAGE)), _PAGE)
        page = {"items": found[start:end], "prefixes": [] if start else prefixes}
        if end < len(found):
            page["nextPageToken"] = str(end)
        self.reply(200, page)

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


class _Breaking:
    """Sends half of what is written after the head of an answer."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, content):
        if not content.startswith(b"HTTP/") and b"\r\n\r\n" not in content:
            content = content[: len(content) // 2]
        return self.stream.write(content)

    def __getattr__(self, name):
        return getattr(self.stream, name)


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
        # Objects whose next uploads are damaged on their way; one entry for each time.
        self.damaged_uploads = []
        # Methods and names of requests in whose middle the connection breaks; one for each time.
        self.breaking = []
        # Of uploads in several requests: name of the object, and the generation asked for.
        self.uploads = {}
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
