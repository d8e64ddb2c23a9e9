"""What was worked out about programs before: to read the features of a program costs more than all the rest of a row
whose answer is in the cache."""

import json
import sqlite3
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from stages.prepare_data_with_llm import features

TOGETHER = 200  # programs that are written down at once; the last few of a run are worked out again


class Memo:
    """The features of programs, kept in the cache folder if there is one."""

    def __init__(self, folder: Path, is_written: bool) -> None:
        self.folder, self.is_written = folder, is_written
        self.new: dict[bytes, str] = {}

    @cached_property
    def base(self) -> sqlite3.Connection | None:
        if not (self.folder / "cache.db").exists():
            return None
        try:
            base = sqlite3.connect(self.folder / "features.db", timeout=60, isolation_level=None)
            base.execute("PRAGMA synchronous=OFF")
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("CREATE TABLE IF NOT EXISTS memo (key BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID")
        except sqlite3.Error:
            return None  # it saves time, and nothing else
        return base

    @cached_property
    def rules(self) -> bytes:
        """Features that were worked out by other rules are not these."""
        return sha256(Path(features.__file__).read_bytes()).digest()

    def features(self, code: str) -> dict[str, Any] | None:
        if self.base is None:
            return features.code_features(code)
        key = sha256(self.rules + code.encode(errors="surrogatepass")).digest()
        found = self.base.execute("SELECT value FROM memo WHERE key = ?", (key,)).fetchone()
        if found:
            value: dict[str, Any] | None = json.loads(found[0])
            return value
        value = features.code_features(code)
        if self.is_written:
            self.new[key] = json.dumps(value)
            if len(self.new) == TOGETHER:
                self.base.executemany("INSERT OR IGNORE INTO memo VALUES (?, ?)", list(self.new.items()))
                self.new.clear()
        return value
