"""What each row has cost: a receipt for every request, also for those that a run paid for and did not live to report.

A payment is noted in the cache folder as soon as it is known, under the name of its run. When the receipts of a run
stand in their file, its notes are gone; the notes of a run that was killed, and of `collect`, go to the next run that
uses the answers. So every payment is on one receipt, whoever made it. A run that writes an output once more takes over
the receipts that lie beside it: they say what the rows have cost, whichever run has paid.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import schema
from schema import Contract, Record
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

    def charge(self, key: str, bill: Bill) -> None:
        """Note a payment; its receipt is written when its row leaves."""
        self.bills[key] = self.bills[key].plus(bill)
        amounts = (bill.calls, bill.input, bill.output, bill.cached, bill.usd, bill.lost)
        self.base.execute("INSERT INTO payment VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (self.owner, key, *amounts))

    def of(self, record: Record, key: str, is_priced: bool) -> bytes:
        """What one row cost: nothing where the answer was there, or where another row has paid for it."""
        earlier = self.earlier.pop(key, NOTHING)
        self.taken_over += earlier.usd
        paid = self.bills.pop(key, NOTHING).plus(earlier)
        line = {
            "id": record["metadata"]["id"],
            "request": key,
            "calls": paid.calls,
            "lost": paid.lost,
            "input_tokens": paid.input,
            "output_tokens": paid.output,
            "cached_tokens": paid.cached,
            "usd": round(paid.usd, 9) if is_priced or not paid.calls else None,
        }
        return schema.canonical(line) + b"\n"

    def take_over(self, lines: bytes) -> None:
        """Put what stands on the receipts of an earlier run on those of this one."""
        for bill in map(paid_before, lines.splitlines()):
            if bill:
                self.earlier[bill[0]] = self.earlier.get(bill[0], NOTHING).plus(bill[1])

    def forget(self) -> None:
        """All receipts are written, but for what nobody has used: that waits for the run that uses it."""
        unused = json.dumps([*self.earlier, *self.bills])
        self.base.execute(
            "DELETE FROM payment WHERE owner = ? AND key NOT IN (SELECT value FROM json_each(?))", (self.owner, unused)
        )


@contextmanager
def receipts_of(contract: Contract, receipts: Receipts) -> Iterator[Callable[[bytes], Any]]:
    """Where the receipts of a run go: beside its output. Without such a file they wait for a run that has one.

    Those of shards stand in one file, which grows: a run that goes on where another one stopped asks for the rest.
    """
    if contract.output == "-":
        yield lambda line: None
        return
    is_set = schema.is_set(contract.input)
    stem = str(schema.ledger_path(contract.output)).removesuffix(".ledger.json")
    path = f"{contract.output.rstrip('/')}/receipts.jsonl" if is_set else f"{stem}.receipts.jsonl"
    before = schema.read_bytes(path) if schema.exists(path) else b""
    with schema.atomic(Path(path)) as file:
        if is_set:
            file.write(before)
        else:
            receipts.take_over(before)
        yield file.write
    receipts.forget()


def paid_before(line: bytes) -> tuple[str, Bill] | None:
    """The request and the payment of a receipt; None where nothing was paid, or where it is none of ours."""
    try:
        told = json.loads(line)
        calls, read, written, cached = (int(told[name]) for name in ("calls", *TOKENS))
        bill = Bill(calls, read, written, cached, float(told["usd"] or 0), int(told["lost"]))
        return (str(told["request"]), bill) if bill.calls else None
    except (ValueError, KeyError, TypeError):
        return None
