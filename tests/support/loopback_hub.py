"""A small server on loopback that speaks the Hub's API: models, commits, LFS, downloads."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".mp4")  # as LFS


class Model:
    """One model: its revisions, each a dict of files."""

    def __init__(self, private: bool) -> None:
        self.private = private
        self.shas: list[str] = []
        self.trees: dict[str, dict[str, bytes]] = {}
        self.commit({})

    def commit(self, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(f"{len(self.shas)}{sorted(files)}".encode()).hexdigest()
        self.shas.append(sha)
        self.trees[sha] = files
        return sha

    def find(self, revision: str) -> str | None:
        return self.shas[-1] if revision == "main" else revision if revision in self.trees else None

    @property
    def files(self) -> dict[str, bytes]:
        return self.trees[self.shas[-1]]


class Hub:
    """The server, and what it is to do wrong."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.blobs: dict[str, bytes] = {}
        self.refusal: tuple[int, str] | None = None  # of every request: status, X-Error-Code
        self.sizes: dict[str, int] = {}  # that the list of files gives, by name
        self.bodies: dict[str, bytes] = {}  # that are sent in place of a file, by name
        self.asked: list[str] = []
        hub = self

        class Handler(_Handler):
            def __init__(self, *arguments: Any) -> None:
                self.hub = hub
                super().__init__(*arguments)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.0"

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def _answer(self, what: Any) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.refusal:
            status, code = self.hub.refusal
            self._send(status, b"{}", {"X-Error-Code": code})
            return
        what(path, body)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _get(self, path: str, body: bytes) -> None:
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            model = self.hub.models.get(match[1])
            if model is None:
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            sha = model.find(match[2] or "main")
            if sha is None:
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            listed = [self._described(name, data) for name, data in model.trees[sha].items()]
            about = {"id": match[1], "sha": sha, "private": model.private, "siblings": listed}
            return self._json(about)
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        model = self.hub.models.get(match[1]) if match else None
        if match is None or model is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        sha = model.find(match[2])
        if sha is None or match[3] not in model.trees[sha]:
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        data = model.trees[sha][match[3]]
        etag = hashlib.sha256(data).hexdigest()
        sent = self.hub.bodies.get(match[3], data)
        self._send(
            200,
            sent,
            {"X-Repo-Commit": sha, "ETag": f'"{etag}"', "X-Linked-Size": str(len(data))},
        )
        return None

    def _described(self, name: str, data: bytes) -> dict[str, Any]:
        size = self.hub.sizes.get(name, len(data))
        about: dict[str, Any] = {"rfilename": name, "size": size, "blobId": "0" * 40}
        if name.endswith(LARGE):
            sha256 = hashlib.sha256(data).hexdigest()
            about["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 130}
        return about

    def _post(self, path: str, body: bytes) -> None:
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if not self.headers.get("Authorization"):
            return self._send(401, b"{}")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.hub.models:
                return self._send(409, json.dumps({"url": f"{self.hub.url}/{name}"}).encode())
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.models[name] = Model(private)
            return self._json({"url": f"{self.hub.url}/{name}"})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": modes})
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                one | {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path)
        assert match, path
        return self._commit(match[1], body)

    def _commit(self, name: str, body: bytes) -> None:
        model = self.hub.models[name]
        files = dict(model.files)
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "header" and value.get("parentCommit") != model.shas[-1]:
                return self._send(412, b"{}")
        sha = model.commit(files)
        return self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})

    def _put(self, path: str, body: bytes) -> None:
        assert hashlib.sha256(body).hexdigest() == path.removeprefix("/lfs/")
        self.hub.blobs[path.removeprefix("/lfs/")] = body
        self._send(200, b"")
