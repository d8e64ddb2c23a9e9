"""Hugging Face and Kaggle on loopback, as their client libraries ask for them; what they answer is set by the test."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this dataset is restricted."}


class Hub:
    """Answers from `files`; `faults` are (part of the path, fault), each used once and in this order."""

    def __init__(self, files, faults=(), token=None, configs=None):
        self.files, self.faults, self.token, self.configs = files, list(faults), token, configs
        self.commit = COMMIT
        self.asked, self.keys = [], set()

    @contextlib.contextmanager
    def serve(self):
        handler = type("Handler", (self.handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), **{name.replace("_", "-"): text for name, text in headers.items()}}
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def as_json(self, value, status=200, **headers):
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def file(self, body, **headers):
        """The body, or what the next fault makes of it."""
        fault = self.next_fault()
        if fault == "truncated":
            self.answer(200, body[: len(body) // 2], **{**headers, "Content-Length": str(len(body))})
        elif fault == "short":
            self.answer(200, body[: len(body) // 2], **headers)
        elif fault == "long":
            self.answer(200, body * 2, **headers)
        elif fault == "other bytes":
            self.answer(200, bytes(len(body)), **headers)
        elif not self.refused(fault):
            self.answer(200, body, **headers)

    def next_fault(self):
        for entry in self.hub.faults:
            if entry[0] in self.path:
                self.hub.faults.remove(entry)
                return entry[1]
        return None

    def refused(self, fault):
        match fault:
            case None:
                return False
            case int():
                self.as_json({"error": "no"}, fault)
            case ("wait", seconds):
                self.as_json({"error": "slow down"}, 429, Retry_After=str(seconds))
            case ("go", place):
                self.answer(302, Location=place)
            case (status, headers):
                self.as_json({"error": "no"}, status, **headers)
        return True


class _HuggingFaceHandler(_Handler):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.asked.append(path)
        hub.keys.add(self.headers.get("Authorization"))
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self.as_json({"error": "gated"}, 401, **GATED)
        elif path.startswith("/api/datasets/own/set/revision/"):
            if not self.refused(self.next_fault()):
                self.revision(path.rpartition("/")[2])
        elif path.startswith("/api/datasets/own/set/tree/"):
            files = [
                {"type": "file", "path": name, "size": len(body), "oid": "0" * 40} for name, body in hub.files.items()
            ]
            self.as_json(files)
        elif path.startswith(f"/datasets/own/set/resolve/{COMMIT}/"):
            body = hub.files[path.partition(f"{COMMIT}/")[2]]
            self.file(body, ETag=f'"{hashlib.sha256(body).hexdigest()}"', X_Repo_Commit=COMMIT)
        else:
            self.as_json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    def revision(self, name):
        if name not in ("main", COMMIT):
            self.as_json({"error": f"Invalid rev id: {name}"}, 404, X_Error_Code="RevisionNotFound")
            return
        siblings = [self.sibling(path, body) for path, body in self.hub.files.items()]
        card = {"configs": self.hub.configs} if self.hub.configs else {}
        self.as_json({"id": "own/set", "sha": self.hub.commit, "siblings": siblings, "cardData": card, "tags": []})

    @staticmethod
    def sibling(path, body):
        """Large files are in LFS, with a SHA-256; the others have a git name only."""
        lfs = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 129}
        return {
            "rfilename": path,
            "size": len(body),
            "blobId": "0" * 40,
            **({"lfs": lfs} if ".parquet" in path else {}),
        }


class _KaggleHandler(_Handler):
    """A proxy to http://localhost, since that is the one endpoint of kagglehub that may be a machine like this."""

    def do_POST(self):
        place = urlsplit(self.path)
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.hub.asked.append(self.path)
        key = base64.b64encode(f"me:{self.hub.token}".encode()).decode()
        if self.hub.token and self.headers.get("Authorization") != f"Basic {key}":
            self.as_json({"code": 401, "message": "Unauthenticated"}, 401)
        elif request["datasetSlug"] != "set":
            self.as_json({"code": 404, "message": "Not found"}, 404)
        elif place.path.endswith("/GetDataset"):
            if not self.refused(self.next_fault()):
                self.as_json({"currentVersionNumber": 3, "ref": "own/set"})
        elif request.get("fileName", "") not in self.hub.files:
            self.as_json({"code": 404, "message": "Not found"}, 404)
        else:
            fault = self.next_fault()
            if not self.refused(fault if isinstance(fault, (tuple, int)) else None):
                name = request.get("fileName", "")
                self.answer(302, Location=f"http://localhost/stored/{fault or 'whole'}/{name}")

    def do_GET(self):
        self.hub.asked.append(self.path)
        name = urlsplit(self.path).path.split("/", 3)[3]
        body = self.hub.files[name]
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        if "/truncated/" in self.path:
            self.answer(200, body[: len(body) // 2], Content_Length=str(len(body)))
        else:
            self.answer(
                200, bytes(len(body)) if "/damaged/" in self.path else body, x_goog_hash=f"crc32c=AA==,md5={md5}"
            )


class HuggingFace(Hub):
    handler = _HuggingFaceHandler


class Kaggle(Hub):
    handler = _KaggleHandler


class _ModelHandler(_Handler):
    """Takes what is uploaded to a model repository: small files in the commit, large ones as LFS objects before it."""

    def do_POST(self):
        path = urlsplit(self.path).path
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.asked.append(path)
        self.hub.keys.add(self.headers.get("Authorization"))
        if self.refused(self.next_fault()):
            return
        if path == "/api/repos/create":
            self.hub.created.append(json.loads(data))
            self.as_json({"url": f"{self.hub.url}/own/model", "name": "own/model"})
        elif path == "/api/validate-yaml":
            self.as_json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            modes = [self.mode(entry) for entry in json.loads(data)["files"]]
            self.as_json({"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**entry, "actions": {"upload": {"href": f"{self.hub.url}/store/{entry['oid']}"}}}
                for entry in json.loads(data)["objects"]
            ]
            answer = json.dumps({"transfer": "basic", "objects": objects}).encode()
            self.answer(200, answer, Content_Type="application/vnd.git-lfs+json")
        elif "/commit/" in path:
            self.commit([json.loads(line) for line in data.splitlines()])
        else:
            self.as_json({"error": "no such thing"}, 404)

    @staticmethod
    def mode(entry):
        large = entry["path"].endswith((".gguf", ".safetensors"))
        return {"path": entry["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.stored[self.path.rpartition("/")[2]] = data
        self.answer(200)

    def commit(self, lines):
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.files[value["path"]] = self.hub.stored[value["oid"]]
        url = f"{self.hub.url}/own/model/commit/{COMMIT}"
        self.as_json({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})


class ModelHub(Hub):
    handler = _ModelHandler

    def __init__(self, **more):
        super().__init__({}, **more)
        self.created, self.stored = [], {}
