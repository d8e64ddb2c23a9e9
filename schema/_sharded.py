"""One run of a stage over a set of shards: each shard is a task, and the manifest that is written last is the commit.

    OUT/part-0.jsonl            one output for each input, of the same name
    OUT/part-0.ledger.json      its ledger, which says for which input and which options it was made
    OUT/rejects/part-0.jsonl    its rejects
    OUT/manifest.json           all shards with their SHA-256, rows and counts, and the totals

A run that was stopped goes on where it was: a shard whose ledger tells of this input, these options and this version,
and whose output is as it was written, is finished.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import click

from schema import _report, _storage
from schema._commit import Sink, lock
from schema._contract import Contract
from schema._engine import each
from schema._files import ledger_path
from schema._identity import VERSION
from schema._lines import rows
from schema._manifest import Entry, commit, entry_of, open_set
from schema._record import Fault, Record, canonical
from schema._shards import set_name, shards_of, stem
from schema._stage import Attach, Files, Run, Setting, Work, options_told, run_file

_MOST_OPEN = 16  # shards in work in one process: each has up to eight files open, and a process may have 256


class Task(NamedTuple):
    """All that a process, on whatever machine, must know of one shard."""

    setting: Setting
    contract: Contract
    parts: tuple[str, ...]
    depends: str
    again: frozenset[str]

    @property
    def ledger(self) -> str:
        output = self.contract.output
        return _storage.join(output, "ledger.json") if self.parts else _storage.address(ledger_path(output))


class SetRun(Run):
    """A run over shards; what it is told of a record goes to the run of the shard that the record came from."""

    def __init__(self, setting: Setting, contract: Contract, tasks: list[Task], attach: Attach):
        super().__init__(setting, contract, Files({}, Sink("-", len), None))
        self.tasks, self.attach = tasks, attach
        self.entries: list[Entry] = []
        self._open: list[_Opened] = []

    def map(self, work: Work) -> None:
        self.each(partial(_map, work=work))

    def each(self, work: Callable[[Run], Any]) -> None:
        """Let a function do all the work of a shard; it runs in a process for each shard, here or elsewhere."""
        done = each(self.contract, partial(_perform, work=work), self.tasks)
        for entry in _report.progress(done, f"{self.setting.stage}, shards"):
            self._note(entry)

    def records(self) -> Iterator[Record]:
        """The records of all shards, one after the other, for a stage that keeps and rejects them by hand."""
        for task in self.tasks:
            if entry := finished(task):
                self._settle_read()
                self._note(entry)
                self.finished.append(task.contract)
                continue
            opened = _Opened(task, self.attach)
            self._open.append(opened)
            yield from opened.run.records()
            opened.is_read = True
            self._settle_read()

    def keep(self, record: Record, request: str | None = None) -> None:
        self._run_of(record).keep(record, request)
        self._settle_read()

    def make(
        self, record: Record, rows: Sequence[Record], request: str | None = None, parts: Sequence[str] = ()
    ) -> None:
        self._run_of(record).make(record, rows, request, parts)
        self._settle_read()

    def augment(self, record: Record, variants: Sequence[Record]) -> None:
        self._run_of(record).augment(record, variants)
        self._settle_read()

    def reject(self, record: Record, fault: Fault) -> None:
        self._run_of(record).reject(record, fault)
        self._settle_read()

    def attached(self, record: Record) -> Any:
        return self._run_of(record).attachment

    def is_crowded(self) -> bool:
        return len(self._open) > _MOST_OPEN

    def totals(self) -> dict[str, int]:
        return {name: self.counts[name] for name in dict.fromkeys(("in", "kept", "rejected", "merged", *self.counts))}

    def drop(self, error: BaseException) -> None:
        """What is not finished is not written."""
        for opened in self._open:
            opened.drop(error)

    def _run_of(self, record: Record) -> Run:
        """The shard that the record came from: of equal ids the first one, for rows are settled in their order."""
        name = record["metadata"]["id"]
        return next((one.run for one in self._open if one.run.awaits(name)), self._open[0].run)

    def _settle_read(self) -> None:
        while self._open and self._open[0].is_settled():
            self._note(self._open.pop(0).commit())

    def _note(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.counts.update(entry.told["counts"])
        self.reasons.update(entry.told["reasons"])


class _Opened:
    """A shard in work in this process."""

    def __init__(self, task: Task, attach: Attach) -> None:
        self.task, self.is_read, self._stack = task, False, ExitStack()
        opening = run_file(task.setting, task.contract, task.parts, task.depends, attach)
        self.run = self._stack.enter_context(opening)

    def is_settled(self) -> bool:
        return self.is_read and not self.run.awaits()

    def commit(self) -> Entry:
        self._stack.close()
        return entry_of(self.task.ledger)

    def drop(self, error: BaseException) -> None:
        self._stack.__exit__(type(error), error, error.__traceback__)


@contextmanager
def run_set(
    stage: str,
    contract: Contract,
    params: dict[str, Any],
    parts: Sequence[str],
    *,
    depends: Mapping[str, str],
    again: Collection[str],
    attach: Attach,
) -> Iterator[SetRun]:
    """Work on the shards that are not finished; the manifest comes last."""
    setting = Setting(stage, set_name(contract.input), contract.where, params)
    shards = _limited(shards_of(contract.input), contract, setting)
    alone = [_of_shard(contract, shard, limit, bool(parts)) for shard, limit in shards]
    tasks = [Task(setting, one, tuple(parts), depends.get(one.input, ""), frozenset(again)) for one in alone]
    current = SetRun(setting, contract, tasks, attach)
    with lock(Path(_storage.join(contract.output, "shards"))):
        open_set(contract.output, stage)
        try:
            yield current
        except BaseException as error:
            current.drop(error)
            raise
        if len(current.entries) != len(tasks):
            raise RuntimeError(f"{stage} left shards open: {len(current.entries)} of {len(tasks)} are finished")
        options = options_told(contract) | params
        commit(
            contract,
            stage,
            options,
            sorted(current.entries, key=lambda entry: str(entry.told["name"])),
            current.totals(),
            current.reasons,
            current.extra,
        )
    if before := sum(entry.was_there for entry in current.entries):
        _report.log(f"  {before:,} of {len(tasks):,} shards were finished before")


def _of_shard(contract: Contract, shard: str, limit: int | None, in_folder: bool) -> Contract:
    """The contract of one shard; its places hold in any process, whatever folder that one is in."""
    name = shard.rsplit("/", 1)[-1]
    output = _storage.join(contract.output, stem(name) if in_folder else name)
    rejects = _storage.join(output, "rejects.jsonl") if in_folder else _storage.join(contract.rejects, name)
    return replace(
        contract,
        input=_storage.absolute(shard),
        output=_storage.absolute(output),
        rejects=_storage.absolute(rejects),
        limit=limit,
        max_reject_rate=None,
        workers=1,
        engine="local",
        address=None,
    )


def _limited(shards: list[str], contract: Contract, setting: Setting) -> list[tuple[str, int | None]]:
    """The shards that --limit reaches, the last of them with what is left of it."""
    if contract.limit is None:
        return [(shard, None) for shard in shards]
    left, reached = contract.limit, []
    for shard in shards:
        taken = (row for row in rows(shard) if not contract.where or setting.admit(row) is not None)
        count = sum(1 for _ in islice(taken, left + 1))
        reached.append((shard, left if count > left else None))
        left -= count
        if left <= 0:
            break
    return reached


def _perform(task: Task, work: Callable[[Run], Any]) -> Entry:
    if entry := finished(task):
        return entry
    with run_file(task.setting, task.contract, task.parts, task.depends) as run:
        work(run)
    return entry_of(task.ledger)


def _map(run: Run, work: Work) -> None:
    run.map(work)


def finished(task: Task) -> Entry | None:
    """What was written for a shard, if it is what would be written now."""
    try:
        ledger = json.loads(_storage.read_bytes(task.ledger))
        is_same = (
            (ledger["stage"], ledger["version"]) == (task.setting.stage, VERSION)
            and canonical(ledger["options"]) == canonical(options_told(task.contract) | task.setting.params)
            and ledger["extra"].get("depends", "") == task.depends
            and not task.again.intersection(ledger["reasons"])
            and _is_as_told(task.contract.input, ledger["inputs"][0])
        )
        written = [*ledger["outputs"], ledger["rejects"]]
        folder = task.contract.output if task.parts else str(Path(task.contract.output).parent)
        if is_same and all(_is_as_told(_place(folder, facts["path"]), facts) for facts in written):
            return entry_of(task.ledger, was_there=True)
    except (OSError, ValueError, KeyError, TypeError, IndexError, click.ClickException):
        pass  # there is no ledger, or half of one: the shard is to be made
    return None


def _place(folder: str, name: str) -> str:
    return name if _storage.is_remote(name) else _storage.join(folder, name)


def _is_as_told(path: str, facts: dict[str, Any]) -> bool:
    """Whether a file is still the one that the ledger names; what stands in a store is not fetched for that."""
    if not _storage.is_remote(path):
        return bool(_storage.digest(Path(path)) == facts["sha256"])
    return bool(_storage.version(path) == facts["version"]) if "version" in facts else _storage.exists(path)
