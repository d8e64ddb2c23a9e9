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
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import CLEAN, ROOT, read_rows, record, run_script, write_rows

from stages.filter_quality.render import layers
from stages.filter_quality.render.fixes import repaired
from stages.filter_quality.render.tex import boxes
from stages.filter_quality.render.verdicts import CLASSES, End, verdict

HAS_MANIM = find_spec("manim") is not None
needs_manim = pytest.mark.skipif(not HAS_MANIM, reason="Manim is not installed (make render-setup)")
IS_ROOT = os.geteuid() == 0
USERS = ["as we are", "as an ordinary user"]
NOBODY = 65534


def program(body, head=""):
    lines = "\n".join("        " + line for line in body.strip("\n").split("\n"))
    return f"{head}\nfrom manim import *\n\n\nclass Example(Scene):\n    def construct(self):\n{lines}\n"


def rows_of(programs):
    return [record(number, code=code) for number, code in enumerate(programs)]


def ordinary(command):
    """The command as nobody; where Python lies in a folder of root's, with a view of the machine in which it does not."""
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
    "memory in pieces": ("pieces = []\nwhile True: pieces.append(bytearray(32 << 20))", "memory"),
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
        "sandbox other",
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
        options += ["--render-timeout", "1", "--render-memory", "1024", "--workers", "2"]
        done = run_as(user, ROOT / "filter_quality.py", *options, env={"LINEMILL_SECRET": "a secret"})
        for door in (server, local):
            try:
                heard.append(door.accept())
            except TimeoutError:
                pass
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
