"""What each row has cost: a receipt for every request, also for those that a run paid for and did not live to report.

A payment is noted in the cache folder as soon as it is known, under the name of its run. When the receipts of a run
stand in their file, its notes are gone; the notes of a run that was killed, and of `collect`, go to the next run that
uses the answers. So every payment is on one receipt, whoever made it. A run that writes an output once more takes over
the receipts that lie beside it: they say what the rows have cost, whichever run has paid. Each shard has receipts of
its own, which are there when it is: a run that goes on adds up those of the shards that were finished before.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import schema
from schema import Record
from stages.prepare_data_with_llm.leases import Leases
from stages.prepare_data_with_llm.money import Bill

COLUMNS = "calls, input, output, cached, usd, lost"
TOKENS = ("input_tokens", "output_tokens", "cached_tokens")
NOTHING = Bill()


class Receipts:
    """The payments of one process, and those that it has taken over."""

    def __init__(self, leases: Leases) -> None:
        self.base, self.owner = leases.base, leases.owner
        self.base.execute(f"CREATE TABLE IF NOT EXISTS payment (owner TEXT, key TEXT, {COLUMNS})")
        owners = [owner for (owner,) in self.base.execute("SELECT DISTINCT owner FROM payment").fetchall()]
        for owner in owners:
            if not leases.lives(owner):
                self.base.execute("UPDATE payment SET owner = ? WHERE owner = ?", (self.owner, owner))
        sums = ", ".join(f"SUM({column})" for column in COLUMNS.split(", "))
        rows = self.base.execute(f"SELECT key, {sums} FROM payment WHERE owner = ? GROUP BY key", (self.owner,))
        self.earlier = {key: Bill(*amounts) for key, *amounts in rows.fetchall()}
        self.bills: defaultdict[str, Bill] = defaultdict(Bill)  # of this run
        self.taken_over = 0.0  # dollars that other runs have paid
        self.total = NOTHING  # of all receipts beside the output

    def charge(self, key: str, bill: Bill) -> None:
        """Note a payment; its receipt is written when its row leaves."""
        self.bills[key] = self.bills[key].plus(bill)
        amounts = (bill.calls, bill.input, bill.output, bill.cached, bill.usd, bill.lost)
        self.base.execute("INSERT INTO payment VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (self.owner, key, *amounts))

    def of(self, key: str) -> Bill:
        """What one row cost: nothing where the answer was there, or where another row has paid for it."""
        earlier = self.earlier.pop(key, NOTHING)
        self.taken_over += earlier.usd
        paid = self.bills.pop(key, NOTHING).plus(earlier)
        self.total = self.total.plus(paid)
        return paid

    def take_over(self, lines: bytes) -> None:
        """Put what stands on the receipts of an earlier run on those of this one."""
        for bill in map(paid_before, lines.splitlines()):
            if bill:
                self.earlier[bill[0]] = self.earlier.get(bill[0], NOTHING).plus(bill[1])

    def add_finished(self, outputs: Iterable[str]) -> None:
        """Add what stands on the receipts of shards that an earlier run has finished."""
        for path in map(path_beside, outputs):
            for line in schema.read_bytes(path).splitlines() if schema.exists(path) else ():
                bill = (paid_before(line) or ("", NOTHING))[1]
                self.taken_over += bill.usd
                self.total = self.total.plus(bill)

    def forget(self, keys: Iterable[str]) -> None:
        """The receipts for these requests are written; what nobody has used waits for the run that uses it."""
        gone = json.dumps([key for key in keys if key not in self.earlier and key not in self.bills])
        self.base.execute(
            "DELETE FROM payment WHERE owner = ? AND key IN (SELECT value FROM json_each(?))", (self.owner, gone)
        )


class Sheet:
    """The receipts for the rows of one file, or of one shard."""

    def __init__(self, receipts: Receipts, is_priced: bool, write: Callable[[bytes], Any]) -> None:
        self.receipts, self.is_priced, self.write = receipts, is_priced, write
        self.keys: list[str] = []
        self.total = NOTHING

    def put(self, record: Record, key: str) -> None:
        paid = self.receipts.of(key)
        line = {"id": record["metadata"]["id"], "request": key, **amounts(paid, self.is_priced)}
        self.write(schema.canonical(line) + b"\n")
        self.keys.append(key)
        self.total = self.total.plus(paid)


@contextmanager
def receipts_of(run: schema.Run, receipts: Receipts, is_priced: bool) -> Iterator[Sheet]:
    """Where the receipts for the rows of a run go: beside its output. If there is none, they wait for another run."""
    output = run.contract.output
    if output == "-":
        yield Sheet(receipts, is_priced, len)
        return
    path = path_beside(output)
    receipts.take_over(schema.read_bytes(path) if schema.exists(path) else b"")
    with schema.atomic(Path(path)) as file:
        sheet = Sheet(receipts, is_priced, file.write)
        yield sheet
        run.extra["receipts"] = amounts(sheet.total, is_priced)
    receipts.forget(sheet.keys)


def path_beside(output: str) -> str:
    return str(schema.ledger_path(output)).removesuffix(".ledger.json") + ".receipts.jsonl"


def amounts(bill: Bill, is_priced: bool) -> dict[str, Any]:
    """A payment, in the words of a receipt."""
    tokens = dict(zip(TOKENS, (bill.input, bill.output, bill.cached), strict=True))
    usd = round(bill.usd, 9) if is_priced or not bill.calls else None
    return {"calls": bill.calls, "lost": bill.lost, **tokens, "usd": usd}


def paid_before(line: bytes) -> tuple[str, Bill] | None:
    """The request and the payment of a receipt; None where nothing was paid, or where it is none of ours."""
    try:
        told = json.loads(line)
        calls, read, written, cached = (int(told[name]) for name in ("calls", *TOKENS))
        bill = Bill(calls, read, written, cached, float(told["usd"] or 0), int(told["lost"]))
        return (str(told["request"]), bill) if bill.calls else None
    except (ValueError, KeyError, TypeError):
        return None
