"""One run of a file-to-file stage: its rows, its counts, its ledger, its exit codes."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import click

from schema import _report
from schema._commit import Sink, together, together_in
from schema._contract import Contract, selector
from schema._engine import processes
from schema._files import Unreadable, ledger_path, rejected, revive, source_name
from schema._identity import add_lineage, adopt, content_hash
from schema._ledger import build_ledger, file_facts
from schema._lines import Row, rows
from schema._record import Fault, Record, encode, problem
from schema._shards import is_set
from schema._storage import at_hand, is_remote

_BATCH = 64  # rows that travel to a worker together: enough to hide the cost of the journey, little enough to stay flat

Work = Callable[[Record], Record | Fault]
Attach = Callable[["Run"], AbstractContextManager[Any]]


class Outcome(NamedTuple):
    """What became of one row: the bytes to write, and the reason's name when it was rejected."""

    kind: str
    data: bytes = b""
    reason: str = ""
    message: str = ""


_NOT_SELECTED = Outcome("not_selected")


@dataclass(frozen=True)
class Setting:
    """What the pure part of a stage must know about the run; travels to the worker processes."""

    stage: str
    source: str
    where: str | None
    params: dict[str, Any]

    def admit(self, row: Row) -> Record | Unreadable | None:
        """The adopted record of a row; None when it is not selected."""
        found = revive(row, self.source)
        if isinstance(found, Unreadable):
            return found
        record = adopt(found)
        return record if self.where is None or selector(self.where)(record) else None

    def kept(self, record: Record, parent: str | None, request: str | None = None) -> Outcome:
        whole = add_lineage(record, stage=self.stage, params=self.params, parent=parent, request=request)
        if reason := problem(whole):
            raise ValueError(f"{self.stage} made an invalid record: {reason}")
        return Outcome("kept", encode(whole) + b"\n")

    def rejected(self, item: Any, fault: Fault, line: int | None = None) -> Outcome:
        data = rejected(item, fault, stage=self.stage, line=line)
        return Outcome("rejected", data, fault.code, fault.message)


def process(batch: list[Row], setting: Setting, work: Work) -> list[Outcome]:
    """The pure part of every mapped stage: the same function on one process, on many, and on other machines."""
    return [_process_row(row, setting, work) for row in batch]


def _process_row(row: Row, setting: Setting, work: Work) -> Outcome:
    record = setting.admit(row)
    if record is None:
        return _NOT_SELECTED
    if isinstance(record, Unreadable):
        return setting.rejected(record.item, record.fault, row.number)
    result = work(record)
    if isinstance(result, Fault):
        return setting.rejected(record, result, row.number)
    return setting.kept(result, content_hash(record))


class Files(NamedTuple):
    """What a run writes: its rows by the name of their file, its rejects, its ledger."""

    rows: dict[str, Sink]
    rejects: Sink
    ledger: Sink | None


class Run:
    """One run of a file-to-file stage: takes rows, writes outcomes, counts everything."""

    def __init__(self, setting: Setting, contract: Contract, files: Files):
        self.setting, self.contract, self.files = setting, contract, files
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.extra: dict[str, Any] = {}
        self.note: Callable[[], str] = str  # what the progress bar says besides the number of rows
        self.missing: list[str] = []
        self.made: Counter[str] = Counter()  # rows by the file they went to
        self.finished: list[Contract] = []  # the shards that an earlier run has made
        self.attachment: Any = None
        self._received: dict[str, deque[tuple[str, int]]] = {}

    def map(self, work: Work) -> None:
        """Keep or reject every row by a pure function, in order, on as many processes as were asked for."""
        taken = 0
        for outcome in self._outcomes(partial(process, setting=self.setting, work=work)):
            self._settle(outcome)
            taken += outcome.kind != "not_selected"
            if taken == self.contract.limit:
                return

    def records(self) -> Iterator[Record]:
        """The records one by one, for a stage that keeps and rejects them by hand."""
        taken = 0
        for row in self._rows():
            record = self.setting.admit(row)
            if record is None:
                self._settle(_NOT_SELECTED)
                continue
            if isinstance(record, Unreadable):
                self._settle(self.setting.rejected(record.item, record.fault, row.number))
            else:
                self._received.setdefault(record["metadata"]["id"], deque()).append((content_hash(record), row.number))
                yield record
            taken += 1
            if taken == self.contract.limit:
                return

    def keep(self, record: Record, request: str | None = None) -> None:
        """Write a record that came from `records`, changed or not."""
        self._settle(self.setting.kept(record, self._came_as(record)[0], request))

    def make(
        self, record: Record, rows: Sequence[Record], request: str | None = None, parts: Sequence[str] = ()
    ) -> None:
        """Write the rows that were made of a record that came from `records`: it counts as kept, they as made.

        Each row goes on with the history of the record; with `parts`, each row goes to the part of the same place.
        """
        if not rows:
            raise ValueError("nothing was made of a record: it is to be rejected with its reason")
        parent = self._came_as(record)[0]
        for row, part in zip(rows, parts or [next(iter(self.files.rows))] * len(rows), strict=True):
            self.files.rows[part].write(self.setting.kept(row, parent, request).data)
            self.made[part] += 1
        self.counts["kept"] += 1

    def augment(self, record: Record, variants: Sequence[Record]) -> None:
        """Write a record that came from `records`, and behind it rows that say the same in other words."""
        self.keep(record)
        for variant in variants:
            self._settle(self.setting.kept(variant, content_hash(record))._replace(kind="augmented"))

    def reject(self, record: Record, fault: Fault) -> None:
        """Write a record that came from `records` to the rejects file."""
        self._settle(self.setting.rejected(record, fault, self._came_as(record)[1]))

    def attached(self, record: Record) -> Any:
        """What was opened for the file, or for the shard, that a record came from which is not yet kept or rejected."""
        return self.attachment

    def is_crowded(self) -> bool:
        """Whether rows should be kept or rejected before more are asked for: so many files are open."""
        return False

    def pending(self, message: str) -> None:
        """Something is still missing: the output is written and the exit code is 3."""
        self.missing.append(message)

    def awaits(self, name: str | None = None) -> bool:
        """Whether a record of this id, or any, was given out and is not yet kept or rejected."""
        return bool(self._received) if name is None else name in self._received

    def each(self, work: Callable[[Run], Any]) -> None:
        """Let a function do all the work, which on shards runs for each of them in a process of its own."""
        work(self)

    def _came_as(self, record: Record) -> tuple[str | None, int | None]:
        waiting = self._received.get(record["metadata"]["id"])
        if not waiting:
            return None, None
        came_as = waiting.popleft()
        if not waiting:
            del self._received[record["metadata"]["id"]]
        return came_as

    def _rows(self) -> Iterator[Row]:
        return _report.progress(rows(self.contract.input), self.setting.stage, lambda: self.note())

    def _outcomes(self, work: Callable[[list[Row]], list[Outcome]]) -> Iterator[Outcome]:
        source = self._rows()
        batches = iter(lambda: list(islice(source, _BATCH)), [])
        if self.contract.workers == 1:
            for batch in batches:
                yield from work(batch)
            return
        with processes(self.contract.workers) as in_order:
            for outcomes in in_order(work, batches):
                yield from outcomes

    def _settle(self, outcome: Outcome) -> None:
        self.counts[outcome.kind] += 1
        if outcome.kind in ("kept", "augmented"):
            next(iter(self.files.rows.values())).write(outcome.data)
        elif outcome.kind == "rejected":
            self.reasons[outcome.reason] += 1
            self.files.rejects.write(outcome.data)
            if self.contract.strict:
                raise _report.Failure(f"--strict: {outcome.reason}: {outcome.message}; nothing was written")

    def totals(self) -> dict[str, int]:
        kept, rejected = self.counts["kept"], self.counts["rejected"]
        totals = {"in": kept + rejected, "kept": kept, "rejected": rejected, "merged": 0}
        totals["augmented"] = self.counts["augmented"]
        if self.made:
            totals["made"] = self.made.total()
        return totals | ({"not_selected": self.counts["not_selected"]} if self.contract.where else {})


@contextmanager
def run(
    stage: str,
    contract: Contract,
    *,
    params: dict[str, Any],
    parts: Sequence[str] = (),
    depends: Mapping[str, str] | None = None,
    again: Collection[str] = (),
    attach: Attach = nullcontext,
) -> Iterator[Run]:
    """Open the files of one run and commit them together when the block ends well.

    `params` are the options that shape the result: they go into each record's history. With `parts` the output is a
    folder that gets a file of each of these names, and every row is made by `Run.make`.
    Of a set of shards those that are finished are left out. `depends` has a mark for each shard, by its absolute name,
    that changes when something else shapes its result; `again` are reasons of rejects that the next run tries again.
    `attach` opens something for the run of the file, or of each shard, that ends just before its files are committed.
    """
    if is_set(contract.input):
        from schema._sharded import run_set

        opening: AbstractContextManager[Run] = run_set(
            stage, contract, params, parts, depends=depends or {}, again=again, attach=attach
        )
    else:
        setting = Setting(stage, source_name(contract.input), contract.where, params)
        opening = run_file(setting, contract, parts, attach=attach)
    with opening as current:
        yield current
    _say_what_happened(current)


def rehearsal(contract: Contract) -> Run:
    """A run that takes the same rows and writes nothing."""
    nowhere = Sink("-", len)
    setting = Setting("rehearsal", source_name(contract.input), contract.where, {})
    return Run(setting, contract, Files({"-": nowhere}, nowhere, None))


@contextmanager
def run_file(
    setting: Setting,
    contract: Contract,
    parts: Sequence[str] = (),
    depends: str = "",
    attach: Attach = nullcontext,
) -> Iterator[Run]:
    """The part of a run that is about one file, or about one shard of a set."""
    near = Path(contract.output) if parts else Path(contract.output).parent
    near = near if is_remote(near) else near.absolute()
    with ExitStack() as stack:
        stack.enter_context(at_hand(contract.input))
        read = file_facts(contract.input, near=near, count=False)
        files = _open_folder(stack, contract, parts) if parts else _open_files(stack, contract)
        current = Run(setting, contract, files)
        if depends:
            current.extra["depends"] = depends
        with attach(current) as current.attachment:
            yield current
        if files.ledger is not None:
            for sink in (*files.rows.values(), files.rejects):
                sink.close()
            files.ledger.write(_ledger(current, read, near))


def _open_files(stack: ExitStack, contract: Contract) -> Files:
    """Where rows, rejects and the ledger go; the rows' file is renamed last."""
    names = [name for name in (contract.rejects, contract.output) if name != "-"]
    paths = [Path(name) for name in names]
    if contract.output != "-":
        paths.insert(-1, ledger_path(contract.output))
    opened = dict(zip(paths, stack.enter_context(together(paths)), strict=True))
    if contract.output == "-":
        stack.callback(sys.stdout.buffer.flush)
    output = opened[Path(contract.output)] if contract.output != "-" else Sink("-", sys.stdout.buffer.write)
    rejects = opened[Path(contract.rejects)] if contract.rejects != "-" else Sink("-", _echo)
    ledger = opened.get(ledger_path(contract.output)) if contract.output != "-" else None
    return Files({contract.output: output}, rejects, ledger)


def _open_folder(stack: ExitStack, contract: Contract, parts: Sequence[str]) -> Files:
    names = [*parts, Path(contract.rejects).name, "ledger.json"]
    *rows, rejects, ledger = stack.enter_context(together_in(contract.output, names))
    return Files(dict(zip(parts, rows, strict=True)), rejects, ledger)


def _echo(line: bytes) -> None:
    click.echo(line.rstrip(b"\n"), err=True)


def options_told(contract: Contract) -> dict[str, Any]:
    """The options of the contract that the ledger keeps."""
    told = asdict(contract)
    return {name: told[name] for name in ("where", "limit", "seed", "strict", "max_reject_rate")}


def _ledger(current: Run, read: dict[str, Any], near: Path) -> bytes:
    contract, totals, files = current.contract, current.totals(), current.files
    taken = totals["in"] + totals.get("not_selected", 0)
    plain = dict.fromkeys(files.rows, totals["kept"] + totals["augmented"])
    written = current.made if current.made or len(files.rows) > 1 else plain
    return build_ledger(
        stage=current.setting.stage,
        inputs=[read | {"rows": taken if contract.limit is None else None}],
        outputs=[sink.facts(near) | {"rows": written[part]} for part, sink in files.rows.items()],
        rejects=None if files.rejects.path == "-" else files.rejects.facts(near) | {"rows": totals["rejected"]},
        counts=totals,
        reasons=dict(current.reasons),
        options=options_told(contract) | current.setting.params,
        extra=current.extra,
    )


def _say_what_happened(current: Run) -> None:
    totals, contract = current.totals(), current.contract
    skipped = f" ({totals['not_selected']:,} not selected)" if totals.get("not_selected") else ""
    made = f", {totals['made']:,} rows made" if "made" in totals else ""
    made += f", {totals['augmented']:,} augmented" if totals["augmented"] else ""
    _report.log(
        f"{current.setting.stage}: {totals['in']:,} in{skipped}, {totals['kept']:,} kept, "
        f"{totals['rejected']:,} rejected{made} -> {contract.output}"
    )
    for reason, count in current.reasons.most_common():
        _report.log(f"  {count:,} {reason}", level=0 if contract.rejects != "-" else 1)
    rate = totals["rejected"] / totals["in"] if totals["in"] else 0.0
    if contract.max_reject_rate is not None and rate > contract.max_reject_rate:
        current.pending(
            f"{rate:.1%} of the rows were rejected, more than --max-reject-rate {contract.max_reject_rate:g}"
        )
    if current.missing:
        raise _report.Incomplete("; ".join(current.missing))
