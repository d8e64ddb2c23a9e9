"""What LaTeX does for less: the same DVI file, the same picture, the same complaints; and nobody can change it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib.util import find_spec

import pytest
from conftest import CLEAN, ROOT, read_rows, record, write_rows

from stages.filter_quality.render.latex import _specials
from stages.filter_quality.render.tex import installed

needs_latex = pytest.mark.skipif(
    find_spec("manim") is None or installed() != "latex",
    reason="Manim, or LaTeX with dvisvgm and the class standalone is not installed (make render-setup)",
)

ALIKE = r"""
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import manim.utils.tex_file_writing as writer
from manim import config, TexTemplate
from stages.filter_quality.render import latex

GOOD = [
    r"\begin{align*}\special{dvisvgm:raw <g id='a'>}\frac{a}{b}\special{dvisvgm:raw </g>}+\sqrt{x^2}\end{align*}",
    r"\tiny a \Huge $\sum_{i=1}^n \mathbb{R} \mathfrak{g} \mathcal{L}$", r"\textbf{b} \textit{i} \texttt{t} \textsf{s}",
    r"\hspace{3cm}x\rule{0pt}{40pt}", r"a\newpage b", r"\begin{tabular}{c|c} a & b \\ \hline c & d \end{tabular}",
    r"\jobname \the\inputlineno \meaning\documentclass", r"\immediate\write18{touch x}a",
    r"\special{ps: 10 20 moveto 30 40 lineto stroke} a", r"\special{ header=no.pro}a", r"\special{psfile=no.eps}a", "",
]
BAD = [r"\nosuchcommand x", r"\begin{center} a", "$a", r"\frac{1", r"\documentclass{article}", r"\usepackage{tikz}",
       r"\input{nosuchfile}", "}", r"\linemillclass"]
OTHER = [TexTemplate(preamble=r"\usepackage{amsmath}").get_texcode_for_expression("$x$")]

def outcome(document, folder):
    for each in folder.iterdir():
        each.unlink()
    path = folder / "it.tex"
    path.write_text(document)
    try:
        dvi = writer.compile_tex(path, "latex", ".dvi")
        svg = writer.convert_to_svg(dvi, ".dvi").read_text()
        head, _, rest = svg.partition("</defs>")
        return dvi.read_bytes()[:15], dvi.read_bytes()[43:], sorted(head.splitlines()), rest
    except Exception as error:
        return type(error).__name__, str(error)

kept, folder = Path("kept"), Path("work").absolute()
kept.mkdir()
folder.mkdir()
config.tex_dir = str(folder)
shortcut = latex.make(kept.absolute())
assert shortcut and shortcut.without, shortcut
ran = []
own = writer.subprocess.run
def run(command, **options):
    ran.append([*command, os.environ.get("GS_LIB")])
    return own(command, **options)
documents = [latex.usual_start() + "\n" + body + "\n\\end{document}" for body in GOOD + BAD] + OTHER
before = [outcome(document, folder) for document in documents]
latex.take(shortcut)
writer.subprocess.run = run
for document, want in zip(documents, before):
    got = outcome(document, folder)
    assert got == want, (document, got, want)
set_ = [len(each) == 4 for each in before]
assert set_ == [True] * len(GOOD) + [False] * len(BAD) + [True], set_
formats = [any("-fmt=" in str(word) for word in each) for each in ran if each[0] == "latex"]
assert formats == [True] * (len(documents) - 1) + [False], formats
bare = [each[-1] is not None for each in ran if each[0] == "dvisvgm"]
assert bare == [True] * 8 + [False] * 3 + [True] * 2, bare
assert "GS_LIB" not in os.environ
"""


@needs_latex
def test_a_shortcut_gives_what_manim_gives(tmp_path):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ALIKE, str(ROOT)], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]


def program(body):
    lines = "\n".join("        " + line for line in body.strip("\n").split("\n"))
    return f"from manim import *\n\n\nclass Example(Scene):\n    def construct(self):\n{lines}\n"


SET = [program(f"self.add(MathTex('x_{number}', '+', r'\\mathcal{{L}}'), Tex('b'))") for number in range(6)]
# What the server runs LaTeX with, as the program that runs it can tell.
LOOK = """
import manim.utils.tex_file_writing as writer
from pathlib import Path
(document,) = Path(config.get_dir('tex_dir')).glob('*.tex')
command = writer.make_tex_compilation_command('latex', '.dvi', document, Path('.'))
"""
PROBE = program("self.add(MathTex('y'))" + LOOK + "raise ValueError([each for each in command if 'fmt' in each])")
HARM = program(
    "self.add(MathTex('y'))"
    + LOOK
    + "made = [each[5:] for each in command if 'fmt' in each]\n"
    + "open(made[0], 'rb').read(1)\n"
    + "Path(made[0]).with_name('gs_init.ps').open('w') if {} else Path(made[0]).open('r+b')"
)
PROGRAMS = [*SET, PROBE, HARM.format(0), HARM.format(1), SET[0].replace("x_", "z_"), program("self.add(Tex(r'\\no'))")]


def gate(folder, way, *options, env=None):
    write_rows(folder / "in.jsonl", [record(number, code=code) for number, code in enumerate(PROGRAMS)])
    command = [sys.executable, ROOT / "filter_quality.py", "--input", "in.jsonl", "--output", "out.jsonl", "--tag-only"]
    environment = CLEAN | {"HOME": str(folder)} | (env or {})
    done = subprocess.run(way([*map(str, command), "--render", "check", *options]), cwd=folder, env=environment,
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Ghostscript" not in done.stderr
    return [row["metadata"]["render"] for row in read_rows(folder / "out.jsonl")]


def without_namespaces(command):
    forbid = "echo 0 > /proc/sys/user/max_user_namespaces && echo 0 > /proc/sys/user/max_mnt_namespaces && exec "
    return ["unshare", "--user", "--map-root-user", "sh", "-c", forbid + shlex.join(command)]


@needs_latex
@pytest.mark.parametrize("is_unsafe", [False, True])
def test_all_programs_use_the_shortcut_and_none_can_change_it(tmp_path, is_unsafe):
    if is_unsafe and subprocess.run(without_namespaces(["true"]), capture_output=True).returncode:
        pytest.skip("this machine can not be made to forbid namespaces")
    said = gate(tmp_path, *([without_namespaces, "--unsafe"] if is_unsafe else [list]))
    assert "-fmt=" in said[6]["error"]["message"]
    assert [each["error"]["class"] for each in said[7:9]] == ["sandbox"] * 2, said[7:9]
    plain = gate(tmp_path, list, env={"LINEMILL_PLAIN_MANIM": "1"})
    assert plain[6]["error"]["message"] == "[]"
    same = [*range(6), 9, 10]
    assert [said[number] for number in same] == [plain[number] for number in same]
    assert [said[number]["ok"] for number in same] == [True] * 7 + [False]


def test_a_special_is_found_wherever_it_may_be():
    found = {b"\xef\x05ps:ab": 1, b"x\xf0\x00\x07 ps: ab": 1, b"\xef\x09header=ab": 1, b"\xef\x0bdvisvgm:raw": 0}
    found |= {b"\xef\x04!abc\xef\x04!abc": 2, b"\xf2\x00\x00\x00\x0aPSfile=abc": 1, b"ps: ab": 0}
    assert {dvi: _specials(dvi) for dvi in found} == found
