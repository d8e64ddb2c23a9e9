"""The servers that render, as many as there are workers, and the memory of what they found.

Rows go in and verdicts come out as futures, so that the caller keeps the order; nothing here depends on which server
was free.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

import schema
from stages.filter_quality.render.verdicts import PASSING, Verdict
from stages.filter_quality.render.wish import Wish

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[3]
PLAIN = "LINEMILL_PLAIN_MANIM"  # in the environment: Manim as it was installed, without what is in quicker/
_FORMAT = 1  # of what is remembered


class Server:
    """One render server and the pipes to it."""

    def __init__(self, wish: Wish) -> None:
        # A new environment, not a cleaned one: programs can read the memory in which the old one stood.
        path = os.environ.get("PATH", os.defpath)
        env = {"PATH": path, "LANG": "C.UTF-8", "HOME": "/", "USER": "nobody", "PYTHONHASHSEED": "0"}
        env |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"), "1")
        command = [sys.executable, "-W", "ignore", "-m", "stages.filter_quality.render.server"]
        # A session of its own: Ctrl-C is for the main process, which then closes the pipes.
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        limits = {"cpu_s": wish.timeout, "memory_mb": wish.memory}
        self.say({"limits": limits, "unsafe": wish.unsafe, "plain": bool(os.environ.get(PLAIN))})

    def say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise EOFError from error

    def hear(self) -> tuple[dict[str, Any], bytes]:
        """The next answer and its picture; EOFError when the server is no longer there."""
        assert self.process.stdout
        header = self.process.stdout.readline()
        if not header.endswith(b"\n"):
            raise EOFError
        answer = json.loads(header)
        return answer, self.process.stdout.read(answer.get("picture", 0))

    def release(self) -> None:
        """Without its input a server ends, and with it whatever it runs."""
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.close()


class Pool:
    """As many servers as workers; `judge` gives a verdict for any program, whichever of them is free."""

    def __init__(self, wish: Wish, workers: int) -> None:
        self.wish, self.workers = wish, workers
        self.counts: Counter[str] = Counter()
        self.cpu_s = 0.0
        self.hello: dict[str, Any] = {}
        self._lock, self._is_closed = threading.Lock(), False
        self._servers: list[Server] = []
        self._free: queue.SimpleQueue[Server] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(workers)

    def __enter__(self) -> Pool:
        for folder in filter(None, (self.wish.frames, self.wish.cache)):
            Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            for server in [self._start() for _ in range(self.workers)]:
                self._greet(server)
                self._free.put(server)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        """End every server, also those that are in the middle of a program."""
        with self._lock:
            self._is_closed = True
        for server in self._servers:
            server.release()
        self._threads.shutdown(cancel_futures=True)
        for server in self._servers:
            server.process.wait()
            assert server.process.stdout
            server.process.stdout.close()

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """`work` in a thread of the pool; it may call `judge`."""
        return self._threads.submit(work, *arguments)

    def judge(self, record: schema.Record) -> Verdict:
        """The verdict over the program of a record, from the cache or from a server."""
        job = {"code": record["code"], "scene": record["metadata"].get("scene"), "level": self.wish.level}
        job |= {"frame": self.wish.frames is not None}
        key = self._key(job)
        said = self._remembered(key)
        self._count("rendered" if said is None else "remembered")
        if said is None:
            said = self._rendered(job, key)
            self._remember(key, said)
        self._count("ok" if said["ok"] else said["error"]["class"])
        return {"level": self.wish.level, **said, "versions": self.hello["versions"]}

    def facts(self) -> dict[str, Any]:
        """What the ledger keeps; the time is that of this run."""
        told = {key: self.hello[key] for key in ("tex", "versions", "layers")}
        counts = dict(sorted(self.counts.items()))
        return {"level": self.wish.level, **told, "counts": counts, "cpu_s": round(self.cpu_s, 1)}

    def _start(self) -> Server:
        with self._lock:
            if self._is_closed:
                raise EOFError
            server = Server(self.wish)
            self._servers.append(server)
        return server

    def _greet(self, server: Server) -> None:
        try:
            hello, _ = server.hear()
        except EOFError as error:
            raise schema.Failure("a render server ended before its first scene; see above") from error
        if refused := hello.get("refused"):
            raise click.UsageError(f"--render {self.wish.level}: {refused}")
        self.hello = hello

    def _count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1

    def _rendered(self, job: dict[str, Any], key: str) -> Verdict:
        server = self._free.get()
        try:
            server, answer, picture = self._answer(server, job)
        finally:
            self._free.put(server)
        with self._lock:
            self.cpu_s += answer["cpu_s"]
        said: Verdict = answer["verdict"]
        if self.wish.frames and picture.startswith(b"\x89PNG"):
            said["frame"] = f"{key[:32]}.png"
            _put(Path(self.wish.frames, said["frame"]), picture)
        return said

    def _answer(self, server: Server, job: dict[str, Any]) -> tuple[Server, dict[str, Any], bytes]:
        """The answer, from a new server when the first one died; that one is then the one to go on with."""
        try:
            server.say(job)
            return server, *server.hear()
        except EOFError:
            server.release()
            server = self._start()
            self._greet(server)
            server.say(job)
            return server, *server.hear()

    def _key(self, job: dict[str, Any]) -> str:
        wish = self.wish
        facts = [_FORMAT, job, wish.timeout, wish.memory, self.hello["versions"], self.hello["tex"]]
        facts += ["plain"] if os.environ.get(PLAIN) else []  # whoever asks for it doubts what is remembered, too
        return schema.sha256(schema.canonical(facts))

    def _remembered(self, key: str) -> Verdict | None:
        """What was found before; a file that can not be read is no memory, and a frame that is gone is made again."""
        if not self.wish.cache:
            return None
        try:
            said: Verdict = json.loads(Path(self.wish.cache, key[:2], f"{key}.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        if self.wish.frames and "frame" in said and not Path(self.wish.frames, said["frame"]).exists():
            return None
        return said

    def _remember(self, key: str, said: Verdict) -> None:
        if self.wish.cache and (said["ok"] or said["error"]["class"] not in PASSING):
            _put(Path(self.wish.cache, key[:2], f"{key}.json"), json.dumps(said).encode())


def _put(path: Path, data: bytes) -> None:
    """Whole or not at all, also when two runs write the same."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    part.write_bytes(data)
    part.replace(path)
