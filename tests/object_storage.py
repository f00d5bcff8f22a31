"""As much of S3's protocol as a broker needs that keeps its data there: objects by key, with conditions."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

_TIME = "Thu, 01 Jan 2026 00:00:00 GMT"
_ISO_TIME = "2026-01-01T00:00:00.000Z"


class _Object(NamedTuple):
    body: bytes
    tag: str


class _Storage(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.objects: dict[str, _Object] = {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Storage

    def do_PUT(self) -> None:
        key, _ = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        new = _Object(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        with self.server.lock:
            there = self.server.objects.get(key)
            is_wanted = self._is_wanted(there)
            if is_wanted:
                self.server.objects[key] = new
        self._answer(200, ETag=new.tag) if is_wanted else self._answer(412)

    def do_GET(self) -> None:
        key, query = self._asked()
        if "list-type" in query:
            self._list(key, query)
            return
        with self.server.lock:
            there = self.server.objects.get(key)
        if there is None:
            self._answer(404)
            return
        self._answer(200, there.body, ETag=there.tag, **{"Last-Modified": _TIME})

    do_HEAD = do_GET  # noqa: N815 - the standard library's way of naming

    def do_DELETE(self) -> None:
        key, _ = self._asked()
        with self.server.lock:
            self.server.objects.pop(key, None)
        self._answer(204)

    def log_message(self, *_: object) -> None:
        pass

    def _asked(self) -> tuple[str, dict[str, str]]:
        url = urlsplit(self.path)
        return unquote(url.path).strip("/"), dict(parse_qsl(url.query, keep_blank_values=True))

    def _is_wanted(self, there: _Object | None) -> bool:
        """Whether the request's conditions hold."""
        if self.headers.get("If-None-Match") == "*" and there is not None:
            return False
        tag = self.headers.get("If-Match")
        return tag is None or (there is not None and there.tag == tag)

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        start, delimiter = f"{bucket}/{query.get('prefix', '')}", query.get("delimiter") or "\0"
        with self.server.lock:
            found = {key: each for key, each in self.server.objects.items() if key.startswith(start)}
        folders = {start + key.removeprefix(start).partition(delimiter)[0] for key in found}
        parts = [
            f"<Contents><Key>{escape(key.removeprefix(bucket + '/'))}</Key>"
            f"<LastModified>{_ISO_TIME}</LastModified><ETag>{escape(each.tag)}</ETag>"
            f"<Size>{len(each.body)}</Size></Contents>"
            for key, each in sorted(found.items())
            if key in folders
        ]
        prefixes = sorted(folder.removeprefix(bucket + "/") + delimiter for folder in folders - set(found))
        parts += [f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in prefixes]
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(parts)}</ListBucketResult>"
        self._answer(200, text.encode(), **{"Content-Type": "application/xml"})

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def object_storage() -> Iterator[dict[str, str]]:
    """Run one; yield the environment with which a broker has it as its storage ``s3://any-bucket/``."""
    storage = _Storage()
    thread = threading.Thread(target=storage.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{storage.server_port}"
    try:
        yield {
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "any",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ENDPOINT": url,
            "AWS_ENDPOINT_URL": url,
        }
    finally:
        storage.shutdown()
        storage.server_close()
        thread.join(5)
