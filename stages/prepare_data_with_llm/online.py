"""Runs a task over the rows of a file: many calls at once, the rows in their order, every dollar on a receipt."""

import asyncio
import functools
import gc
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

import schema
from schema import Contract, Fault, Record
from stages.prepare_data_with_llm.answers import Answers, open_answers
from stages.prepare_data_with_llm.batch import Batching, Outcome, keys_under_way, under_way
from stages.prepare_data_with_llm.engine import Engine, Pending, Result
from stages.prepare_data_with_llm.leases import Leases
from stages.prepare_data_with_llm.money import Price, dollars, price_of
from stages.prepare_data_with_llm.outcomes import told
from stages.prepare_data_with_llm.providers import Fatal, Unstructured, connect
from stages.prepare_data_with_llm.questions import Question, Request, Task
from stages.prepare_data_with_llm.receipts import Receipts, amounts, receipts_of
from stages.prepare_data_with_llm.replay import MISSING, Recorded, Replaying, load, recorded
from stages.prepare_data_with_llm.service import Service

LEAST_WINDOW = 256  # rows that may wait behind a slow one
ROUNDS = 16  # calls that every place may make meanwhile: a row that is tried again takes seconds
BREATH = 32  # rows from the cache after which the calls under way get their turn
KEPT = "the answers so far are kept, and the same command goes on from there"
# Rows that got no answer though there may be one: what to say about them at the end.
OPEN = {
    "llm_failed": "{:,} rows got no answer; the same command asks for those alone",
    "llm_unpaid": "{:,} rows were not asked about: {} of --max-usd {} are spent; the same command goes on",
    MISSING: "{:,} rows have no answer in the recorded file; a run with a provider and --record makes one",
    "llm_pending": "{:,} rows have no answer from a batch yet; the same command goes on with those alone",
}


def perform(
    stage: str, contract: Contract, service: Service, task: Task, params: dict[str, Any], parts: Sequence[str] = ()
) -> None:
    """A whole run of a task, or with --dry-run what it would cost; `params` go into the history of each row.

    With `parts` the output is a folder that gets a file of each of these names.
    """
    price = price_of(service.provider, service.model, service.price)
    if price is None and service.max_usd is not None and not service.dry_run:
        raise click.UsageError(
            f"--max-usd: nobody knows what {service.author} costs; say --price IN,OUT in dollars for a million tokens"
        )
    if service.dry_run:
        from stages.prepare_data_with_llm.plan import rehearse

        click.echo("\n".join(rehearse(schema.rehearsal(contract).records(), task, service, price)))
        return
    if contract.engine != "local":
        # Two makers of calls would have two rate budgets and two caps, and a call costs 1 ms of a processor.
        schema.log(
            f"{stage}: this process makes all calls, for one rate limit and one --max-usd; {contract.engine} idles"
        )
    if service.batch and contract.input == "-":
        raise click.UsageError("--batch reads the input twice; give it as a file, not as standard input")
    with kept_answers(service) as (answers, leases), recorded(task, answers, service.record) as task:
        if isinstance(answers, Recorded):
            task = Replaying(task, answers, answers.folder)
        receipts = Receipts(leases)
        engine = Engine(functools.partial(connect, service), answers, leases, receipts, service, price)
        if service.batch:
            ask_by_batch(contract, task, engine)
        engine.in_batches = keys_under_way(service.cache_dir)
        beside = functools.partial(receipts_of, receipts=receipts, is_priced=price is not None)
        with schema.run(stage, contract, params=params, parts=parts, again=OPEN, attach=beside) as run:
            ask(run, task, engine)


def ask_by_batch(contract: Contract, task: Task, engine: Engine) -> None:
    """Get what is missing into the cache by batches; after that, the run takes what is there."""
    from stages.prepare_data_with_llm.plan import make

    service = engine.service
    with schema.lock(service.cache_dir / "batches"):
        wanted = make(schema.rehearsal(contract).records(), task, engine.answers).new
        outcome = with_batches(service, engine.answers, engine.receipts, engine.price, wanted)
    engine.service = replace(service, live=False)
    engine.failed |= outcome.failed
    engine.purse.spent += outcome.spent
    engine.counts["answered"] += outcome.answered
    if not service.wait and (count := len(under_way(service.cache_dir, service.host))):
        raise schema.Incomplete(
            f"{count:,} batches are under way, nothing is written yet; `collect` fetches what they bring, "
            "and the same command writes the rows"
        )


def with_batches(
    service: Service,
    answers: Answers,
    receipts: Receipts,
    price: Price | None,
    wanted: dict[str, tuple[Request, str]],
) -> Outcome:
    """One round with the batch service: collect, send, and wait unless --no-wait."""

    async def go() -> Outcome:
        provider = connect(service)
        try:
            batching = Batching(provider, service.host, answers, receipts, price)
            await batching.run(wanted, service.max_usd, service.wait)
        finally:
            await provider.client.close()
        return batching.outcome

    try:
        return asyncio.run(go())
    except Fatal as error:
        raise schema.Failure(f"{service.author} at {service.host}: {error}; {KEPT}") from None
    except KeyboardInterrupt:
        schema.log("batches that were sent go on without us; `collect`, or the same command, fetches what they bring")
        raise


def collect(service: Service) -> None:
    """Take the answers of all batches that have ended; exit code 3 while others are under way."""
    price = price_of(service.provider, service.model, service.price)
    with kept_answers(service) as (answers, leases), schema.lock(service.cache_dir / "batches"):
        outcome = with_batches(service, answers, Receipts(leases), price, {})
    schema.log(f"collect: {outcome.answered:,} answers, cost {dollars(outcome.spent if price else None)}")
    if count := len(under_way(service.cache_dir, service.host)):
        raise schema.Incomplete(f"{count:,} batches are still under way")


@contextmanager
def kept_answers(service: Service) -> Iterator[tuple[Answers, Leases]]:
    """The cache, and who asks for what; of a replay its file and nobody."""
    if service.replay is None:
        with open_answers(service.cache_dir) as answers, Leases(service.cache_dir) as leases:
            yield answers, leases
        return
    with tempfile.TemporaryDirectory() as folder, Leases(Path(folder)) as leases:
        yield load(service.replay), leases


@dataclass
class Waiting:
    """A row on its way: nothing is asked for it, or the answer is there, or it is under way."""

    record: Record
    result: Result | Pending | None
    key: str | None = None  # not the question: its texts would stay in memory as long as a slow row is waited for
    note: Any = None

    def is_ready(self) -> bool:
        return not isinstance(self.result, asyncio.Task) or self.result.done()


def ask(run: schema.Run, task: Task, engine: Engine) -> None:
    """Answer the rows of a run; what can not go on is one line, and everything answered so far is kept."""
    service = engine.service
    gc.set_threshold(20_000)  # a row makes thousands of objects and no cycles; to look for them costs 7 % of a call
    run.note = progress_of(run, engine)
    try:
        asyncio.run(ask_all(run, task, engine))
    except Fatal as error:
        raise schema.Failure(f"{service.author} at {service.host}: {error}; {KEPT}") from None
    except KeyboardInterrupt:
        schema.log(f"{told(engine.counts)}; {cost(engine)}; {KEPT}")
        raise
    schema.log(f"{told(engine.counts)}; {cost(engine)}")
    run.extra["llm"] = {"author": service.author, "host": service.host, **dict(sorted(engine.counts.items()))}
    run.extra["llm"] |= {"usd": engine.price and round(engine.purse.spent, 6), "price": source_of(engine.price)}
    engine.receipts.add_finished(shard.output for shard in run.finished)
    if engine.receipts.taken_over:
        run.extra["llm"]["usd_earlier"] = round(engine.receipts.taken_over, 6)  # paid by other runs
    run.extra["receipts"] = amounts(engine.receipts.total, engine.price is not None)
    for reason, message in OPEN.items():
        if count := run.reasons[reason]:
            run.pending(message.format(count, dollars(engine.purse.spent), service.max_usd))


def progress_of(run: schema.Run, engine: Engine) -> Callable[[], str]:
    """What the progress bar says: the cost so far, and about how long it will still take."""
    began = time.monotonic()
    path = Path(run.contract.input)
    total = run.contract.limit or (count_lines(path) if sys.stderr.isatty() and path.is_file() else 0)

    def note() -> str:
        done = run.counts.total()
        left = (time.monotonic() - began) * (total - done) / done if done and total > done else 0
        return f"of {total:,}, {cost(engine)}, about {left:,.0f} s left" if left else cost(engine)

    return note


def count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def cost(engine: Engine) -> str:
    return f"cost {dollars(engine.purse.spent if engine.price else None)}"


def source_of(price: Price | None) -> str:
    return price.source if price else "unknown"


async def ask_all(run: schema.Run, task: Task, engine: Engine) -> None:
    """Rows enter as long as there are free calls, and leave in their order."""
    window = max(LEAST_WINDOW, ROUNDS * engine.service.concurrency)
    waiting: deque[Waiting] = deque()
    try:
        for position, record in enumerate(run.records()):
            waiting.append(await enter(record, task, engine))
            if position % BREATH == 0:
                await asyncio.sleep(0)
            while waiting and (waiting[0].is_ready() or len(waiting) > window or run.is_crowded()):
                await leave(waiting.popleft(), run, task, engine)
        while waiting:
            await leave(waiting.popleft(), run, task, engine)
    finally:
        await engine.close()


async def enter(record: Record, task: Task, engine: Engine) -> Waiting:
    asked = task.question(record)
    if not isinstance(asked, Question):
        return Waiting(record, asked)
    try:
        result = await engine.begin(asked, record["source"])
    except Unstructured as refusal:
        if not engine.service.structure.weaken(str(refusal)):
            raise Fatal(f"{refusal}; --structured says how else the shape of the answer can be asked for") from None
        return await enter(record, task, engine)  # the question is another one now
    return Waiting(record, result, asked.request.key, asked.note)


async def leave(row: Waiting, run: schema.Run, task: Task, engine: Engine) -> None:
    # Shielded: Ctrl-C while this row is waited for must not drop a call that is paid for.
    result = await asyncio.shield(row.result) if isinstance(row.result, asyncio.Task) else row.result
    await engine.check()
    if row.key:
        run.attached(row.record).put(row.record, row.key)
    if isinstance(result, Fault):
        run.reject(row.record, result)
    else:
        task.settle(run, row.record, result and result._replace(note=row.note))
