"""Which process asks for what, so that two runs on one cache never pay twice for one request.

A lease is a row with the key, its owner and when it ends. An owner holds a lock on a file of its own for as long as it
lives, so that the leases of a killed run are free at once; the end is for owners on other machines.
"""

import fcntl
import os
import secrets
import sqlite3
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import schema

LONGEST = 6 * 3600.0  # seconds: no request is waited for longer


class Leases:
    """The leases of one process on the cache in a folder."""

    def __init__(self, folder: Path) -> None:
        self.places = folder / "leases"
        self.places.mkdir(mode=0o700, exist_ok=True)
        self.owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.lock = (self.places / self.owner).open("wb")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.base = sqlite3.connect(self.places / "leases.db", timeout=60, isolation_level=None)
        try:
            # Not synchronous: a lease need not survive the machine, only the process.
            self.base.execute("PRAGMA synchronous=OFF")
            self.base.execute("PRAGMA journal_mode=WAL")
            self.base.execute("CREATE TABLE IF NOT EXISTS lease (key TEXT PRIMARY KEY, owner TEXT, until REAL)")
        except sqlite3.Error as error:
            raise schema.Failure(f"{self.places}: {error}") from None

    def take(self, key: str) -> bool:
        """Whether the key is now ours; if not, a living process is asking for it."""
        until = time.time() + LONGEST
        new = self.base.execute("INSERT OR IGNORE INTO lease VALUES (?, ?, ?)", (key, self.owner, until))
        if new.rowcount:
            return True
        held = self.base.execute("SELECT owner, until FROM lease WHERE key = ?", (key,)).fetchone()
        if held is None:
            return self.take(key)
        if held[0] == self.owner:
            return True
        if held[1] > time.time() and self.lives(held[0]):
            return False
        # Of several that find a dead owner's lease, one changes it.
        change = "UPDATE lease SET owner = ?, until = ? WHERE key = ? AND owner = ?"
        return self.base.execute(change, (self.owner, until, key, held[0])).rowcount == 1

    def give_back(self, key: str) -> None:
        self.base.execute("DELETE FROM lease WHERE key = ? AND owner = ?", (key, self.owner))

    def lives(self, owner: str) -> bool:
        """Whether a process still holds the lock on its file."""
        try:
            with (self.places / owner).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        (self.places / owner).unlink(missing_ok=True)
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.base.execute("DELETE FROM lease WHERE owner = ?", (self.owner,))
        self.base.close()
        (self.places / self.owner).unlink(missing_ok=True)
        self.lock.close()
