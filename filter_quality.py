"""Score every record from 0 to 1 by named checks, and keep those that are good enough to learn from.

    python filter_quality.py --input data_enhanced/train.json --output data_filtered/train.json --min-quality 0.8

In    any record file; "-" is standard input
Out   OUTPUT, each record with metadata.quality: the score and every issue with its check, severity, message and line
      OUTPUT's .rejects.jsonl with every dropped record and the reason; OUTPUT's .ledger.json

The score is 0 when a critical check finds something. Otherwise it is 1 minus the weight of each check that found
something, never below 0: high 0.3, medium 0.1, low 0.02 (half of that under --mode lenient); notes weigh nothing.
Keys and passwords (--allow-secrets), licences (--allow-license), personal data (--personal-data) and rows that are too
long (--max-tokens) are rejects whatever the score. An answer is never cut.
stages/filter_quality/rules.py is the table of checks, severities and weights. Programs are parsed and never run, unless
--render asks for it: then those that pass the checks run in a sandbox (stages/filter_quality/render), and what happened
stands in metadata.render.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

import schema
from stages.filter_quality.code_checks import check_code
from stages.filter_quality.conflicts import conflicts
from stages.filter_quality.findings import Finding
from stages.filter_quality.guard import HARD, Guard
from stages.filter_quality.render.wish import LEVELS, Wish, take
from stages.filter_quality.rules import SEVERITIES, RuleBook, Rules, read_config
from stages.filter_quality.text_checks import check_description, check_request, check_text
from stages.filter_quality.tokens import Budget, Size, table

Quality = dict[str, Any]
Check = Callable[[schema.Record], schema.Record | schema.Fault]
PLAIN = Guard()


def assess(record: schema.Record, rules: Rules, guard: Guard = PLAIN) -> Quality:
    """The score of a record and its issues, the most severe first."""
    found: dict[str, dict[str, Any]] = {}
    for check, message, line in (*guard.findings(record), *_findings(record, rules.limits)):
        if severity := rules.severity(check):
            issue = {"check": check, "severity": severity, "message": message}
            found.setdefault(check, issue if line is None else issue | {"line": line})
    issues = sorted(found.values(), key=lambda issue: SEVERITIES.index(issue["severity"]))
    return {"score": score([issue["severity"] for issue in issues], rules), "issues": issues}


def score(severities: list[str], rules: Rules) -> float:
    """0 with a critical issue, else 1 minus the weights of all."""
    if "critical" in severities:
        return 0.0
    return round(max(0.0, 1.0 - sum(rules.weights.get(severity, 0.0) for severity in severities)), 4)


def gate(
    record: schema.Record,
    book: RuleBook,
    least: float | None,
    guard: Guard = PLAIN,
) -> schema.Record | schema.Fault:
    """The record with its quality, or why it is not good enough; without `least` every record is."""
    rules = book.of(record["source"])
    record = guard.prepared(record)
    quality = assess(record, rules, guard)
    if least is not None:
        for issue in quality["issues"]:
            if issue["check"] in HARD and issue["severity"] == "critical":
                return schema.Fault(issue["check"], issue["message"])
        if quality["score"] < least:
            return _fault(quality, rules, least)
    if guard.budget:
        quality["tokens"] = guard.budget.size(record)._asdict()
    return {**record, "metadata": {**record["metadata"], "quality": quality}}


def _findings(record: schema.Record, limits: dict[str, int]) -> Iterator[Finding]:
    description, code, metadata = record["description"], record["code"], record["metadata"]
    kind = metadata.get("kind", "code")
    unasked = list(check_description(description, metadata.get("needs_description") is True))
    if kind != "document":  # a chunk of a document is read, not asked for
        yield from unasked
    if kind != "code":
        yield from check_text(code, limits["text_characters"])
        return
    if not unasked:
        yield from check_request(description, limits["description_words"])
    yield from check_code(code, description, limits["code_characters"])


def _fault(quality: Quality, rules: Rules, least: float) -> schema.Fault:
    """Named after the most severe issue, or after the sum when no single one would have been enough."""
    first, *others = quality["issues"]
    names = ", ".join(issue["check"] for issue in others)
    if score([first["severity"]], rules) < least:
        place = f" (line {first['line']})" if "line" in first else ""
        return schema.Fault(first["check"], f"{first['message']}{place}" + (f"; also {names}" if names else ""))
    return schema.Fault(
        "below_min_quality", f"score {quality['score']:g} is below {least:g}: {first['check']}, {names}"
    )


@click.command(context_settings=schema.CONTEXT)
@schema.options
@click.option("--min-quality", default=0.8, type=click.FloatRange(0, 1), help="Reject rows with a lower score.")
@click.option("--mode", default="strict", type=click.Choice(["strict", "lenient"]),
              help="lenient halves the weights, and lets rows pass that still wait for their description.")  # fmt: skip
@click.option("--quality-config", metavar="FILE", type=click.Path(exists=True, dir_okay=False),
              help="YAML that changes severities, weights and limits, for all rows or by source.")  # fmt: skip
@click.option("--tag-only", is_flag=True, help="Keep every row and only write metadata.quality.")
@click.option(
    "--report", metavar="FILE", help="Write what was found by severity, check and source, with examples (JSON)."
)
@click.option("--max-tokens", type=click.IntRange(1), metavar="N",
              help="Reject rows that are longer; a text that is asked about may be cut, an answer never.")  # fmt: skip
@click.option(
    "--tokenizer",
    metavar="DIR|NAME",
    help="Whose tokens: a folder of a model, its name on the hub, or bytes: never more tokens than bytes.",
)
@click.option("--allow-license", "--allow-licence", "licences", multiple=True, metavar="L",
              help="Keep only rows of this licence; can be given several times; unknown is one.")  # fmt: skip
@click.option("--allow-secrets", is_flag=True, help="Keep rows that hold keys or passwords.")
@click.option("--personal-data", default="keep", type=click.Choice(["keep", "redact", "reject"]),
              help="What to do with mail addresses and telephone numbers.")  # fmt: skip
@click.option("--render", default="static", type=click.Choice(LEVELS),
              help="Run what passes the checks, in a sandbox: only import it; build its scenes (check), with every "
              "animation at 5 pictures a second (sampled); draw the last picture; or make the whole film.")  # fmt: skip
@click.option("--frames", metavar="DIR", help="With --render: keep the last picture of each program here.")
@click.option("--render-cache", metavar="DIR", help="With --render: remember what was found, by content.")
@click.option("--render-timeout", default=30, type=click.IntRange(1), metavar="S",
              help="Seconds of processor time for a program; by the clock it has four times as many.")  # fmt: skip
@click.option("--render-memory", default=4096, type=click.IntRange(512), metavar="MB", help="Memory for a program.")
@click.option("--fix", is_flag=True, help="With --render: repair rows that fail, and keep those that then pass.")
@click.option("--unsafe", is_flag=True, help="With --render: run programs also where the system allows no sandbox.")
def main(
    contract: schema.Contract,
    min_quality: float,
    mode: str,
    quality_config: str | None,
    tag_only: bool,
    report: str | None,
    **wishes: Any,
) -> None:
    """Score every record from 0 to 1 by named checks, and keep those that are good enough to learn from."""
    gc.set_threshold(20_000)  # a program makes thousands of objects and no cycles; to look for them costs a fifth
    least, wish = _least(min_quality, tag_only), take(wishes)
    _check_report(contract, report)
    config = read_config(quality_config) if quality_config else {}
    whole = conflicts(contract)
    book, guard = RuleBook(mode, config), _guard(**wishes)._replace(conflicts=whole.found)
    asked = {name: value for name, value in wishes.items() if value not in (None, False, (), "keep")}
    asked |= wish.params() if wish else {}
    params = {"min_quality": least, "mode": mode, **asked} | ({"quality_config": config} if config else {})
    incomplete = None
    try:
        with schema.run("filter_quality", contract, params=params, depends=whole.depends) as run:
            check = partial(gate, book=book, guard=guard, least=least)
            if wish:
                _render(run, wish, check, tag_only)
            else:
                run.map(check)
    except schema.Incomplete as error:  # the rows are written, so they are reported too
        incomplete = error
    if guard.budget and "-" not in (contract.output, contract.rejects):
        _say_how_long(contract, guard.budget)
    if report:
        _write_report(report, contract, book, guard, params)
    if incomplete:
        raise incomplete


def _render(run: schema.Run, wish: Wish, check: Check, tag_only: bool) -> None:
    """Run the programs that pass the checks; what that took goes to the ledger, on a cluster to that of each shard."""
    if run.contract.engine != "local":
        run.each(partial(_render, wish=wish, check=check, tag_only=tag_only))
        return
    from stages.filter_quality.render.pool import Pool
    from stages.filter_quality.render.rows import Gate

    with Pool(wish, run.contract.workers) as pool:
        Gate(check, pool, tag_only).rows(run)
        run.extra["render"] = pool.facts()
    schema.log(f"  render: {run.extra['render']}", level=1)


def _least(min_quality: float, tag_only: bool) -> float | None:
    given = click.get_current_context().get_parameter_source("min_quality") is not click.core.ParameterSource.DEFAULT
    if tag_only and given:
        raise click.UsageError("--tag-only keeps every row, so --min-quality would do nothing; leave one of them out")
    return None if tag_only else min_quality


def _guard(
    max_tokens: int | None,
    tokenizer: str | None,
    licences: tuple[str, ...],
    allow_secrets: bool,
    personal_data: str,
) -> Guard:
    if (max_tokens is None) != (tokenizer is None):
        missing = "--tokenizer says whose tokens" if max_tokens else "--max-tokens says how many are allowed"
        raise click.UsageError(f"{missing}; give both")
    budget = Budget(max_tokens, tokenizer) if max_tokens and tokenizer else None
    if budget:
        budget.check()
    allowed = frozenset(licence.casefold() for licence in licences) or None
    return Guard(not allow_secrets, allowed, personal_data, budget)


def _say_how_long(contract: schema.Contract, budget: Budget) -> None:
    """The lengths of all rows, those that were dropped included: they show what another limit would cost."""
    sizes = [Size(**record["metadata"]["quality"]["tokens"]) for record in schema.read(contract.output, _refuse)]
    dropped = [budget.size(record) for record in schema.read(contract.rejects, lambda *_, **__: None)]
    if sizes or dropped:
        schema.log(table([*sizes, *dropped]))


def _check_report(contract: schema.Contract, report: str | None) -> None:
    if report is None:
        return
    if "-" in (contract.output, contract.rejects):
        raise click.UsageError("--report is made from the written files; give --output and --rejects a file each")
    taken = {Path(name).absolute() for name in (contract.input, contract.output, contract.rejects)}
    if Path(report).absolute() in taken | {schema.ledger_path(contract.output).absolute()}:
        raise click.UsageError(f"--report {report}: another option already names this file")


def _write_report(path: str, contract: schema.Contract, book: RuleBook, guard: Guard, params: dict[str, Any]) -> None:
    import json

    from stages.filter_quality.report import Report

    report = Report()
    for record in schema.read(contract.output, _refuse):
        report.add(record, record["metadata"]["quality"], kept=True)
    for record in schema.read(contract.rejects, report.add_unreadable):
        report.add(record, assess(record, book.of(record["source"]), guard), kept=False)
    content = {"stage": "filter_quality", "options": params, **report.content()}
    with schema.atomic(path) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def _refuse(item: Any, message: str, code: str = "", line: int | None = None) -> None:
    raise schema.Failure(f"the report can not be made: what was just written does not read: line {line}: {message}")


if __name__ == "__main__":
    schema.main(main)
