"""What the type github makes of repositories that the tests build with the git program."""

from __future__ import annotations

import ast
import functools
import http.server
import json
import os
import subprocess
import sys
import threading

import click
import pytest
from conftest import ROOT, read_rows, run_script

from extractors import BadRow, Fetch, load
from extractors._modules import decode, without_tabs
from extractors._rewrites import inline_texts, replace_assets
from extractors._stand_ins import SHAPE_OF, stand_in
from extractors._voiceover import rewrite_voiceover

MIT = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy\n"
SCENE = "from manim import *\n\n\nclass {name}(Scene):\n    def construct(self):\n        self.add({what})\n"


def scene(name="Intro", what="Dot()"):
    return SCENE.format(name=name, what=what)


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def git(folder, *arguments):
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    command = ["git", "-c", "init.defaultBranch=main", *arguments]
    done = subprocess.run(command, cwd=folder, env=os.environ | who, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make_repository(folder, files):
    folder.mkdir()
    git(folder, "init", "-q")
    return commit(folder, files)


def commit(folder, files):
    write(folder, files)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "More")
    return git(folder, "rev-parse", "HEAD")


def rows(tmp_path, files=None, *, offline=True, **options):
    if files is not None:
        options["path"] = str(write(tmp_path / "files", files))
    return list(load("github")(fetch=Fetch(tmp_path / "cache", offline=offline), **options))


def programs(found):
    """The programs by the name of their scene; each must parse, and none may be rejected."""
    assert [row for row in found if isinstance(row, BadRow)] == []
    for row in found:
        ast.parse(row["code"])
    return {row["metadata"]["scene"]: row["code"] for row in found}


def codes(found):
    return [row.code if isinstance(row, BadRow) else row["metadata"]["scene"] for row in found]


def test_a_repository_is_fetched_once_and_then_read_without_it(tmp_path):
    revision = make_repository(tmp_path / "repo", {"a.py": scene(), "LICENSE": MIT})
    url = (tmp_path / "repo").as_uri()
    first = rows(tmp_path, url=url, offline=False)
    (tmp_path / "repo").rename(tmp_path / "gone")
    assert rows(tmp_path, url=url, offline=True) == first
    origin = {"url": url, "revision": revision, "path": "a.py", "line": 4}
    assert first[0]["metadata"] == {
        "kind": "code",
        "needs_description": True,
        "licence": "MIT",
        "origin": origin,
        "scene": "Intro",
    }
    with pytest.raises(click.ClickException, match="--offline forbids the download"):
        rows(tmp_path, url=url, revision="other", offline=True)


def test_a_pinned_revision_stays_what_it_was(tmp_path):
    old = make_repository(tmp_path / "repo", {"a.py": scene("Old")})
    new = commit(tmp_path / "repo", {"a.py": scene("New")})
    url = (tmp_path / "repo").as_uri()
    for revision, name in ((old, "Old"), (new, "New"), ("main", "New")):
        found = rows(tmp_path, url=url, revision=revision, offline=False)
        assert codes(found) == [name]
        assert found[0]["metadata"]["origin"]["revision"] == (old if name == "Old" else new)


def test_refresh_fetches_what_is_new(tmp_path):
    make_repository(tmp_path / "repo", {"a.py": scene("Old")})
    url = (tmp_path / "repo").as_uri()
    rows(tmp_path, url=url, offline=False)
    commit(tmp_path / "repo", {"a.py": scene("New")})
    assert codes(rows(tmp_path, url=url, offline=False)) == ["Old"]
    assert codes(list(load("github")(fetch=Fetch(tmp_path / "cache", refresh=True), url=url))) == ["New"]


@pytest.fixture
def web(tmp_path):
    """A plain web server over the test's folder: git can read it, but no part of a history."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_plain_web_server_gives_the_newest_and_any_older_revision(tmp_path, web):
    old = make_repository(tmp_path / "repo", {"a.py": scene("Old")})
    commit(tmp_path / "repo", {"a.py": scene("New")})
    git(tmp_path / "repo", "update-server-info")
    url = f"{web}/repo/.git"
    assert codes(rows(tmp_path, url=url, offline=False)) == ["New"]
    assert codes(rows(tmp_path, url=url, revision=old, offline=False)) == ["Old"]
    with pytest.raises(click.ClickException, match="has no revision nowhere"):
        rows(tmp_path, url=url, revision="nowhere", offline=False)


def test_a_missing_repository_and_a_missing_program_are_one_line(tmp_path, monkeypatch):
    url = (tmp_path / "none").as_uri()
    with pytest.raises(click.ClickException, match="git can not fetch") as caught:
        rows(tmp_path, url=url, offline=False)
    assert "\n" not in caught.value.message
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(click.ClickException, match="git is not installed"):
        rows(tmp_path, url=url, offline=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of 'repo', 'url' and 'path'"),
        ({"repo": "a/b", "path": "c"}, "one of 'repo', 'url' and 'path'"),
        ({"repo": "https://example.org/a"}, "is no OWNER/NAME"),
        ({"url": "--upload-pack=touch x"}, "does not begin with '-'"),
        ({"url": "file:///a", "revision": "--output=x"}, "does not begin with '-'"),
        ({"path": ".", "path_pattern": "("}, "path_pattern"),
        ({"path": ".", "title": "{day}"}, "is no group"),
    ],
)
def test_a_mistake_in_the_options_is_named(tmp_path, options, message):
    with pytest.raises(click.UsageError) as caught:
        rows(tmp_path, offline=False, **options)
    assert message in caught.value.message


def test_a_url_can_not_name_a_program_to_run(tmp_path):
    with pytest.raises(click.ClickException, match="git can not fetch"):
        rows(tmp_path, url=f"ext::touch {tmp_path}/ran", offline=False)
    assert not (tmp_path / "ran").exists()


def test_links_are_never_followed(tmp_path):
    write(tmp_path / "secret", {"hidden.py": scene("Hidden")})
    make_repository(tmp_path / "repo", {"a.py": scene("Seen")})
    (tmp_path / "repo" / "link.py").symlink_to(tmp_path / "secret" / "hidden.py")
    (tmp_path / "repo" / "folder").symlink_to(tmp_path / "secret")
    commit(tmp_path / "repo", {})
    for options in ({"url": (tmp_path / "repo").as_uri()}, {"path": str(tmp_path / "repo")}):
        assert codes(rows(tmp_path, offline=False, **options)) == ["link", "Seen"]


def test_a_file_that_is_too_large_is_a_reject_and_no_silence(tmp_path):
    make_repository(tmp_path / "repo", {"a.py": scene("Seen"), "big.py": "#" * 4_000_001})
    for options in ({"url": (tmp_path / "repo").as_uri()}, {"path": str(tmp_path / "repo")}):
        assert codes(rows(tmp_path, offline=False, **options)) == ["too_large", "Seen"]


def test_a_file_outside_of_the_repository_is_not_read_into_a_record(tmp_path):
    write(tmp_path, {"secret.txt": "secret"})
    found = rows(tmp_path, {"a.py": scene(what='Text(open("../secret.txt").read())')})
    assert codes(found) == ["needs_file"]


@pytest.mark.parametrize(
    "data",
    [
        scene(what='Text("Größe")').replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + scene(what='Text("Größe")').encode(),
        scene(what='Text("Größe")').encode("latin-1"),
        ("# -*- coding: cp1252 -*-\n" + scene(what='Text("Größe")')).encode("cp1252"),
        scene(what='Text("Größe")').replace("    ", "\t").encode(),
    ],
    ids=["crlf", "bom", "latin-1", "cookie", "tabs"],
)
def test_files_of_any_editor_are_read(tmp_path, data):
    code = programs(rows(tmp_path, {"a.py": data}))["Intro"]
    assert code == scene(what='Text("Größe")')


def test_tabs_that_are_part_of_a_string_stay():
    text = 'A = """\n\tkept\n"""\nif A:\n\tB = 1\n'
    assert without_tabs(text) == text
    assert decode(b"a\rb\r\nc") == "a\nb\nc"


FAMILY = {
    "base/__init__.py": "",
    "base/scenes.py": "from manim import *\nimport random\nUNUSED = 1\nSIZE = 2\n"
    "def unused():\n    pass\n"
    "class Base(MovingCameraScene):\n    def box(self):\n        return Square(SIZE)\n",
    "films/tools.py": "from manim import *\ndef dot():\n    return Dot()\ndef far():\n    return dot()\n",
    "films/a.py": '"""About boxes."""\nimport sys\nsys.path.append("..")\nfrom base.scenes import Base as Parent\n'
    "import tools\nfrom tools import far as remote\nimport numpy as np, math\n\n"
    "config.background_color = WHITE\nTABLE = {}\nTABLE['x'] = 1\nOTHER = {}\nOTHER['y'] = 2\n\n"
    "class Middle(Parent):\n    pass\n\n# Boxes grow.\nclass Leaf(Middle):\n    def construct(self):\n"
    "        self.add(self.box(), tools.dot(), remote(), Dot(np.zeros(3) * TABLE['x']))\n\n"
    "if __name__ == '__main__':\n    Leaf().render()\n",
}


def test_a_scene_brings_all_that_it_needs_and_nothing_else(tmp_path):
    found = rows(tmp_path, FAMILY, exclude=["base/*"])
    assert codes(found) == ["no_construct", "Leaf"]
    code = found[1]["code"]
    assert code.startswith("from manim import *\nimport numpy as np\n\n\n")
    for part in ("class Base", "SIZE = 2", "class Middle", "Parent = Base", "remote = far", "TABLE['x'] = 1"):
        assert part in code, part
    for part in ("unused", "UNUSED", "import random", "math", "sys", "tools", "OTHER", "__main__", "from base"):
        assert part not in code, part
    assert "config.background_color = WHITE" in code
    assert found[1]["metadata"]["original_context"] == "About boxes.\n\nBoxes grow."


def test_the_program_of_a_scene_runs_where_its_repository_is_not(tmp_path):
    """Against a small stand-in for manim: what matters is that no name is missing and the order is right."""
    code = rows(tmp_path, FAMILY, exclude=["base/*"])[1]["code"]
    stand_in = (
        "class Scene:\n    def add(self, *things): print(len(things))\n"
        "class MovingCameraScene(Scene): pass\nclass Thing:\n    def __init__(self, *a): pass\n"
        "Dot = Square = Thing\nWHITE = 1\nclass config: pass\n"
    )
    program = stand_in + code.replace("from manim import *", "").replace("import numpy as np", "class np:\n  zeros=int")
    done = subprocess.run(
        ["python3", "-c", program + "\nLeaf().construct()"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.stdout, done.stderr) == ("4\n", "")


@pytest.mark.parametrize(
    "head",
    [
        "from manim import *\nclass A(Scene):",
        "import manim\nclass A(manim.Scene):",
        "import manim as mn\nclass A(mn.ThreeDScene):",
        "from manim import Scene as S\nclass A(S):",
        "from manim import *\nS = ZoomedScene\nclass A(S):",
        "from manim_slides import Slide\nclass A(Slide):",
        "from manim_physics import *\nclass A(SpaceScene):",
        "from manim import *\nclass Mixin:\n    x = 1\nclass A(Mixin, Scene):",
    ],
)
def test_scenes_are_known_by_what_they_are_derived_from(tmp_path, head):
    code = programs(rows(tmp_path, {"a.py": head + "\n    def construct(self):\n        pass\n"}))["A"]
    assert head.split("\n")[0] in code


def test_classes_that_only_look_like_scenes_are_none(tmp_path):
    text = "from manim import *\nclass Scenery(VGroup): pass\nclass Loop(Loop2): pass\nclass Loop2(Loop): pass\n"
    assert rows(tmp_path, {"a.py": text}) == []


def test_two_scenes_of_one_name_are_kept_apart_by_their_origin(tmp_path):
    files = {"Day_04/Version1/scene.py": scene("Day4"), "Day_04/Version2/scene.py": scene("Day4", "Square()")}
    found = rows(
        tmp_path, files, path_pattern=r"Day_(?P<day>\d+)(?:/Version(?P<version>\d+))?", title="Advent, day {day}"
    )
    assert [row["metadata"]["origin"]["path"] for row in found] == sorted(files)
    facts = [(row["metadata"]["day"], row["metadata"]["version"], row["metadata"]["video_title"]) for row in found]
    assert facts == [(4, 1, "Advent, day 4"), (4, 2, "Advent, day 4")]


@pytest.mark.parametrize(
    "package", ["manimlib", "manimlib.imports", "big_ol_pile_of_manim_imports", "manim_imports_ext"]
)
def test_manimgl_is_rejected_by_name(tmp_path, package):
    text = scene("A").replace("from manim import *", f"from {package} import *")
    via = f"from helper import *\n{text[text.index('class') :]}"
    files = {"a.py": text, "b.py": via, "helper.py": f"from {package} import *\n"}
    assert codes(rows(tmp_path, files)) == ["manimgl", "manimgl"]


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"a.py": "class A(Scene):\n    def construct(self)\n"}, "file_not_python"),
        ({"a.py": b"class A(Scene):\n    x = 1\0\n"}, "file_not_python"),
        ({"a.py": "def f():\n    class A(Scene):\n        def construct(self):\n            pass\n"}, "nested_scene"),
        ({"a.py": "class A(Scene):\n    x = 1\n"}, "no_construct"),
        ({"pkg/a.py": "from .gone import x\n" + scene("A", "x")}, "missing_module"),
        ({"a.py": "from b import x\n" + scene("A", "x"), "b.py": "y = 1\n"}, "missing_name"),
        (
            {"a.py": "from b import f\nD = 1\n" + scene("A", "f(D)"), "b.py": "D = 2\ndef f(x):\n    return D\n"},
            "name_clash",
        ),
        (
            {"a.py": scene("A", "1").replace("self.add(1)", "import b\n        b.f()"), "b.py": "f = 1\n"},
            "inner_import",
        ),
    ],
)
def test_what_can_not_stand_alone_is_rejected_with_its_name_and_place(tmp_path, files, code):
    found = rows(tmp_path, files)
    assert codes(found) == [code]
    assert found[0].message.startswith(found[0].origin["path"])


def test_a_scene_too_deep_to_be_looked_through_costs_no_other(tmp_path):
    deep = scene("Deep").replace("(Scene)", f"({' + '.join(['Scene'] * 900)})")
    found = rows(tmp_path, {"a.py": deep, "b.py": scene(), "c.py": deep.replace("    ", "\t")})
    assert codes(found) == ["nested_too_deep", "Intro", "nested_too_deep"]


def test_pictures_and_sounds_follow_the_option(tmp_path):
    what = 'ImageMobject(f"images/old_man{i}.png", height=2), SVGMobject("a.svg").scale(2)'
    files = {"a.py": scene(what=what) + '        self.add_sound("b.wav")\n'}
    code = programs(rows(tmp_path, files))["Intro"]
    assert 'Text("old man", font_size=24)).scale_to_fit_height(2)' in code
    assert "ImageMobject" not in code and "add_sound" not in code
    assert codes(rows(tmp_path, files, assets="reject")) == ["needs_asset"]
    assert "ImageMobject" in programs(rows(tmp_path, files, assets="keep"))["Intro"]
    assert replace_assets("ImageMobject(np.uint8([[0]]))") == "ImageMobject(np.uint8([[0]]))"


@pytest.mark.parametrize(
    ("file", "shape"),
    [
        ("old_man.png", "VGroup(Circle("),
        ("portrait-2.jpg", "VGroup(Rectangle("),
        ("img/TownHouse.svg", "RoundedRectangle("),
        ("img/town house.svg", "VGroup(Triangle("),
        ("play_button.png", "RoundedRectangle(width=2.5, height=0.8"),
        ("integral.svg", "Square("),
        ("logo.svg", "Circle("),
        ("red-car.svg", "VGroup(RoundedRectangle("),
        ("background.png", "FullScreenRectangle("),
        ("teal.png", "Square(side_length=2.0, fill_opacity=1, color=TEAL)"),
        ("page3.png", "VGroup(Rectangle("),
        ("flowchart.svg", "VGroup(Square("),
        ("arrow.svg", "Arrow("),
        ("cat.png", "RoundedRectangle("),
        ("42.png", "RoundedRectangle("),
    ],
)
def test_the_name_of_a_picture_says_what_stands_for_it(file, shape):
    assert replace_assets(f"ImageMobject({file!r})").startswith(f"VGroup({shape}")


def test_what_stands_for_a_picture_consists_of_names_that_manim_has():
    known = {
        line.split()[0]
        for line in (ROOT / "stages/filter_quality/manim_names.txt").read_text("utf-8").split("\n")
        if line
    }
    for name in ("teal", *SHAPE_OF):
        shape, names = stand_in(name)
        compile(shape, name, "eval")
        assert names <= known, name


@pytest.mark.parametrize(
    ("head", "picture"),
    [
        ("import manim as mn\nclass A(mn.Scene):", "mn.SVGMobject"),
        ("from manim import Scene, SVGMobject\nclass A(Scene):", "SVGMobject"),
    ],
)
def test_what_stands_for_a_picture_is_imported_as_the_picture_was(tmp_path, head, picture):
    text = f"{head}\n    def construct(self):\n        print({picture}('cat.svg'))\n"
    code = programs(rows(tmp_path, {"a.py": text}))["A"]
    assert "SVGMobject" not in code
    shapes = [f"def {name}(*parts, **sizes): return '{name}'\n" for name in stand_in("cat")[1]]
    (tmp_path / "manim.py").write_text("class Scene: pass\n" + "".join(shapes))
    program = [sys.executable, "-c", f"{code}\nA().construct()"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("VGroup\n", "")


def test_small_texts_are_taken_into_the_program(tmp_path):
    files = {"d/a.py": scene(what='Text(open("x.txt").read())'), "d/x.txt": 'one\n"two"\n'}
    assert "Text('one\\n\"two\"\\n')" in programs(rows(tmp_path, files))["Intro"]
    assert codes(rows(tmp_path, {**files, "d/x.txt": "x" * 5000})) == ["needs_file"]
    text = '"""Doc."""\nfrom __future__ import annotations\nwith open("x") as f:\n    f.readlines()\n'
    new = inline_texts(text, lambda name: "a\n" if name == "x" else None)
    assert new.split("\n")[2:4] == ["import io", "with io.StringIO('a\\n') as f:"]
    assert inline_texts('open("x", "w").write("")', lambda name: "a") == 'open("x", "w").write("")'


SPOKEN = '''from manim import *
from manim_voiceover import VoiceoverScene
from manim_voiceover.services.gtts import GTTSService


class Talk(VoiceoverScene):
    def construct(self):
        self.set_speech_service(GTTSService())
        with self.voiceover(
            text="""one two three four five
            six <bookmark mark='A'/> seven"""
        ) as tracker:
            # Why not
            self.play(Create(Dot()), run_time=tracker.duration)
            self.wait_until_bookmark("A")
            self.add(Text("""a
                b"""))
        with self.voiceover(text="x"): self.wait()
'''


def test_a_spoken_scene_becomes_a_silent_one(tmp_path):
    code = programs(rows(tmp_path, {"a.py": SPOKEN}))["Talk"]
    assert code.split("\n")[3:] == [
        "class Talk(Scene):",
        "    def construct(self):",
        "        pass",
        "        # Why not",
        "        self.play(Create(Dot()), run_time=2.8)",
        "        self.wait(2.4)",
        '        self.add(Text("""a',
        '                b"""))',
        "        self.wait()",
        "",
    ]
    assert codes(rows(tmp_path, {"a.py": SPOKEN}, voiceover="reject")) == ["voiceover"]
    odd = SPOKEN.replace('text="x"):', 'text="x"), other():')
    assert codes(rows(tmp_path, {"a.py": odd})) == ["voiceover"]
    assert rewrite_voiceover("voiceover = (") == "voiceover = ("


SPOKEN_OTHERWISE = """import manim as mn
from manim import *
from manim_voiceover import VoiceoverScene as Talking, VoiceoverScene
from manim_voiceover.services.recorder import RecorderService

PAUSE = 2


class Base(VoiceoverScene, MovingCameraScene):
    def setup(self):
        super().setup()
        self.set_speech_service(
            RecorderService(silence_threshold=-40.0),
            create_subcaption=False,
        )

    def say(self, words):
        return Text(words)


class Talk(Base):
    def construct(self):
        for name in ("a", "b"):
            if name:
                with self.voiceover(text=f"This is the letter {name} of it") as trk:
                    self.play(Write(self.say(name)), run_time=trk.get_remaining_duration(buff=-1))
                    with self.voiceover("inner words") as inner:
                        self.wait(inner.duration + PAUSE)
            else:
                self.wait()
"""


def test_a_spoken_scene_of_another_shape_becomes_a_silent_one(tmp_path):
    found = rows(tmp_path, {"b.py": SPOKEN_OTHERWISE})
    (base, talk), code = found, found[1]["code"]
    assert (base.code, talk["metadata"]["scene"]) == ("no_construct", "Talk")
    compile(code, "talk", "exec")
    assert "oiceover" not in code and "speech" not in code and "Recorder" not in code
    assert "class Base(MovingCameraScene):" in code
    assert (
        "                self.play(Write(self.say(name)), run_time=1)\n                self.wait(1 + PAUSE)\n" in code
    )
    assert "            else:\n                self.wait()\n" in code
    assert "PAUSE = 2" in code


def test_files_are_kept_whole_on_wish(tmp_path):
    files = {
        "a.py": scene("A") + "\n\n" + scene("B"),
        "b.py": "from tools import *\n" + scene("C"),
        "tools.py": "x = 1\n",
    }
    found = rows(tmp_path, files, whole_files=True)
    assert (found[0]["code"], found[0]["metadata"]["scenes"]) == (files["a.py"], ["A", "B"])
    assert found[1].code == "local_import"


def test_a_name_is_found_in_the_second_module_that_gives_all_its_names(tmp_path):
    files = {
        "a.py": "from b import *\nfrom c import *\n" + scene("A", "first(x)"),
        "b.py": "from d import *\nconfig.frame_rate = 30\n",
        "c.py": "from b import *\nfrom e import *\ndef first(y):\n    return y + x\n",
        "d.py": "from b import *\n",
        "e.py": "x = 1\n",
    }
    code = programs(rows(tmp_path, files))["A"]
    assert code.index("x = 1") < code.index("def first") < code.index("class A")
    assert "config.frame_rate = 30" in code


def test_a_module_is_found_in_a_folder_that_the_program_adds_to_its_path(tmp_path):
    head = 'import sys\nsys.path.insert(1, "common/")\nfrom manim import *\nfrom tones import *\n\n\n'
    scene = "class Show(Scene):\n    def construct(self):\n        self.add(Dot(color=WARM))\n"
    files = {"2022/common/tones.py": "WARM = '#ff0000'\n", "2022/film/a.py": head + scene}
    (row,) = rows(tmp_path, files)
    assert "WARM = '#ff0000'" in row["code"]
    assert "tones" not in row["code"] and "sys" not in row["code"]


def test_a_scene_that_stands_under_a_condition_brings_the_condition(tmp_path):
    text = "from manim import *\nif True:\n    class A(Scene):\n        def construct(self):\n            pass\n"
    assert "if True:\n    class A(Scene)" in programs(rows(tmp_path, {"a.py": text}))["A"]


def test_a_module_of_the_repository_can_not_be_passed_around(tmp_path):
    files = {"a.py": "import b\n" + scene("A", "vars(b)"), "b.py": "x = 1\n"}
    assert codes(rows(tmp_path, files)) == ["module_object"]


def test_named_packages_stay_imports(tmp_path):
    files = {
        "pkg/__init__.py": "",
        "pkg/tool.py": "def f():\n    pass\n",
        "a.py": "from pkg.tool import f\n" + scene("A", "f()"),
    }
    assert "from pkg.tool import f" in programs(rows(tmp_path, files, keep_imports=["pkg"]))["A"]
    assert "def f" in programs(rows(tmp_path, files))["A"]


def test_a_table_of_files_is_a_repository(tmp_path):
    table = tmp_path / "files.jsonl"
    facts = {"repo": "o/n", "rev": "abc", "licence": "MIT"}
    table.write_text(json.dumps({**facts, "path": "a.py", "code": scene()}) + "\n")
    metadata = rows(tmp_path, path=str(table), youtube={"Intro": "https://example.org/v"})[0]["metadata"]
    assert metadata["origin"] == {"repo": "o/n", "revision": "abc", "path": "a.py", "line": 4}
    assert (metadata["licence"], metadata["youtube_url"]) == ("MIT", "https://example.org/v")
    table.write_text("{}\n")
    with pytest.raises(click.ClickException, match=r"files\.jsonl:1: not a row"):
        rows(tmp_path, path=str(table))


def test_prepare_writes_the_scenes_of_a_repository_and_the_same_bytes_again_offline(tmp_path):
    make_repository(
        tmp_path / "repo", {f"{name}.py": scene(name, f"Square({len(name)})") for name in ("A", "Bb", "Ccc")}
    )
    (tmp_path / "sources.yaml").write_text(f"mine:\n  type: github\n  url: {(tmp_path / 'repo').as_uri()}\n")
    command = ["prepare_data.py", "prepare", "--cache-dir", "cache", "--test-ratio", "0", "--near-threshold", "1"]
    run_script(*command, "--output-dir", "one", cwd=tmp_path, check=0, env={"PYTHONHASHSEED": "1"})
    (tmp_path / "repo").rename(tmp_path / "gone")
    run_script(*command, "--output-dir", "two", "--offline", cwd=tmp_path, check=0, env={"PYTHONHASHSEED": "2"})
    assert len(read_rows(tmp_path / "one" / "train.json")) == 3
    assert (tmp_path / "one" / "train.json").read_bytes() == (tmp_path / "two" / "train.json").read_bytes()
