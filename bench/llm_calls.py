"""What a call costs here and in a plain asyncio script, on the same server, in turn.

    python bench/llm_calls.py [--rows 2000] [--concurrency 64] [--latency 0.2] [--runs 2] [--cached 20000]

The server is the one of the tests and runs in this process. The plain script sends the same requests with the official
package over aiohttp, retries nothing, keeps nothing, and writes the texts at the end. Printed are, for each contestant,
the seconds between the first request and the last answer, against the least possible; the CPU milliseconds of a
request, start of Python included; the peak memory. `cached` writes a file whose answers are all in the cache.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from fake_llm import FakeLLM, Reply, good  # noqa: E402

PLAIN = """
import asyncio, json, sys
from openai import AsyncOpenAI, DefaultAioHttpClient

async def main(url, width, prompts, schema):
    client = AsyncOpenAI(api_key="x", base_url=url, max_retries=0, http_client=DefaultAioHttpClient())
    slots = asyncio.Semaphore(width)

    async def ask(prompt):
        async with slots:
            answer = await client.chat.completions.create(
                model="gpt-4o-mini", max_tokens=400, temperature=0.1,
                messages=[{"role": "system", "content": "x" * 1300}, {"role": "user", "content": prompt}],
                response_format={"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": schema}},
            )
            return json.loads(answer.choices[0].message.content)["description"]

    texts = await asyncio.gather(*(ask(prompt) for prompt in prompts))
    open("plain.txt", "w").write("\\n".join(texts))
    await client.close()

prompts = [json.loads(line)["code"] for line in open("in.jsonl")]
schema = {"type": "object", "properties": {"description": {"type": "string"}}, "required": ["description"],
          "additionalProperties": False}
asyncio.run(main(sys.argv[1], int(sys.argv[2]), prompts, schema))
"""


def make_rows(path: Path, count: int) -> None:
    body = "".join(f"        self.play(Create(Circle(color=BLUE).shift({step} * RIGHT)))\n" for step in range(14))
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            code = f"from manim import *\n\n\nclass Scene{number}(Scene):\n    def construct(self):\n{body}"
            metadata = {"kind": "code", "needs_description": True}
            row = {"description": "", "code": code, "source": "bench", "metadata": metadata}
            file.write(json.dumps(row) + "\n")


def measure(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak megabytes of a process."""
    began = time.monotonic()
    environment = os.environ | {"OPENAI_API_KEY": "x"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[1]} ended with {process.returncode}")
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def ours(url: str, width: int, cache: str) -> list[str]:
    words = ["generate-descriptions", "--input", "in.jsonl", "--output", "out.jsonl", "--cache-dir", cache]
    words += ["--llm", "openai", "--base-url", url, "--concurrency", str(width)]
    return [sys.executable, str(ROOT / "prepare_data_with_llm.py"), *words]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--cached", type=int, default=20_000)
    told = parser.parse_args()
    with FakeLLM() as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compare(server, folder, told)
        if told.cached:
            rewrite(server, folder, told)


def compare(server: FakeLLM, folder: Path, told: argparse.Namespace) -> None:
    make_rows(folder / "in.jsonl", told.rows)
    times: list[float] = []
    server.plan = lambda call: times.append(time.monotonic()) or Reply(**{**vars(good(call)), "delay": told.latency})
    ideal = math.ceil(told.rows / told.concurrency) * told.latency
    figures: dict[str, list[tuple[float, float, float]]] = {"plain asyncio": [], "generate-descriptions": []}
    for run in range(told.runs):
        plain = [sys.executable, "-c", PLAIN, server.url("openai"), str(told.concurrency)]
        for who, command in zip(figures, (plain, ours(server.url("openai"), told.concurrency, f"c{run}")), strict=True):
            times.clear()
            server.reset_log()
            _, cpu, peak = measure(command, folder)
            span = times[-1] - times[0] + told.latency
            figures[who].append((span / ideal, cpu / told.rows * 1000, peak))
            assert len(server.log) == told.rows
            assert server.most_in_flight <= told.concurrency
    print(f"{told.rows:,} requests of {told.latency:g} s, {told.concurrency} in flight: at least {ideal:.2f} s")
    for who, rounds in figures.items():
        span, cpu, peak = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"  {who:24} {span:.2f} x the least possible, {cpu:.2f} CPU-ms a request, {peak:.0f} MB")


def rewrite(server: FakeLLM, folder: Path, told: argparse.Namespace) -> None:
    server.plan = lambda call: None
    make_rows(folder / "in.jsonl", told.cached)
    command = ours(server.url("openai"), 32, "many")
    measure(command, folder)
    server.reset_log()
    wall, cpu, peak = measure(command, folder)
    assert not server.log
    print(f"{told.cached:,} rows from the cache: {wall:.1f} s, {cpu:.1f} CPU-s, {peak:.0f} MB")


if __name__ == "__main__":
    main()
