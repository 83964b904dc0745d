"""A bucket in memory, and two ways to it: a server for libraries, and a file system without one.

The server answers as Cloud Storage's JSON interface does, as much of it as gcsfs, Google's own
client and tensorstore use. Requests that it does not know are answered with 501 and kept in
`unknown`, so that no test passes by luck. The file system takes the place of gcsfs, where that is
not installed.
"""

import base64
import contextlib
import datetime
import hashlib
import io
import itertools
import json
import re
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import fsspec
import pytest
from etils.epath import backend

OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)$")
LISTING = re.compile(r"/storage/v1/b/([^/]+)/o$")
UPLOAD = re.compile(r"/upload/storage/v1/b/([^/]+)/o$")
REWRITE = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)$")
MOVE = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/moveTo/o/([^/]+)$")
BUCKET = re.compile(r"/storage/v1/b/([^/]+)$")


class Stored(NamedTuple):
    """An object: its bytes, the number of its writing, and when that was."""

    content: bytes
    generation: int
    written: str


class Answer(NamedTuple):
    """Status, body and headers of an answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def as_json(content: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode(), (("Content-Type", "application/json"),))


def error(status: int, message: str) -> Answer:
    return as_json({"error": {"code": status, "message": message}}, status)


class Bucket:
    """The objects of one bucket, `name`; all of its methods may be called from several threads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.objects: dict[str, Stored] = {}
        self.unknown: list[str] = []
        self.requests = 0
        self._uploads: dict[str, tuple[str, dict[str, str], bytearray]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    def put(self, name: str, content: bytes) -> None:
        """Writes an object."""
        with self._lock:
            self._store(name, {}, content)

    def names(self, pattern: str) -> list[str]:
        """Returns the objects whose whole names the regular expression matches, in order."""
        with self._lock:
            return sorted(name for name in self.objects if re.fullmatch(pattern, name))

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        """Answers one request; `path` is what follows the host."""
        parts = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        with self._lock:
            self.requests += 1
            if parts.path == "/batch/storage/v1" and method == "POST":
                return self._batch(headers, body)
            found = self._route(method, parts.path, query, headers, body)
            if found is None:
                self.unknown.append(f"{method} {path}")
                return error(501, f"not imitated: {method} {path}")
            return found

    def _route(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: bytes
    ) -> Answer | None:
        if match := REWRITE.match(path):
            if match[1] != self.name or match[3] != self.name:
                return error(404, "no such bucket")
            return self._rewrite(*map(urllib.parse.unquote, (match[2], match[4])))
        if method == "POST" and (match := MOVE.match(path)) and match[1] == self.name:
            source, target = map(urllib.parse.unquote, (match[2], match[3]))
            return self._move(source, target)
        for pattern in (OBJECT, LISTING, UPLOAD, BUCKET):
            match = pattern.match(path)
            if match and match[1] != self.name:
                return error(404, f"there is no bucket {match[1]}")
            if not match:
                continue
            if pattern is OBJECT:
                return self._object(method, urllib.parse.unquote(match[2]), query, headers)
            if pattern is LISTING and method == "GET":
                return self._list(query)
            if pattern is UPLOAD:
                return self._upload(method, query, headers, body)
            if pattern is BUCKET and method == "GET":
                return as_json(
                    {"kind": "storage#bucket", "name": self.name, "id": self.name, "etag": "e"}
                )
        return None

    def _object(self, method: str, name: str, query: dict[str, str], headers: Any) -> Answer | None:
        stored = self.objects.get(name)
        if stored is None:
            return error(404, f"there is no object {name}")
        if query.get("ifGenerationMatch", str(stored.generation)) != str(stored.generation):
            return error(412, "of another generation")
        if method == "DELETE":
            del self.objects[name]
            return Answer(204)
        if method != "GET":
            return None
        if query.get("ifGenerationNotMatch") == str(stored.generation):
            return Answer(304)
        if query.get("alt") != "media":
            return as_json(self._about(name, stored))
        told = (
            ("x-goog-generation", str(stored.generation)),
            ("x-goog-stored-content-length", str(len(stored.content))),
            ("x-goog-hash", f"md5={md5(stored.content)}"),
            ("Content-Type", "application/octet-stream"),
        )
        wanted = re.match(r"bytes=(\d+)-(\d*)", headers.get("Range", ""))
        if not wanted:
            return Answer(200, stored.content, told)
        first, size = int(wanted[1]), len(stored.content)
        last = min(int(wanted[2]) if wanted[2] else size, size - 1)
        if first >= size:
            return error(416, "range")
        span = ("Content-Range", f"bytes {first}-{last}/{size}")
        return Answer(206, stored.content[first : last + 1], (*told, span))

    def _list(self, query: dict[str, str]) -> Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, prefixes = [], set()
        for name in sorted(self.objects):
            if not name.startswith(prefix) or name < query.get("startOffset", ""):
                continue
            if "endOffset" in query and name >= query["endOffset"]:
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(self._about(name, self.objects[name]))
        return as_json({"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})

    def _upload(
        self, method: str, query: dict[str, str], headers: Any, body: bytes
    ) -> Answer | None:
        kind = query.get("uploadType")
        if method == "POST" and kind == "media":
            return self._store(query["name"], query, body)
        if method == "POST" and kind == "multipart":
            about, content = multipart(headers["Content-Type"], body)
            return self._store(query.get("name") or json.loads(about)["name"], query, content)
        if method == "POST" and kind == "resumable":
            number = f"upload-{next(self._numbers)}"
            name = query.get("name") or json.loads(body)["name"]
            self._uploads[number] = (name, query, bytearray())
            place = f"http://{headers['Host']}/upload/storage/v1/b/{self.name}/o"
            return Answer(200, b"", (("Location", f"{place}?upload_id={number}"),))
        if query.get("upload_id") in self._uploads:
            name, asked, held = self._uploads[query["upload_id"]]
            held += body
            if headers.get("Content-Range", "").endswith("/*"):
                return Answer(308, b"", (("Range", f"bytes=0-{len(held) - 1}"),))
            return self._store(name, asked, bytes(held))
        return None

    def _store(self, name: str, query: dict[str, str], content: bytes) -> Answer:
        before = self.objects[name].generation if name in self.objects else 0
        if query.get("ifGenerationMatch", str(before)) != str(before):
            return error(412, "of another generation")
        now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        self.objects[name] = Stored(content, next(self._numbers), now)
        return as_json(self._about(name, self.objects[name]))

    def _rewrite(self, source: str, target: str) -> Answer:
        if source not in self.objects:
            return error(404, f"there is no object {source}")
        self._store(target, {}, self.objects[source].content)
        about = self._about(target, self.objects[target])
        return as_json({"kind": "storage#rewriteResponse", "done": True, "resource": about})

    def _move(self, source: str, target: str) -> Answer:
        if source not in self.objects:
            return error(404, f"there is no object {source}")
        return self._store(target, {}, self.objects.pop(source).content)

    def _batch(self, headers: Any, body: bytes) -> Answer:
        boundary = headers["Content-Type"].split("boundary=")[1].strip('"')
        answers = []
        for part in body.decode().split(f"--{boundary}")[1:-1]:
            line = re.search(r"^(DELETE) (\S+)", part, re.M)
            assert line, part
            answer = self.answer(line[1], line[2], {}, b"")
            answers.append(
                f"--answer\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {answer.status} X\r\n"
                f"\r\n{answer.body.decode()}\r\n"
            )
        text = "".join(answers) + "--answer--"
        return Answer(200, text.encode(), (("Content-Type", "multipart/mixed; boundary=answer"),))

    def _about(self, name: str, stored: Stored) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "bucket": self.name,
            "name": name,
            "id": f"{self.name}/{name}/{stored.generation}",
            "size": str(len(stored.content)),
            "generation": str(stored.generation),
            "metageneration": "1",
            "md5Hash": md5(stored.content),
            "timeCreated": stored.written,
            "updated": stored.written,
        }


def md5(content: bytes) -> str:
    """Returns the MD5 as Cloud Storage writes it."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def multipart(kind: str, body: bytes) -> tuple[bytes, bytes]:
    """Returns what describes an object and its content."""
    found = re.search(r"boundary=['\"]?([^'\";]+)", kind)
    assert found, kind
    parts = body.split(b"--" + found[1].encode())[1:3]
    about, content = (re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in parts)
    ending = b"\r\n" if content.endswith(b"\r\n") else b"\n"
    return about, content.removesuffix(ending)


@contextlib.contextmanager
def served(bucket: Bucket) -> Iterator[str]:
    """Serves `bucket` on a free port of this machine; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self._body()
            answer = bucket.answer(self.command, self.path, self.headers, body)
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = do_DELETE = respond

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that was killed

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def environment(address: str) -> dict[str, str]:
    """Returns the variables that send gcsfs, Google's client and tensorstore to `address`."""
    return {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        # What a bucket is laid out like is asked for over gRPC, which this server does not speak.
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }


def mounted(bucket: Bucket, patch: pytest.MonkeyPatch) -> None:
    """Makes `gs://` paths of this process lead to `bucket`, without any server."""

    class Written(io.BytesIO):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def close(self) -> None:
            if not self.closed:
                bucket.put(self.name, self.getvalue())
            super().close()

    class FileSystem(fsspec.AbstractFileSystem):
        protocol = ("gs", "gcs")
        cachable = False

        def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
            name = self._name(path)
            if mode == "wb":
                return Written(name)
            assert mode == "rb", "an object cannot grow"
            if name not in bucket.objects:
                raise FileNotFoundError(path)
            return io.BytesIO(bucket.objects[name].content)

        def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
            path = self._strip_protocol(path)
            found: dict[str, Any] = {}
            for name, stored in bucket.objects.items():
                whole = f"{bucket.name}/{name}"
                if whole == path:
                    found[whole] = self._about(whole, stored)
                elif whole.startswith(f"{path}/"):
                    child = f"{path}/{whole[len(path) + 1 :].split('/')[0]}"
                    folder = {"name": child, "size": 0, "type": "directory"}
                    found[child] = self._about(whole, stored) if child == whole else folder
            if not found and path != bucket.name:
                raise FileNotFoundError(path)
            return list(found.values()) if detail else list(found)

        def info(self, path: str, **_: Any) -> dict[str, Any]:
            if self._strip_protocol(path) == bucket.name:
                return {"name": bucket.name, "size": 0, "type": "directory"}
            return super().info(path)

        def rm_file(self, path: str) -> None:
            if bucket.objects.pop(self._name(path), None) is None:
                raise FileNotFoundError(path)

        def cp_file(self, path1: str, path2: str, **_: Any) -> None:
            bucket.put(self._name(path2), bucket.objects[self._name(path1)].content)

        def modified(self, path: str) -> datetime.datetime:
            return datetime.datetime.fromisoformat(self.info(path)["updated"])

        def _name(self, path: str) -> str:
            return self._strip_protocol(path).removeprefix(f"{bucket.name}/")

        def _about(self, whole: str, stored: Stored) -> dict[str, Any]:
            about = bucket._about(whole, stored)
            return {**about, "name": whole, "size": int(about["size"]), "type": "file"}

    patch.setitem(sys.modules["fsspec.registry"]._registry, "gcs", FileSystem)
    # It keeps the file system of an earlier test.
    patch.setattr(type(backend.fsspec_backend), "_get_filesystem", lambda *_: FileSystem())
