"""Stores on loopback, as their client libraries ask for them: Google's by its JSON API, and a dataset on the Hub."""

from __future__ import annotations

import base64
import hashlib
import json
from urllib.parse import parse_qs, unquote, urlsplit

from fake_hubs import COMMIT, Hub, _Handler

BUCKET = "/storage/v1/b/data"
DATASET = "/api/datasets/own/data"


class Store(Hub):
    """The files by their names; `written` are the names in the order of their writes, a removed one with a minus."""

    def __init__(self):
        super().__init__({})
        self.written = []

    def keep(self, name, body):
        self.files[name] = body
        self.written.append(name)

    def drop(self, name):
        del self.files[name]
        self.written.append(f"-{name}")


class _StoreHandler(_Handler):
    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def part_of(self, data):
        """The whole, or the bytes that the request asks for."""
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        if not asked:
            return 200, data, {}
        first, _, last = asked.partition("-")
        end = min(int(last or len(data)), len(data) - 1)
        return 206, data[int(first) : end + 1], {"Content_Range": f"bytes {first}-{end}/{len(data)}"}


class _GoogleHandler(_StoreHandler):
    def do_GET(self):
        place = urlsplit(self.path)
        path, asked = place.path.removeprefix("/download"), parse_qs(place.query)
        if path == BUCKET:
            self.as_json({"name": "data", "kind": "storage#bucket"})
        elif path == f"{BUCKET}/o":
            self.as_json(self.listing(asked.get("prefix", [""])[0], asked.get("delimiter", [""])[0]))
        elif (name := self.object()) not in self.hub.files:
            self.as_json({"error": {"code": 404, "message": f"No such object: {path}"}}, 404)
        elif asked.get("alt") == ["media"]:
            status, part, headers = self.part_of(self.hub.files[name])
            self.answer(status, part, **headers)
        else:
            self.as_json(self.facts(name))

    def object(self):
        path = urlsplit(self.path).path.removeprefix("/download")
        return unquote(path.removeprefix(f"{BUCKET}/o/")) if path.startswith(f"{BUCKET}/o/") else None

    def facts(self, name):
        data = self.hub.files[name]
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        facts = {"kind": "storage#object", "bucket": "data", "name": name, "size": str(len(data)), "md5Hash": md5}
        return facts | {"etag": md5[:8], "generation": "1", "metageneration": "1"}

    def listing(self, prefix, delimiter):
        found, folders = [], set()
        for name in sorted(self.hub.files):
            if name.startswith(prefix):
                inner, ends, _ = name[len(prefix) :].partition(delimiter or "\0")
                folders |= {f"{prefix}{inner}{ends}"} if ends else set()
                found += [] if ends else [self.facts(name)]
        return {"kind": "storage#objects", "items": found, "prefixes": sorted(folders)}

    def do_POST(self):
        place, data = urlsplit(self.path), self.body()
        asked = parse_qs(place.query)
        if place.path != f"/upload{BUCKET}/o":
            self.as_json({"error": {"code": 404, "message": "The specified bucket does not exist."}}, 404)
        elif asked.get("uploadType") == ["multipart"]:
            mark = b"--" + self.headers["Content-Type"].split("boundary=")[1].strip('"').encode()
            told, _, rest = data.removeprefix(mark).partition(b"\n" + mark)
            name = json.loads(told.partition(b"\n\n")[2])["name"]
            self.finish(name, rest.partition(b"\n\n")[2].removesuffix(b"\n" + mark + b"--"))
        elif "upload_id" in asked:  # gcsfs sends a part of a file that is sent in several by POST
            self.finish(asked["upload_id"][0], data)
        else:
            name = json.loads(data)["name"]
            self.answer(200, Location=f"{self.hub.url}/upload{BUCKET}/o?uploadType=resumable&upload_id={name}")

    def finish(self, name, data):
        self.hub.keep(name, data)
        self.as_json(self.facts(name))

    def do_DELETE(self):
        self.hub.drop(self.object())
        self.answer(204)


class _DatasetHandler(_StoreHandler):
    """A repository that holds only small files, so that each write of one is a commit."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if path in (DATASET, f"{DATASET}/revision/main"):
            self.as_json({"id": "own/data", "sha": COMMIT, "siblings": [], "tags": []})
        elif path.startswith(f"{DATASET}/tree/main"):
            self.tree(path.removeprefix(f"{DATASET}/tree/main").strip("/"))
        elif (name := path.removeprefix("/datasets/own/data/resolve/main/")) in self.hub.files:
            data = self.hub.files[name]
            status, part, headers = self.part_of(data)
            self.answer(status, part, ETag=f'"{self.blob(data)}"', X_Repo_Commit=COMMIT, **headers)
        else:
            code = "EntryNotFound" if path.startswith("/datasets/own/data/") else "RepoNotFound"
            self.as_json({"error": "not found"}, 404, X_Error_Code=code)

    @staticmethod
    def blob(data):
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def tree(self, folder):
        prefix, found = f"{folder}/" if folder else "", {}
        for name, data in sorted(self.hub.files.items()):
            if name.startswith(prefix):
                inner, ends, _ = name[len(prefix) :].partition("/")
                oid = "0" * 40 if ends else self.blob(data)
                found[prefix + inner] = {"type": "directory" if ends else "file", "oid": oid, "size": len(data)}
        if not found:
            self.as_json({"error": "not found"}, 404, X_Error_Code="EntryNotFound")
        else:
            self.as_json([{"path": path, **facts} for path, facts in found.items()])

    def do_POST(self):
        path, data = urlsplit(self.path).path, self.body()
        if path == f"{DATASET}/preupload/main":
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(data)["files"]]
            self.as_json({"files": [file | {"shouldIgnore": False} for file in files]})
        elif path == f"{DATASET}/commit/main":
            for line in map(json.loads, data.splitlines()):
                if line["key"] == "file":
                    self.hub.keep(line["value"]["path"], base64.b64decode(line["value"]["content"]))
                elif line["key"] == "deletedFile":
                    self.hub.drop(line["value"]["path"])
            place = f"{self.hub.url}/datasets/own/data/commit/{COMMIT}"
            self.as_json({"success": True, "commitOid": COMMIT, "commitUrl": place, "hookOutput": ""})
        else:
            self.as_json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")


class GoogleStorage(Store):
    handler = _GoogleHandler


class Dataset(Store):
    handler = _DatasetHandler
