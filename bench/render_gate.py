"""What the render gate costs, and whether its quick levels say the same as a full film.

    python bench/render_gate.py [--input FILE] [--scenes 30] [--agree 0] [--levels check,sampled]

Each scene of FILE (default: scenes of our own) is rendered by `manim render -s -ql`, a new process each time, and by
one server of the gate at each level, in the same run. Printed are the CPU seconds of each way, all processes included,
their mean and median for a scene, the ratio of the sums to those of the command line, with and without the start of the
server, the median of the ratios of each scene, and, for --agree N scenes, those of which a level says something else
than a full film of the command line does. --input takes any record file whose rows name their scene.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stages.filter_quality.render.pool import Pool  # noqa: E402
from stages.filter_quality.render.wish import Wish  # noqa: E402

LEVELS = ("import", "check", "sampled", "last", "full")
OWN = """from manim import *

class Scene{0}(Scene):
    def construct(self):
        shapes = VGroup(*[{1}(color=BLUE) for _ in range({2})]).arrange_in_grid(buff=0.2).scale(0.4)
        title = Text("Number {0}").to_edge(UP)
        self.play(Write(title))
        self.play(LaggedStartMap(Create, shapes))
        self.play(shapes.animate.rotate(PI / 4).set_color(RED), FadeOut(title))
        self.wait()
"""


def scenes(path: str | None, count: int) -> list[dict[str, str]]:
    """Programs spread over the file, each with the name of its scene."""
    if path is None:
        shapes = ("Circle", "Square", "Triangle", "Star", "Dot")
        codes = [(OWN.format(number, shapes[number % 5], 3 + number % 13), f"Scene{number}") for number in range(count)]
        return [{"code": code, "scene": scene} for code, scene in codes]
    rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    rows = [row for row in rows if row["metadata"].get("scene")]
    chosen = rows[:: max(1, len(rows) // count)][:count]
    return [{"code": row["code"], "scene": row["metadata"]["scene"]} for row in chosen]


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def by_command(program: dict[str, str], *options: str) -> tuple[float, bool]:
    """What the plain command line costs in a process of its own, and whether it makes a picture."""
    # The same environment for both sides: threads that spin would make the peer look worse than it is.
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "manim", "render", *options, "-ql", "--progress_bar", "none", "scene.py"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "scene.py").write_text(program["code"], "utf-8")
        start = cpu_s()
        done = subprocess.run([*command, program["scene"]], cwd=folder, env=env, capture_output=True)
        return cpu_s() - start, done.returncode == 0


def rendered(programs: list[dict[str, str]]) -> tuple[list[float], list[dict[str, str]]]:
    """What each of those costs that the command line can render, and which they are.

    The others (a formula where LaTeX is not installed) would make it look cheap: it gives up where the gate goes on.
    """
    each = [(*by_command(program, "-s"), program) for program in programs]
    return [spent for spent, ok, _ in each if ok], [program for _, ok, program in each if ok]


def by_gate(programs: list[dict[str, str]], level: str) -> tuple[float, list[float], list[str]]:
    """One server from its start to its end; the processor's time and the class of every verdict."""
    start, each, classes = cpu_s(), list[float](), list[str]()
    with Pool(Wish(level, timeout=60, memory=4096, fix=False, frames=None, cache=None, unsafe=False), 1) as pool:
        for program in programs:
            row = {"description": "", "code": program["code"], "source": "", "metadata": {"scene": program["scene"]}}
            before = pool.cpu_s
            said = pool.judge(row)
            each.append(pool.cpu_s - before)
            classes.append("ok" if said["ok"] else said["error"]["class"])
    return cpu_s() - start, each, classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", help="record file with scenes")
    parser.add_argument("--scenes", type=int, default=30, help="how many to measure; 0 for none")
    parser.add_argument("--agree", type=int, default=0, help="how many to compare with full films by the command line")
    parser.add_argument("--levels", default=",".join(LEVELS), help="which levels of the gate, between commas")
    options = parser.parse_args()
    levels = options.levels.split(",")
    if options.scenes:
        measure(scenes(options.input, options.scenes), levels)
    if options.agree:
        compare(scenes(options.input, options.agree), [level for level in levels if level != "import"])


def measure(programs: list[dict[str, str]], levels: list[str]) -> None:
    wanted = len(programs)
    spent, programs = rendered(programs)
    first, (empty, _, _) = sum(spent), by_gate([], "check")
    print(f"{wanted} scenes, {len(programs)} pass `manim -s -ql`; starting one server costs {empty:.1f} CPU-s")
    heads = f"{'ratio':>8}{'without start':>15}{'median ratio':>14}{'pass':>6}"
    print(f"{'way':<14}{'CPU-s':>8}{'per scene':>11}{'median':>8}{heads}")
    alone = f"{first / len(programs):>11.3f}{statistics.median(spent):>8.3f}{1:>8.1f}{'':>29}{len(programs):>6}"
    print(f"{'manim -s -ql':<14}{first:>8.1f}{alone}", flush=True)
    for level in levels:
        cost, each, classes = by_gate(programs, level)
        share = max(0.0, cost - empty - sum(each)) / len(each)  # what the server itself does for a scene
        alike = statistics.median(plain / (gate + share) for plain, gate in zip(spent, each, strict=True))
        ratios = f"{first / cost:>8.1f}{first / max(cost - empty, 0.01):>15.1f}{alike:>14.1f}"
        mean = f"{cost / len(programs):>11.3f}{statistics.median(each):>8.3f}"
        print(f"{level:<14}{cost:>8.1f}{mean}{ratios}{classes.count('ok'):>6}", flush=True)


def compare(programs: list[dict[str, str]], levels: list[str]) -> None:
    """Films by the plain command line, which knows nothing of what the gate does quicker, beside each level."""
    with ThreadPoolExecutor(2) as two:
        full = ["ok" if ok else "failed" for _, ok in two.map(by_command, programs)]
    for level in levels:
        *_, classes = by_gate(programs, level)
        other = [
            f"{program['scene']} ({got}, film: {want})"
            for program, got, want in zip(programs, classes, full, strict=True)
            if (got == "ok") != (want == "ok")
        ]
        print(f"{level}: {len(other)} of {len(programs)} verdicts differ from a full film {other or ''}", flush=True)


if __name__ == "__main__":
    main()
