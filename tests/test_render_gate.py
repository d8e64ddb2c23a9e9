"""The render gate: what runs is known to run, what harms is contained and named, and the run goes on."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import CLEAN, ROOT, read_rows, record, run_script, write_rows

from stages.filter_quality.render import layers
from stages.filter_quality.render.fixes import repaired
from stages.filter_quality.render.tex import Memory, boxes, installed
from stages.filter_quality.render.verdicts import End, verdict

HAS_MANIM = find_spec("manim") is not None
needs_manim = pytest.mark.skipif(not HAS_MANIM, reason="Manim is not installed (make render-setup)")
needs_latex = pytest.mark.skipif(
    installed() != "latex", reason="no LaTeX with dvisvgm and the class standalone (apt: texlive-latex-extra dvisvgm)"
)
IS_ROOT = os.geteuid() == 0
USERS = ["as we are", "as an ordinary user"]
NOBODY = 65534


def program(body, head=""):
    lines = "\n".join("        " + line for line in body.strip("\n").split("\n"))
    return f"{head}\nfrom manim import *\n\n\nclass Example(Scene):\n    def construct(self):\n{lines}\n"


def rows_of(programs):
    return [record(number, code=code) for number, code in enumerate(programs)]


def ordinary(command):
    """The command as nobody; where Python lies in a folder of root's, with a view in which it does not."""
    private = next(
        (each for each in [*Path(sys.base_prefix).parents][::-1] if not each.stat().st_mode & stat.S_IXOTH), None
    )
    steps = []
    if private:
        inner = Path(sys.base_prefix)
        steps = [
            f"mount --bind {inner} /mnt",
            f"mount -t tmpfs -o mode=755 tmpfs {private}",
            f"mkdir -p {inner}",
            f"mount --bind /mnt {inner}",
        ]
    last = f"exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {shlex.join(map(str, command))}"
    return ["unshare", "--mount", "sh", "-c", " && ".join([*steps, last])]


@pytest.fixture(params=USERS, scope="module")
def user(request):
    """How a command is run, and a folder that this user may write to."""
    folder = Path(tempfile.mkdtemp(prefix="gate-test-"))
    folder.chmod(0o777)
    if request.param == USERS[1]:
        if not IS_ROOT:
            pytest.skip("we are an ordinary user already")
        hidden = [each for each in (ROOT, Path(sys.prefix)) for part in each.parents if not part.stat().st_mode & 1]
        if hidden or subprocess.run(ordinary(["true"]), capture_output=True).returncode:
            pytest.skip("this machine can not show our files to an ordinary user")
    yield (ordinary if request.param == USERS[1] else list), folder
    shutil.rmtree(folder)


def run_as(user, *arguments, env=None, **options):
    way, folder = user
    command = way([sys.executable, *arguments])
    environment = CLEAN | {"HOME": str(folder)} | (env or {})
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300, text=True, **options)


# --- the layers alone, around a plain Python program ------------------------------------------------------------------
AROUND = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from stages.filter_quality.render import layers
read, write = os.pipe()
own = layers.close_in(layers.needed_folders())
for number, body in enumerate(eval(sys.argv[1])):
    pid = layers.fork_alone(own)
    if not pid:
        os.setsid()
        layers.isolate()
        layers.confine(layers.Limits(cpu_s=2, memory_mb=512), ["/"], [layers.SCENE, "/dev/null"])
        try:
            exec(body)
            told = "ran"
        except BaseException as error:
            told = type(error).__name__
        sys.stdout.write(f"{{number}} {{told}}\\n")
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
"""
CONTAINED = {
    "work in its own folder": ("open('/scene/x', 'w').write('x' * 1000)", "ran"),
    "an import that comes late": ("import wave, http.client", "ran"),
    "a folder that is empty again": ("assert os.listdir('/scene') == []", "ran"),
    "the first process": ("assert os.getpid() == 1 and os.getppid() == 0", "ran"),
    "no root": ("assert os.getuid() != 0 and os.geteuid() != 0", "ran"),
    "nothing of ours in sight": ("assert not os.path.exists('/home') and not os.path.exists('/proc/self')", "ran"),
    "reading passwords": ("open('/etc/shadow')", "FileNotFoundError"),
    "reading the project": (f"open({str(ROOT / 'Makefile')!r})", "FileNotFoundError"),
    "writing to Python": ("open(os.__file__, 'a')", "PermissionError OSError"),
    "a file that is too large": ("open('/scene/x', 'wb').write(bytes(100 << 20))", "OSError"),
    "memory": ("bytearray(1 << 30)", "MemoryError"),
    "TCP": ("import socket; socket.create_connection(('127.0.0.1', 80), 2)", "PermissionError OSError"),
    "UDP": ("import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))", "OSError"),
    "another process": ("os.kill(2, 9)", "ProcessLookupError"),
    "becoming root": ("os.setuid(0)", "PermissionError OSError"),
    "a new root": ("os.chroot('/scene')", "PermissionError"),
    "mounting": ("assert layers._libc().mount(b'tmpfs', b'/scene', b'tmpfs', 0, None) == 0", "AssertionError"),
    "forks without end": ("while True:\n    if not os.fork(): import time; time.sleep(60)", "BlockingIOError"),
}


def test_the_layers_contain_a_plain_program(user):
    """Without Manim: every layer does what it says, and what a row did is gone for the next one."""
    done = run_as(user, "-c", AROUND, repr([body for body, _ in CONTAINED.values()]))
    assert done.returncode == 0, done.stderr
    told = [line.split()[1] for line in done.stdout.splitlines()]
    wrong = {
        name: got for (name, (_, want)), got in zip(CONTAINED.items(), told, strict=True) if got not in want.split()
    }
    assert wrong == {}


# --- programs that mean harm ------------------------------------------------------------------------------------------
# Each one with the classes that it may end in; "ok" is one that can do nothing, and is a picture after all.
LEAVE = "self.add(Circle())"
HOSTILE = {
    "a fork bomb": ("import os\nwhile True: os.fork()", "sandbox"),
    "a thread bomb": ("import threading\nwhile True: threading.Thread(target=threading.Event().wait).start()", "other"),
    "a daemon": (
        "import os\nif not os.fork():\n    os.setsid()\n    if not os.fork():\n"
        "        os.execv('/bin/sleep', ['sleep', '{mark}'])\n    os._exit(0)\n" + LEAVE,
        "ok",
    ),
    "a program that is left running": ("import subprocess\nsubprocess.Popen(['sleep', '{mark}'])\n" + LEAVE, "ok"),
    "a busy loop": ("while True: pass", "timeout"),
    "a loop that catches all": ("while True:\n    try:\n        1 / 0\n    except BaseException: pass", "timeout"),
    "sleep": ("import time\ntime.sleep(1000)", "timeout"),
    "signals that are ignored": (
        "import signal\nfor number in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(number, signal.SIG_IGN)\n"
        "while True: pass",
        "timeout",
    ),
    "output without end": ("while True: print('x' * 10000)", "timeout"),
    "memory at once": ("bytearray(8 << 30)", "memory"),
    # bytes, not bytearray: nothing is written to them, which on a busy machine took all the time before all the memory.
    "memory in pieces": ("pieces = []\nwhile True: pieces.append(bytes(32 << 20))", "memory"),
    "a file without end": ("file = open('x', 'wb')\nwhile True: file.write(bytes(1 << 20))", "sandbox"),
    "files without end": (
        "for number in range(10000):\n    with open(str(number), 'wb') as file: file.write(bytes(16 << 20))",
        "sandbox",
    ),
    "open files without end": ("files = []\nwhile True: files.append(open('/dev/null'))", "sandbox"),
    "reading a file of ours": ("open('{folder}/secret').read()", "missing_asset"),
    "reading the passwords": ("open('/etc/shadow').read()", "missing_asset"),
    "reading its own environment": ("open('/proc/self/environ').read()", "missing_asset"),
    "reading the environment of others": ("open('/proc/1/environ').read()", "missing_asset"),
    "looking for our key": ("import os\nassert 'LINEMILL_SECRET' in os.environ", "other"),
    "deleting a file of ours": ("import os\nos.remove('{folder}/secret')", "missing_asset"),
    "deleting the system": ("import shutil\nshutil.rmtree('/usr/share')", "sandbox"),
    "writing into Manim": ("import manim\nopen(manim.__file__, 'a')", "sandbox"),
    "leaving a module for others": ("import numpy, os\nos.mkdir(os.path.dirname(numpy.__file__) + '/evil')", "sandbox"),
    "memory that others see": ("open('/dev/shm/{mark}', 'w')", "missing_asset"),
    "TCP": ("import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)", "sandbox"),
    "UDP": (
        "import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
        "sandbox",
    ),
    "DNS": ("import socket\nsocket.getaddrinfo('example.org', 80)", "sandbox"),
    "a page of the network": (
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}')",
        "sandbox",
    ),
    "a server of its own": ("import socket\nsocket.create_server(('127.0.0.1', 0))", "sandbox"),
    "a socket of ours": (
        "import socket\nsocket.socket(socket.AF_UNIX).connect('{folder}/socket')",
        "missing_asset",
    ),
    "killing its parent": ("import os\nos.kill(os.getppid() or 2, 9)", "other"),
    "killing everybody": ("import os\nos.kill(-1, 9)", "other"),
    "killing its group": ("import os, time\nos.kill(0, 9)\n" + LEAVE, "ok"),
    "killing with a shell": ("import subprocess\nsubprocess.run(['sh', '-c', 'kill -9 -1'])\n" + LEAVE, "ok"),
    "leaving": ("import os\nos._exit(0)", "no_output"),
    "leaving politely": ("import sys\nsys.exit()", "no_output"),
    "an interrupt": ("raise KeyboardInterrupt", "no_output"),
    "a forged result": (
        "import os\nfor number in range(3, 300):\n    try:\n"
        '        os.write(number, b\'{{"stage": "done", "scenes": [], "tex": "none"}}\\n\')\n'
        "    except OSError: pass\nos._exit(0)",
        "sandbox",
    ),
    "all files closed": ("import os\nos.closerange(0, 300)", "no_output"),
    "no more JSON": ("import json\njson.dumps = None\n" + LEAVE, "no_output"),
    "a wild pointer": ("import ctypes\nctypes.string_at(1)", "other"),
    "an abort": ("import os\nos.abort()", "other"),
    "a recursion": ("def again(): again()\nagain()", "other"),
    "a recursion without limit": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef again(x): return again([x]) + repr(x)\nagain([])",
        "other memory timeout",
    ),
    "asking the user": ("input('password: ')", "other"),
    "becoming root": ("import os\nos.setuid(0)", "sandbox other"),
    "mounting": (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.unshare(0x10020000)\n"
        "if libc.mount(b'tmpfs', b'/usr', b'tmpfs', 0, None): raise OSError(ctypes.get_errno(), 'mount')",
        "sandbox",
    ),
    "TeX that runs programs": (r"self.add(MathTex(r'\immediate\write18{{touch {folder}/written}} x'))", "ok tex"),
    "an error that can not be told": (
        "class Odd(Exception):\n    def __str__(self): raise self\nraise Odd",
        "other",
    ),
}


@pytest.fixture(scope="module")
def attacked(user):
    """The rows of one run over all hostile programs, each followed by a good one, and what was seen from outside."""
    _, folder = user
    mark = f"98765.{os.getpid()}{len(str(folder))}"
    (folder / "secret").write_text("a secret")
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(f"{folder}/socket")
        local.listen()
        local.settimeout(0.1)
        server.settimeout(0.1)
        values = {"folder": folder, "mark": mark, "port": server.getsockname()[1]}
        bodies = [body.replace("{{", "{").replace("}}", "}") for body, _ in HOSTILE.values()]
        for name, value in values.items():
            bodies = [body.replace(f"{{{name}}}", str(value)) for body in bodies]
        programs = [each for body in bodies for each in (program(body), program("self.add(Square())"))]
        write_rows(folder / "in.jsonl", rows_of(programs))
        before = set(Path(tempfile.gettempdir()).iterdir())
        options = ["--input", "in.jsonl", "--output", "out.jsonl", "--tag-only", "--render", "check"]
        options += ["--render-timeout", "1", "--render-memory", "1024"]
        done = run_as(user, ROOT / "filter_quality.py", *options, env={"LINEMILL_SECRET": "a secret"})
        for door in (server, local):
            with suppress(TimeoutError):
                heard.append(door.accept())
    left = [path for path in set(Path(tempfile.gettempdir()).iterdir()) - before if "linemill-render" in path.name]
    seen = {"heard": heard, "left": left, "running": running(mark)}
    return done, read_rows(folder / "out.jsonl") if done.returncode == 0 else [], seen


def running(word):
    """The command lines of processes that hold the word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [text] if word in text else []
    return found


@needs_manim
def test_every_hostile_program_is_contained_and_named_and_the_run_goes_on(attacked):
    done, rows, _ = attacked
    assert done.returncode == 0, done.stderr
    said = [row["metadata"]["render"] for row in rows]
    classes = [each["error"]["class"] if each["error"] else "ok" for each in said]
    got = dict(zip(HOSTILE, classes[::2], strict=True))
    assert {name: got[name] for name, (_, want) in HOSTILE.items() if got[name] not in want.split()} == {}
    assert set(classes[1::2]) == {"ok"}


@needs_manim
def test_nothing_of_a_hostile_program_reaches_the_outside(attacked, user):
    _, rows, seen = attacked
    assert seen == {"heard": [], "left": [], "running": []}
    assert (user[1] / "secret").read_text() == "a secret"
    assert not (user[1] / "written").exists()
    assert "a secret" not in json.dumps(rows)


# --- verdicts ---------------------------------------------------------------------------------------------------------
ENDS = {
    "a picture": (program("self.add(Circle())"), "ok"),
    "a scene that a function binds": (
        "from manim import *\n\n\ndef make():\n    global A\n\n    class A(Scene):\n"
        "        def construct(self):\n            self.add(Circle())\n\n\nmake()\n",
        "ok",
    ),
    "a module that is not there": (program("self.add(Circle())", "import no_such_module"), "missing_module"),
    "a name that a module does not have": (program("self.add(Circle())", "from math import no_such_name"), "import"),
    "a name that Manim does not have": ("from manim import Scene, NoSuchThing\n" + program(LEAVE), "api"),
    "ManimGL": (program("self.add(Circle())", "from manimlib import *"), "other_engine"),
    "an old name": (program("self.play(ShowCreation(Circle()))"), "other_engine"),
    "OpenGL": (program("self.add(OpenGLVGroup())"), "other_engine"),
    "a picture that is not there": (program("self.add(ImageMobject('cat.png'))"), "missing_asset"),
    "a drawing that is not there": (program("self.add(SVGMobject('cat'))"), "missing_asset"),
    "a wrong argument": (program("self.add(Circle(colour=RED))"), "api"),
    "a wrong method": (program("self.add(Circle().move_too(UP))"), "api"),
    "a wrong value": (program("self.play(Create(Circle()), run_time=-1)"), "other"),
    "no scene after all": (
        "from manim import *\n\n\nclass A(Scene):\n    def construct(self):\n        pass\n\n\ndel A\n",
        "no_output",
    ),
}


def gate(folder, rows, *options, **how):
    write_rows(folder / "in.jsonl", rows)
    places = ["--input", "in.jsonl", "--output", "out.jsonl"]
    return run_script("filter_quality.py", *places, *options, cwd=folder, **how)


def renders(folder, name="out.jsonl"):
    return [row["metadata"].get("render") for row in read_rows(folder / name)]


@needs_manim
def test_every_error_has_its_class(tmp_path):
    gate(tmp_path, rows_of([code for code, _ in ENDS.values()]), "--tag-only", "--render", "check", check=0)
    said = renders(tmp_path)
    got = {name: each["error"]["class"] if each["error"] else "ok" for name, each in zip(ENDS, said, strict=True)}
    assert got == {name: want for name, (_, want) in ENDS.items()}
    assert said[list(ENDS).index("a wrong method")]["error"]["line"] == 7


@needs_manim
def test_rows_that_do_not_render_are_rejected_and_the_rest_is_told(tmp_path):
    rows = rows_of([program("self.play(Create(Circle()))\nself.wait()"), program("self.add(Circle(), [][0])")])
    rows += rows_of(["this draws a circle\n" * 5, program("self.wait(1)\nself.add(MathTex('x'))")])
    gate(tmp_path, rows, "--min-quality", "0.5", "--render", "check", "--report", "report.json", check=0)
    first, last = renders(tmp_path)
    facts = {"name": "Example", "plays": 2, "duration": 2.0, "blank": False}
    (scene,) = first["scenes"]
    assert scene == facts | {"mobjects": scene["mobjects"], "frame_hash": scene["frame_hash"]}
    assert (first["level"], first["ok"], first["error"], first["tex"]) == ("check", True, None, "none")
    assert first["versions"].keys() == {"manim", "numpy", "pillow", "python"}
    assert last["tex"] in ("latex", "stub")
    failed, unparsed = read_rows(tmp_path / "out.rejects.jsonl")
    assert failed["metadata"]["error"]["code"] == "render_other"
    assert failed["metadata"]["error"]["message"] == "IndexError: list index out of range (line 7)"
    assert unparsed["metadata"]["error"]["code"] == "does_not_parse" and "render" not in unparsed["metadata"]
    ledger = json.loads((tmp_path / "out.ledger.json").read_bytes())
    assert ledger["extra"]["render"]["counts"] == {"ok": 2, "other": 1, "rendered": 3}
    assert ledger["options"]["render"] == "check"
    renders_of = json.loads((tmp_path / "report.json").read_bytes())["renders"]
    assert renders_of["ok"] == {"kept": 2, "rejected": 0, "examples": []}
    assert renders_of["other"]["rejected"] == 1 and renders_of["other"]["examples"][0]["type"] == "IndexError"


@needs_manim
def test_a_scene_is_blank_only_when_it_never_shows_anything(tmp_path):
    bodies = ["self.add(Circle())\nself.wait()\nself.clear()\nself.wait()", "self.wait()"]
    gate(tmp_path, rows_of(map(program, bodies)), "--tag-only", "--render", "check", check=0)
    assert [each["scenes"][0]["blank"] for each in renders(tmp_path)] == [False, True]


@needs_manim
def test_every_level_finds_what_it_is_for(tmp_path):
    bodies = [
        "self.add(Circle())",
        "self.add(Circle(colour=RED))",
        "self.play(UpdateFromAlphaFunc(Dot(), lambda dot, alpha: [0][0 if alpha in (0, 1) else 1]))",
    ]
    expected = {"import": [True] * 3, "check": [True, False, True]}
    expected |= {"sampled": [True, False, False], "last": [True, False, True], "full": [True, False, False]}
    for level, want in expected.items():
        gate(tmp_path, rows_of(map(program, bodies)), "--tag-only", "--render", level, check=0)
        assert [each["ok"] for each in renders(tmp_path)] == want, level


@needs_manim
def test_the_same_rows_give_the_same_bytes_with_any_number_of_workers(tmp_path):
    body = "self.add(*[Dot(np.random.rand(3)) for _ in range(3)], Square().rotate(random.random()))"
    bodies = [body, "self.add(object())", "raise ValueError({'a', 'b', 'c'})"] * 5
    outputs = set()
    for workers, seed in (("1", "1"), ("3", "2")):
        env = {"PYTHONHASHSEED": seed}
        gate(tmp_path, rows_of(program(body, "import random") for body in bodies), "--min-quality", "0",
             "--render", "check", "--workers", workers, check=0, env=env)  # fmt: skip
        outputs.add((tmp_path / "out.jsonl").read_bytes() + (tmp_path / "out.rejects.jsonl").read_bytes())
    assert len(outputs) == 1


@needs_manim
def test_what_was_found_is_remembered_by_content_and_a_timeout_never_is(tmp_path):
    bodies = ["self.add(Circle())", "self.add(Circle(colour=RED))", "while True: pass"]
    # The good ones need some hundredths of a second; by the clock they have twelve, also where others use the machine.
    options = ["--tag-only", "--render", "check", "--render-cache", "cache", "--render-timeout", "3"]
    outputs, counts = [], []
    for _ in range(2):
        gate(tmp_path, rows_of(map(program, bodies)), *options, check=0)
        outputs.append((tmp_path / "out.jsonl").read_bytes().splitlines()[:2])
        assert renders(tmp_path)[2]["error"]["class"] == "timeout"  # by the clock, where others use the processor
        counts.append(json.loads((tmp_path / "out.ledger.json").read_bytes())["extra"]["render"]["counts"])
    assert outputs[0] == outputs[1]
    assert [each.get("remembered", 0) for each in counts] == [0, 2]
    files = sorted((tmp_path / "cache").rglob("*.*"))
    assert len(files) == 2
    files[0].write_bytes(b"{ torn")
    gate(tmp_path, rows_of(map(program, bodies)), *options, check=0)
    assert (tmp_path / "out.jsonl").read_bytes().splitlines()[:2] == outputs[0]


@needs_manim
def test_a_row_that_is_repaired_is_kept_when_it_then_renders(tmp_path):
    good = program("self.play(Create(Circle()))")
    broken = [
        good.replace("Create", "ShowCreation"),
        good.replace("from manim import *", ""),
        good.replace("(Scene)", ""),
        good.replace("self)", ")"),
        good.replace("self.play", "play"),
        good.replace("(Scene)", "").replace("Circle()", "Circle(colour=RED)"),
    ]
    gate(tmp_path, rows_of([*broken, good]), "--render", "check", "--fix", "--min-quality", "0.7", check=0)
    kept = read_rows(tmp_path / "out.jsonl")
    assert [row["metadata"].get("fixes_applied") for row in kept] == [
        ["renamed_names"], ["missing_import"], ["scene_base"], ["missing_self"], ["self_before_calls"], None,
    ]  # fmt: skip
    assert [row["metadata"].get("original_code") for row in kept] == [*broken[:5], None]
    (rejected,) = read_rows(tmp_path / "out.rejects.jsonl")
    assert rejected["code"] == broken[5] and "fixes_applied" not in rejected["metadata"]


@needs_manim
@needs_latex
def test_formulas_are_set_by_latex_where_it_is_and_its_complaints_have_their_class(tmp_path):
    """The same formula in four programs: what one of them makes is never what another one sees, and all look alike."""
    good = [program("self.add(MathTex('x^2', '+', r'\\sqrt{y}'))")] * 4
    broken = [program("self.add(MathTex(r'\\nosuchcommand{x}'))"), program("self.add(Tex(r'\\begin{center} a'))")]
    shell = program(r"self.add(MathTex(r'\immediate\write18{touch /scene/written} x'))" + "\nopen('/scene/written')")
    gate(tmp_path, rows_of([*good, *broken, shell]), "--tag-only", "--render", "check", check=0)
    said = renders(tmp_path)
    assert [(each["ok"], each["tex"]) for each in said] == [(True, "latex")] * 4 + [(False, "latex")] * 3
    assert len({each["scenes"][0]["frame_hash"] for each in said[:4]}) == 1
    assert [each["error"]["class"] for each in said[4:]] == ["tex", "tex", "missing_asset"]


def test_a_formula_is_remembered_when_a_second_program_asks_for_it():
    memory = Memory()
    assert memory.wanted(["a", "b", 3, None, "x" * 20_000]) == []
    assert memory.wanted(["a", "a", "c"]) == ["a"]
    memory.known["a"] = "<svg/>"
    assert memory.wanted(["a", "c"]) == ["c"]
    assert memory.wanted([str(number) for number in range(1000)]) == []
    assert len(memory.wanted([str(number) for number in range(1000)])) == 50


ALIKE = """
import sys
sys.path.insert(0, sys.argv[1])
import os, tempfile
os.chdir(tempfile.mkdtemp())
from manim import *
from stages.filter_quality.render.child import COMPARED_WITH, make_quicker
from importlib.metadata import version
import hashlib, manim, numpy

DRAWING = '''<svg xmlns="http://www.w3.org/2000/svg"><g transform="rotate(20) scale(2, 3)">
<path d="M0 0L3 1Q4 2 5 0C1 2 3 4 6 6Z m1 1 l.3 .5 h2 v3 z"/><path d="M0 0A3 2 0 0 1 5 5"/><path d="L1 1"/></g></svg>'''

def things():
    axes = Axes((-2, 2), (-1, 1), tips=True)
    yield from (Text("To be, or not", gradient=(RED, BLUE)), MarkupText("<b>x</b> y"), axes, Arrow(LEFT, UP))
    yield from (VGroup(Star(), Square(0.5)).arrange(), Circle(color="#112233").set_sheen(0.3, UL), Sphere(resolution=4))
    yield from (axes.plot(lambda x: x**3), Circle().apply_function(lambda p: p + numpy.sin(p)), Dodecahedron())
    yield from (Square().set_fill(None, 0.5).set_stroke([RED, BLUE], 3), DashedLine(), VMobject(), VGroup())
    yield from (ArcBetweenPoints(LEFT, RIGHT).rotate(1, axis=RIGHT + UP), Line().set_opacity(0.3))
    yield Circle().apply_complex_function(lambda z: z**2)
    yield from (ThreeDAxes(), Cone(), Arrow3D(LEFT, OUT), Surface(lambda u, v: (u, v, u * v), resolution=3))
    yield from (Circle(shade_in_3d=True), Line(shade_in_3d=True), Square(shade_in_3d=True).set_opacity(0))
    both = Square()
    yield from (VGroup(both, VGroup(both), both), AnnularSector(), Circle(fill_opacity=0.5, stroke_opacity=0))
    yield from (Arrow(DL, UR + OUT), Vector(UP, color=RED), Vector(UP, color=RED), DoubleArrow(), CurvedArrow(UP, LEFT))
    yield from (VMobject().set_points_smoothly(numpy.random.rand(number, 3)) for number in (2, 3, 4, 9))
    yield from (axes.plot(numpy.sin, use_smoothing=True), MathTex("x^2", "y"), Tex("a b"), Text("To be", slant=ITALIC))
    yield from (Text("or\\nnot", t2c={"or": RED}, stroke_width=1, fill_opacity=0.5), BulletedList("a"), Brace(axes))
    VMobject.set_default(stroke_width=7)
    yield from (Text("To be, or"), Vector(UP, color=RED), MathTex("x^2"), VMobject(), Circle(color=BLUE))
    VMobject.set_default()
    corners = [[-2, 0, 0], [1.5, 2, 0], [0.3, 0.1, 0], [2, -1.7, 0]]
    yield from (LabeledPolygram(corners, label="in"), LabeledPolygram(numpy.array(corners) / 2, label="in"))
    open("d.svg", "w").write(DRAWING)
    yield from (SVGMobject("d.svg"), VMobject().set_points_as_corners([UP, LEFT, numpy.array([1e-7, 2e-7, 0])]))

def facts():
    for thing in things():
        for each in (thing, thing.copy()):
            for part in each.get_family():
                own = {k: v for k, v in part.__dict__.items() if not isinstance(v, Mobject)}
                own = {k: v for k, v in own.items() if k not in ("original_id", "file_name", "path_obj", "_outline")}
                yield type(part).__name__, [
                    (k, v.tolist() if hasattr(v, "tolist") else str(v)) for k, v in sorted(own.items())
                    if isinstance(v, (int, float, str, numpy.ndarray, ManimColor, type(None)))
                ]
                yield [part.get_critical_point(way).tolist() for way in (UL, UR + OUT, ORIGIN)]
                yield part.path_obj.d() if hasattr(part, "path_obj") else None
                if len(part.points) > 4:
                    yield part.point_from_proportion(0.3).tolist(), [len(path) for path in part.get_subpaths()]
        yield [(name, len(each)) for name, each in getattr(thing, "id_to_vgroup_dict", {}).items()]
        assert thing.copy() is not thing
        for kind, more in ((Camera, {}), (ThreeDCamera, {"phi": 1.0, "theta": 0.5, "exponential_projection": True})):
            camera = kind(pixel_width=214, pixel_height=120, **more)
            if more:
                camera.add_fixed_in_frame_mobjects(*thing[1:2])
                camera.add_fixed_orientation_mobjects(*thing[:1])
            camera.capture_mobjects([thing])
            yield hashlib.sha256(camera.pixel_array.tobytes()).hexdigest()

numpy.random.seed(0)
before = list(facts())
numpy.random.seed(0)
make_quicker()
manim.mobject.svg.svg_mobject.SVG_HASH_TO_MOB_MAP.clear()  # a drawing from Manim's own cache is turned otherwise
after = list(facts())
assert version("manim") == COMPARED_WITH, "compare anew, then name the release in child.py"
replaced = Mobject.__deepcopy__, VMobject.set_color, Camera.apply_fill, VMobject.point_from_proportion
assert {each.__module__ for each in (*replaced, SVGMobject.generate_mobject)} == {
    "quicker.mobjects", "quicker.colours", "quicker.drawing", "quicker.curves", "quicker.outlines"
}
assert len(before) == len(after) > 500
for one, other in zip(before, after):
    assert one == other, (one, other)
"""


@needs_manim
def test_what_is_done_quicker_gives_the_same_to_the_bit(tmp_path):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ALIKE, str(ROOT)], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]


@needs_manim
def test_manim_can_be_left_as_it_is_and_nothing_looks_otherwise(tmp_path):
    body = "self.play(Write(Text('as it is')), Create(Axes().plot(np.sin)))\nself.add(MathTex('x'), Star().rotate(1))"
    seen = (
        "self.add(Text(Mobject.__deepcopy__.__module__))\nassert Mobject.__deepcopy__.__module__ == 'quicker.mobjects'"
    )
    said = {}
    for plain in ("", "1"):
        env = {"LINEMILL_PLAIN_MANIM": plain}
        rows = rows_of([program(body), program(seen)])
        options = ["--tag-only", "--render", "check", "--render-cache", "cache"]
        gate(tmp_path, rows, *options, check=0, env=env)
        said[plain] = renders(tmp_path)
    assert said[""][0]["ok"] and said[""][0] == said["1"][0]
    assert [said[plain][1]["ok"] for plain in ("", "1")] == [True, False]


@needs_manim
def test_the_last_frames_are_kept_on_request(tmp_path):
    bodies = ["self.add(Circle())", "self.add(Circle(colour=RED))"]
    gate(tmp_path, rows_of(map(program, bodies)), "--tag-only", "--render", "last", "--frames", "frames", check=0)
    first, second = renders(tmp_path)
    (picture,) = (tmp_path / "frames").iterdir()
    assert first["frame"] == picture.name and "frame" not in second
    assert picture.read_bytes().startswith(b"\x89PNG")


def processes_of(parent):
    """The processes that a process has started, and those that these have started: number, name, birth."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        if (facts := life_of(path)) and facts[0] == str(parent):
            found += [(int(path.parent.name), *facts[1:]), *processes_of(path.parent.name)]
    return found


def life_of(path):
    """The parent, the name and the birth of a process; None of one that has ended, waited for or not."""
    try:
        head, _, tail = path.read_text().rpartition(")")
    except OSError:
        return None
    fields = tail.split()
    return None if fields[0] == "Z" else (fields[1], head.partition("(")[2], fields[19])


def is_alive(process):
    facts = life_of(Path(f"/proc/{process[0]}/stat"))
    return facts is not None and facts[2] == process[2]  # its number may be that of another by now


# A program that can be recognised from outside. Its server has as many processes for a moment before it starts.
ASLEEP = "import ctypes, time\nctypes.CDLL(None).prctl(15, b'asleep')\ntime.sleep({})\n"


def asleep(run, count):
    """All processes of the run, when as many of its programs sleep."""
    found = processes_of(run.pid)
    return found if sum(name == "asleep" for _, name, _ in found) == count else None


def start(folder, bodies, *options):
    write_rows(folder / "in.jsonl", rows_of(map(program, bodies)))
    command = [sys.executable, ROOT / "filter_quality.py", "--input", "in.jsonl", "--output", "out.jsonl", "--tag-only"]
    environment = CLEAN | {"HOME": str(folder)}
    return subprocess.Popen(
        [*command, "--render", "check", *options], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )


def wait_for(what, seconds=300):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.1)
    return found


@needs_manim
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_takes_everything_with_it(tmp_path, number):
    run = start(tmp_path, [ASLEEP.format(1000)] * 2, "--workers", "2", "--render-timeout", "1000")
    everything = wait_for(lambda: asleep(run, 2))
    assert len(everything) == 6
    run.send_signal(number)
    said = run.communicate(timeout=300)[1]
    assert run.returncode == (130 if number == signal.SIGINT else -number), said
    assert "Traceback" not in said
    wait_for(lambda: not any(map(is_alive, everything)))
    assert not (tmp_path / "out.jsonl").exists()


@needs_manim
def test_a_server_that_dies_is_replaced_and_no_row_is_lost(tmp_path):
    run = start(tmp_path, [ASLEEP.format(3) + "self.add(Circle())"] * 2)
    _, server, _ = wait_for(lambda: asleep(run, 1))
    os.kill(server[0], signal.SIGKILL)
    said = run.communicate(timeout=300)[1]
    assert run.returncode == 0, said
    assert [each["ok"] for each in renders(tmp_path)] == [True] * 2


NO_NAMESPACES = "echo 0 > /proc/sys/user/max_user_namespaces && echo 0 > /proc/sys/user/max_mnt_namespaces && exec "


@needs_manim
def test_without_a_sandbox_nothing_runs_unless_it_is_allowed(tmp_path):
    """In a namespace whose own limits forbid further ones, as containers do."""
    inside = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    if subprocess.run([*inside, NO_NAMESPACES + "true"], capture_output=True).returncode:
        pytest.skip("this machine can not be made to forbid namespaces")
    write_rows(
        tmp_path / "in.jsonl", rows_of([program("self.add(Circle())"), program("open('x', 'w').write('x' * 10**9)")])
    )
    command = [sys.executable, ROOT / "filter_quality.py", "--input", "in.jsonl", "--output", "out.jsonl", "--render"]
    command = [*map(str, command), "check", "--tag-only"]
    env = CLEAN | {"HOME": str(tmp_path)}
    before = set(Path(tempfile.gettempdir()).glob("linemill-render-*"))
    for extra, code in (([], 2), (["--unsafe"], 0)):
        line = NO_NAMESPACES + shlex.join([*command, *extra])
        done = subprocess.run([*inside, line], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        if code:
            assert len(done.stderr.strip().splitlines()) == 1 and "--unsafe" in done.stderr
    assert [each["ok"] for each in renders(tmp_path)] == [True, False]
    assert set(Path(tempfile.gettempdir()).glob("linemill-render-*")) == before


def test_without_manim_the_gate_says_so_in_one_line(tmp_path):
    hide = "import sys\n\n\nclass No:\n    def find_spec(self, name, *_):\n        if name == 'manim':\n"
    hide += "            raise ImportError(name)\n\n\nsys.meta_path.insert(0, No())\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    env = {"PYTHONPATH": str(tmp_path)}
    done = gate(tmp_path, [record()], "--render", "check", check=2, env=env)
    assert done.err.strip().splitlines()[-1].startswith("Error: --render check needs the package manim")
    gate(tmp_path, [record()], check=0, env=env)


@pytest.mark.parametrize("options", [["--fix"], ["--frames", "x"], ["--unsafe"], ["--render-cache", "x"]])
def test_an_option_that_would_do_nothing_is_refused(tmp_path, options):
    assert "--render" in gate(tmp_path, [record()], *options, check=2).err


# --- pure functions ---------------------------------------------------------------------------------------------------
GOOD = program("self.play(Create(Circle()))")
REPAIRS = {
    "nothing to do": (GOOD, []),
    "tabs": (GOOD.replace("        self.play", "\t\tself.wait()\n        self.play"), ["tabs"]),
    "an old name in a text stays": (program("self.add(Text('ShowCreation'))"), []),
    "a name of its own stays": (program("ShowCreation = Create\nself.play(ShowCreation(Dot()))"), []),
    "a function of its own stays": (program("play(1)", "def play(x): pass"), []),
    "an old name that is asked for": (
        GOOD.replace("*", "Scene, Circle, ShowCreation").replace("Create", "ShowCreation"),
        ["renamed_names"],
    ),
    "not only ASCII before it": (program("self.add(Text('äöü')); play(Create(Dot()))"), ["self_before_calls"]),
    "two at once": (GOOD.replace("(Scene)", "").replace("Create", "ShowCreation"), ["scene_base", "renamed_names"]),
    "no program at all": ("it draws a circle", []),
}


@pytest.mark.parametrize("name", REPAIRS)
def test_a_repair_changes_only_what_can_not_be_right(name):
    code, names = REPAIRS[name]
    changed, done = repaired(code)
    assert done == names
    assert (changed == code) == (not names)
    if names:
        compile(changed, "<code>", "exec")
        assert repaired(changed) == (changed, [])


def test_formulas_without_latex_keep_the_parts_that_manim_looks_for():
    part = r"\special{dvisvgm:raw <g id='unique000'>}a+b\special{dvisvgm:raw </g>}"
    assert boxes(part).count("<path") == 3
    assert "<g id='unique000'><path" in boxes(part) and boxes(part).count("</g>") == 1
    assert boxes(r"\,").count("<path") == 1  # a picture without a path is refused
    assert boxes(r"\frac{a}{b}").count("<path") == 3


def test_how_a_process_ended_has_a_class_of_its_own():
    limits = layers.Limits(cpu_s=2, memory_mb=512)
    ends = {
        "timeout": [End(-9, 0.1, late=True, lost=False), End(-9, 2.0, late=False, lost=False)],
        "memory": [End(-9, 0.1, late=False, lost=False)],
        "sandbox": [End(0, 0.1, late=False, lost=True)],
        "no_output": [End(0, 0.1, late=False, lost=False), End(3, 0.1, late=False, lost=False)],
        "other": [End(-11, 0.1, late=False, lost=False)],
    }
    for name, cases in ends.items():
        assert {verdict(None, end, limits)["error"]["class"] for end in cases} == {name}
