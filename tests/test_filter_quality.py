"""The quality gate: every check finds its fault and spares its look-alikes; every row is kept or named."""

from __future__ import annotations

import ast
import json
import re
import time
import zipfile

import pytest
from conftest import ROOT, read_rows, record, run_script, write_rows

import filter_quality
from stages.filter_quality.call_checks import check_calls, wrong_calls
from stages.filter_quality.make_manim_calls import main as make_manim_calls
from stages.filter_quality.make_manim_names import main as make_manim_names
from stages.filter_quality.program import Program, manim_names
from stages.filter_quality.rules import CHECKS, WEIGHTS, RuleBook

STRICT = RuleBook("strict")
GOOD = """from manim import *

class Example(Scene):
    def construct(self):
        circle = Circle(color=RED)
        self.play(Create(circle))
"""


def checks_of(description="Show what today's lesson is about.", code=GOOD, **metadata):
    row = {"description": description, "code": code, "source": "test", "metadata": metadata}
    return [issue["check"] for issue in filter_quality.assess(row, STRICT.base)["issues"]]


def scene(body, head="from manim import *\n", bases="Scene"):
    lines = "\n".join("        " + line for line in body.split("\n"))
    return f"{head}\nclass Example({bases}):\n    def construct(self):\n{lines}\n"


FAULTY_PROGRAMS = {
    "one line": ("from manim import * class A(Scene): def construct(self): pass", "does_not_parse"),
    "return outside": (GOOD + "return 5\n", "does_not_parse"),
    "break outside": (GOOD + "break\n", "does_not_parse"),
    "null byte": (GOOD + "x = '\0'\n", "does_not_parse"),
    "too deep": (GOOD + "x = " + "-" * 100_000 + "1\n", "does_not_parse"),
    "too deep for its tree": (GOOD + "class B(a" + "[0]" * 2000 + "): pass\n", "does_not_parse"),
    "too many digits": (GOOD + "x = " + "9" * 5000 + "\n", "does_not_parse"),
    "short": ("from manim import *\nclass A(Scene): ...", "short_code"),
    "no class": ("from manim import *\ncircle = Circle(color=RED)\ncircle.shift(LEFT)\n", "no_scene_class"),
    "no scene": (GOOD.replace("(Scene)", "(VGroup)"), "no_scene_class"),
    "a class of the file named Scene": (GOOD.replace("class E", "class Scene: pass\n\nclass E"), "no_scene_class"),
    "a scene that only a call can reach": (
        "from manim import *\n\ndef make():\n    class Inner(Scene):\n        def construct(self):\n"
        "            self.add(Circle())\n",
        "no_scene_class",
    ),
    "pass": (scene("pass"), "empty_construct"),
    "dots": (scene('"""Later."""\n...'), "empty_construct"),
    "bare return": (scene("# a comment\nreturn"), "empty_construct"),
    "no import": (GOOD.removeprefix("from manim import *"), "no_manim_import"),
    "the word important": (GOOD.replace("from manim import *", "# it is important to import manim"), "no_manim_import"),
    "ManimGL": (GOOD.replace("manim", "manimlib"), "manimgl_code"),
    "an old name": (GOOD.replace("Create", "ShowCreation"), "manimgl_code"),
    "an old name, imported": (GOOD.replace("*", "Scene, Circle, RED, Create, TexMobject"), "manimgl_code"),
    "no construct": (GOOD.replace("construct", "build"), "no_construct"),
    "your code here": (scene("self.add(Circle())\n# Your code goes here"), "placeholder_comment"),
    "todo implement": (scene("self.add(Circle())\n# TODO: implement the rotation"), "placeholder_comment"),
    "rest of the code": (scene("self.add(Circle())\n# ... rest of the code"), "placeholder_comment"),
    "dots for code": (scene("self.add(Circle())\n..."), "ellipsis_body"),
    "dots for a helper": (scene("self.add(helper())") + "\ndef helper(): ...\n", "ellipsis_body"),
    "a name of nobody": (scene("self.add(Circle(color=CYAN))"), "undefined_name"),
    "a name of another function": (scene("self.add(circle)\ndef f():\n    circle = Circle()"), "undefined_name"),
    "not asked for": (GOOD.replace("*", "Scene, Circle, RED"), "undefined_name"),
    "not in manim": (GOOD.replace("*", "Scene, Circle, RED, Create, Circel"), "undefined_name"),
    "a global that nothing is assigned to": (
        scene("self.add(box)\nhelper()") + "\ndef helper():\n    global box\n    print(box)\n",
        "undefined_name",
    ),
    "nothing to see": (scene("self.wait(2)\nself.camera.background_color = RED"), "no_mobject"),
    "unknown escape": (scene(r'self.add(MathTex("\epsilon"), Circle())'), "bad_escape"),
    "a form feed for TeX": (scene(r'self.add(MathTex("\frac{1}{2}"), Circle())'), "bad_escape"),
    "a shell": (scene('self.add(Circle())\nos.system("ls")', "import os\nfrom manim import *\n"), "dangerous_call"),
    "a hidden shell": (
        scene(
            "self.add(Circle())\nquiet(['ls'])", "from subprocess import check_output as quiet\nfrom manim import *\n"
        ),
        "dangerous_call",
    ),
    "a file to be written": (scene('self.add(Circle())\nopen("a.txt", mode="w").write("a")'), "dangerous_call"),
    "a file to be deleted": (
        scene('self.add(Circle())\nPath("a").unlink()', "from pathlib import Path\nfrom manim import *\n"),
        "dangerous_call",
    ),
    "text that is run": (scene("self.add(eval('Circle()'))"), "dangerous_call"),
    "the network": (
        scene("self.add(Circle())\nu.urlopen('a')", "import urllib.request as u\nfrom manim import *\n"),
        "dangerous_call",
    ),
    "an argument that is gone": (scene('self.add(Code(code="x = 1", language="python"))'), "wrong_argument"),
    "a misspelt argument": (scene("self.add(Circle(radios=2))"), "wrong_argument"),
    "a misspelt argument of a method": (scene("self.add(Circle().next_to(ORIGIN, bufff=2))"), "wrong_argument"),
    "too many arguments": (scene("self.add(Square(1, 2, 3))"), "wrong_argument"),
    "an animation with an old argument": (scene("self.play(FadeIn(Circle(), direction=UP))"), "wrong_argument"),
    "a misspelt method": (scene("c = Circle()\nc.shfit(UP)\nself.add(c)"), "unknown_method"),
    "a misspelt method of an animation": (
        scene("c = Circle()\nself.play(c.animate.shift(UP).rotatee(1))"),
        "unknown_method",
    ),
    "a misspelt method of the scene": (scene("self.add(Circle())\nself.wiat()"), "unknown_method"),
    "a tab for TeX": (scene(r'self.add(MathTex("2 \times 2"), Circle())'), "bad_escape"),
}
SOUND_PROGRAMS = {
    "plain": GOOD,
    "an argument that a parent takes": scene("self.add(Dot(stroke_opacity=0.5), Square(fill_color=RED))"),
    "arguments in a star": scene("sizes = [1]\nself.add(Circle(*sizes, **{'color': RED}))"),
    "any getter": scene("c = Circle()\nself.add(c.get_weight())"),
    "a method of its own class": scene("self.add(Wheel().turn())")
    + "\nclass Wheel(Circle):\n    def turn(self):\n        return self\n",
    "a variable that holds something else later": scene("c = Circle()\nc = c.neighbours\nself.add(c.first())"),
    "a class of its own with a name of manim": scene("self.add(Circle(), Code(code='x'))")
    + "\nclass Code(VGroup):\n    def __init__(self, code):\n        super().__init__()\n",
    "an attribute that another method sets": scene("self.draw()\nself.add(self.thing.part)")
    + "    def draw(self):\n        self.thing = Circle()\n        self.thing.part = Dot()\n",
    "a function of the same name as a method": scene("self.add(Circle().align(weight=2))")
    + "\ndef align(weight):\n    return weight\n",
    "CRLF": GOOD.replace("\n", "\r\n"),
    "tabs": GOOD.replace("    ", "\t"),
    "named module": (
        "import manim\n\nclass A(manim.Scene):\n    def construct(self):\n        self.add(manim.Circle())\n"
    ),
    "short module name": (
        "import numpy as np, manim as mn\n\nclass A(mn.ThreeDScene):\n    def construct(self):\n"
        "        self.add(mn.Circle().shift(np.array([1, 0, 0])))\n"
    ),
    "alias by import": GOOD.replace("*", "Scene as S, Circle, Create, RED").replace("(Scene)", "(S)"),
    "alias by assignment": GOOD.replace("class", "Base = MovingCameraScene\n\nclass").replace("(Scene)", "(Base)"),
    "several levels": (
        "from manim import *\n\nclass A(Scene):\n    def draw(self):\n        self.add(Circle())\n\nclass B(A):\n"
        "    pass\n\nclass C(B):\n    def construct(self):\n        self.draw()\n"
    ),
    "construct of a parent": (
        "from manim import *\n\nclass A(Scene):\n    def construct(self):\n        self.add(Circle())\n\n"
        "class B(A):\n    pass\n"
    ),
    "an empty construct beside a full one": GOOD + "\nclass Base(Scene):\n    def construct(self):\n        pass\n",
    "bases on several lines": GOOD.replace("(Scene)", "(\n    MovingCameraScene,  # it zooms\n    Scene,\n)"),
    "a line separator that the parser does not count": GOOD.replace(
        "class", "text = 'a\x0c\x1c\u2028b'\n\nclass"
    ).replace("(Scene)", "(ThreeDScene)"),
    "a keyword in the header": GOOD.replace("(Scene)", "(Scene, metaclass=type)"),
    "a scene of another module": (
        "from manim import *\nfrom my_tools import MyScene\n\n"
        "class A(MyScene):\n    def construct(self):\n        self.go()\n"
    ),
    "a vector scene": scene("self.apply_matrix([[1, 1], [0, 1]])", bases="LinearTransformationScene"),
    "mobjects of a library": scene(
        "self.add(NeuralNetwork())", "from manim import *\nfrom manim_ml import NeuralNetwork\n"
    ),
    "star import of an unknown module": scene(
        "self.add(Pendulum())", "from manim import *\nfrom manim_physics import *\n"
    ),
    "star import of math": scene("self.add(Circle(radius=sqrt(2)))", "from manim import *\nfrom math import *\n"),
    "a global of a function": (
        "from manim import *\n\ndef prepare():\n    global size\n    size = 2\n\n"
        "class A(Scene):\n    def construct(self):\n        prepare()\n        self.add(Circle(radius=size))\n"
    ),
    "a scene that a function binds": (
        "from manim import *\n\ndef make():\n    global A\n\n    class A(Scene):\n"
        "        def construct(self):\n            self.add(Circle())\n\nmake()\n"
    ),
    "a scene whose base a method binds": (
        "from manim import *\n\nclass Maker:\n    def make(self):\n        global Base\n\n"
        "        class Base(Scene):\n            def draw(self):\n                self.add(Circle())\n\n"
        "Maker().make()\n\nclass A(Base):\n    def construct(self):\n        self.draw()\n"
    ),
    "names of every scope": scene(
        "import random\nfor i, (a, b) in enumerate([(1, 2)]):\n    f = lambda x, *y, **z: x + i\n"
        "with open(__file__) as file, tempconfig({}) as c: pass\ntry: pass\nexcept ValueError as error: print(error)\n"
        "if (n := len([q for q in range(a) if q > b])): pass\nmatch n:\n    case [first, *rest]: print(first, rest)\n"
        "self.add(Circle(radius=random.random()))"
    ),
    "raw TeX": scene(r'self.add(MathTex(r"\frac{1}{2} \times \epsilon"), Circle())'),
    "doubled backslashes": scene(r'self.add(MathTex("\\frac{1}{2} \\times \\epsilon"), Circle())'),
    "a newline before a word": scene(r'self.add(Text("one\nutter\tword"), Circle())'),
    "code shown on the screen": scene("self.add(Circle(), Text('# Your code here'))"),
    "dots that Python means": GOOD + "\nclass Fault(Exception): ...\n\nx: tuple[int, ...] = (1,)\n",
    "a comment about later": scene("self.add(Circle())\n# TODO: a nicer colour"),
    "plain break and return": scene("for i in range(3):\n    if i: break\nself.add(Circle())\nreturn None"),
}


@pytest.mark.parametrize(("code", "check"), FAULTY_PROGRAMS.values(), ids=FAULTY_PROGRAMS.keys())
def test_a_faulty_program_is_found_by_the_right_check(code, check):
    assert check in checks_of(code=code)


@pytest.mark.parametrize("code", SOUND_PROGRAMS.values(), ids=SOUND_PROGRAMS.keys())
def test_a_sound_program_has_no_issue(code):
    ast.parse(code)
    assert checks_of(code=code) == []


HOSTILE_TEXTS = {
    "blanks in a comment": "#" + " " * 50_000 + "\n",
    "many signs": "#" * 50_000 + "\n",
    "many imports": "import " + "a,  " * 5_000 + "b\n",
    "many brackets": "[add " * 10_000,
    "dots": "..." + " " * 50_000 + "x = 1\n",
    "colons": "x = {" + "1: \t" * 5_000 + "1}\n",
    "raw strings": "# r''' r\"\"\" " * 5_000 + r"\frac" + "\n",
    "shapes": "form of " * 10_000 + "circle",
}


@pytest.mark.parametrize("text", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS.keys())
def test_no_text_makes_a_check_slow(text):
    began = time.process_time()
    checks_of(code=text + GOOD.replace("from manim import *", ""))
    checks_of(description=text)
    checks_of(code=text, kind="qa")
    assert time.process_time() - began < 1


def test_a_check_that_finds_two_faults_counts_once():
    code = GOOD.replace("from manim import *", "import manimlib\nfrom manim import *").replace("Create", "ShowCreation")
    assert checks_of(code=code) == ["manimgl_code"]


@pytest.mark.parametrize("name", ["pass", "a name of nobody", "unknown escape", "too deep for its tree"])
def test_a_program_is_never_run_and_never_warns(name, recwarn):
    checks_of(code="raise SystemExit(9)\n" + FAULTY_PROGRAMS[name][0])
    assert not recwarn


def test_an_issue_names_the_line():
    row = record(code=scene("self.add(Circle(),\n         Dot(color=CYAN))"))
    (issue,) = filter_quality.assess(row, STRICT.base)["issues"]
    assert issue["line"] == row["code"].split("\n").index("                 Dot(color=CYAN))") + 1
    assert "CYAN" in issue["message"]


@pytest.mark.parametrize(
    ("description", "check"),
    [
        ("", "empty_description"),
        ("Animate it.", "generic_description"),
        ("Create a simple example animation with Manim.", "generic_description"),
        ("TODO: describe this scene.", "placeholder_description"),
        ("[INSERT DESCRIPTION HERE]", "placeholder_description"),
        ("Lorem ipsum dolor sit amet.", "placeholder_description"),
        ("N/A", "placeholder_description"),
        ("Draw a red circle that moves right and a big red square beside it.", "missing_shape"),
        ("draw a red circle on the screen.", "no_capital_letter"),
        ("Draw a red circle on the screen", "no_end_punctuation"),
    ],
)
def test_a_poor_description_is_found_by_the_right_check(description, check):
    assert checks_of(description) == [check]


@pytest.mark.parametrize(
    "description",
    [
        "Show a TODO list with a circle for each entry.",
        "Draw the square root of a circle's area.",
        "Place four circles in a square formation.",
        "Write [a, b] beside a red circle.",
        "在屏幕上画 一个 红色 圆圈。",
        'Show a circle named "radius"',
    ],
)
def test_a_sound_description_has_no_issue(description):
    assert checks_of(description) == []


def test_texts_that_are_no_programs_meet_only_the_checks_of_text():
    assert checks_of("why", "Because light bends when it enters glass.", kind="qa") == []
    assert checks_of("Why?", "Yes.", kind="qa") == ["short_text"]
    assert checks_of("Why?", "[TODO]", kind="persona") == ["placeholder_text"]
    assert checks_of("", "A chunk of a paper, long enough.", kind="document", needs_description=True) == []
    assert checks_of("", "An answer to a question of nobody.", kind="qa") == ["empty_description"]


def test_the_score_is_one_minus_the_weights_and_zero_with_a_critical_issue():
    rules = STRICT.base
    assert filter_quality.score([], rules) == 1
    assert filter_quality.score(["note"], rules) == 1
    assert filter_quality.score(["high"], rules) == 0.7
    assert filter_quality.score(["medium", "medium"], rules) == 0.8
    assert filter_quality.score(["medium", "low"], rules) == 0.88
    assert filter_quality.score(["low", "critical"], rules) == 0
    assert filter_quality.score(["high"] * 5, rules) == 0


def test_lenient_lets_pass_what_waits_for_a_description_and_counts_it():
    row = record(description="", metadata={"needs_description": True})
    assert filter_quality.gate(row, STRICT, 0.8).code == "needs_description"
    kept = filter_quality.gate(row, RuleBook("lenient"), 0.8)
    assert kept["metadata"]["quality"]["score"] == 1
    assert [issue["severity"] for issue in kept["metadata"]["quality"]["issues"]] == ["note"]


def test_a_reject_is_named_after_its_worst_issue_or_after_the_sum():
    worst = filter_quality.gate(record(code=scene("self.add(Circle(color=CYAN))")), STRICT, 0.8)
    assert worst.code == "undefined_name"
    assert "CYAN" in worst.message
    summed = filter_quality.gate(record(description="a square", code=scene(r'self.add(Text("\d"))')), STRICT, 0.8)
    assert summed.code == "below_min_quality"
    assert "missing_shape" in summed.message


def test_every_check_of_the_table_can_be_found():
    found = {check for _, check in FAULTY_PROGRAMS.values()}
    found |= {"empty_description", "needs_description", "placeholder_description", "generic_description"}
    found |= {
        "missing_shape",
        "no_capital_letter",
        "no_end_punctuation",
        "short_text",
        "placeholder_text",
        "empty_text",
    }
    found |= {"secret", "licence_not_allowed", "personal_data", "too_long"}  # tests/test_filter_guard.py
    found |= {"mismatch", "conflicting_descriptions", "judged_mismatch"}  # tests/test_filter_pairs.py
    assert found == set(CHECKS)
    assert set(CHECKS.values()) <= {"critical", *WEIGHTS["strict"]}
    assert checks_of("Why?", " ", kind="qa") == ["empty_text"]


def test_the_manual_lists_every_check_with_its_severity_and_every_weight():
    rows = [line.split("|") for line in (ROOT / "docs" / "pipeline.md").read_text("utf-8").split("\n") if "|" in line]
    listed = {
        name.strip("` "): row[2].split()[0].rstrip(";") for row in rows if len(row) == 5 for name in row[1].split(",")
    }
    assert {name: listed.get(name) for name in CHECKS} == CHECKS
    for severity, weight in WEIGHTS["strict"].items():
        cells = [[cell.strip() for cell in row] for row in rows]
        assert ["", severity, str(weight), str(WEIGHTS["lenient"][severity])] in [row[:4] for row in cells]


def test_the_table_of_names_knows_what_a_star_import_gives():
    assert {"Circle", "RED", "UP", "np", "config", "smooth", "rate_functions", "Create"} <= manim_names()
    assert not {"ShowCreation", "CYAN", "_config", "Any", "GraphScene"} & manim_names()
    assert {"Circle", "Axes", "Polygon", "MathTex"} <= manim_names("mobject")
    assert {"Create", "Wait"} <= manim_names("animation")
    assert manim_names("scene") >= {"Scene", "ThreeDScene", "LinearTransformationScene"}


def test_the_table_of_names_is_made_from_the_source_of_a_wheel(tmp_path):
    from click.testing import CliRunner

    sources = {
        "manim/__init__.py": "from ._config import *\nfrom .shapes.round import *\nfrom .colors import *\n"
        "import numpy as np\n",
        "manim/_config/__init__.py": "__all__ = ['config']\nconfig = hidden = 1\n",
        "manim/shapes/__init__.py": "",
        "manim/shapes/round.py": "from ..base import Mobject\n__all__ = ['Dot', 'Circle']\n"
        "class Circle(Mobject): pass\nclass Dot(Circle): pass\nclass Secret(Circle): pass\n",
        "manim/base.py": "class Mobject: pass\n",
        "manim/colors.py": "RED: str = 'r'\n_private = 1\nif RED:\n    BLUE = GREEN = 'b'\n",
    }
    wheel = tmp_path / "manim-9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in sources.items():
            archive.writestr(name, text)
    header, *names = CliRunner().invoke(make_manim_names, [str(wheel)]).stdout.splitlines()
    assert "Manim 9.9;" in header
    expected = {"config other", "Circle mobject", "Dot mobject", "RED other", "BLUE other", "GREEN other", "np other"}
    assert set(names) == expected | {"shapes other", "base other", "colors other"}


def test_the_table_of_calls_is_made_from_the_source_of_a_wheel(tmp_path):
    from click.testing import CliRunner

    sources = {
        "manim/__init__.py": "from .base import *\n",
        "manim/base.py": """
class Mobject:
    weight: int = 1
    def __init__(self, color, *, name=None):
        self.color = color
    def shift(self, *vectors): ...
class Dot(Mobject):
    def __init__(self, point=0, **kwargs):
        super().__init__(**kwargs)
    def shift(self, *vectors, slow=False): ...
class Small(Dot): pass
class Loose(Mobject):
    def __init__(self, **kwargs):
        self.more = dict(kwargs)
        super().__init__(**kwargs)
class Far(elsewhere.Thing): pass
def draw(a, b=1): ...
@wrapped
def paint(a): ...
""",
    }
    wheel = tmp_path / "manim-9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in sources.items():
            archive.writestr(name, text)
    done = CliRunner().invoke(make_manim_calls, [str(wheel)])
    assert done.stdout.splitlines()[1:] == [
        "call Dot 1 color name point",
        "call Far * *",
        "call Loose 0 *",
        "call Mobject 1 color name",
        "call Small 1 color name point",
        "call draw 2 a b",
        "call paint * *",
        "method shift * slow",
        "attribute color",
        "attribute more",
        "attribute shift",
        "attribute weight",
    ]


def test_scopes_and_tree_agree_about_classes_and_names():
    for code in SOUND_PROGRAMS.values():
        program, tree = Program(code), ast.parse(code)
        assert list(program.classes) == [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        assert program.used <= named


# A wrong call in every dress that Python allows, and right ones that look wrong: `{}` is a good or a bad keyword.
DRESSES = {
    "plain": "self.add(Circle({}=1))",
    "spread out": "self.add(Circle(  # round\n    {}  =\n    1,\n))",
    "blanks": "self.add(Circle  ( {} = 1 ))",
    "a comment before the bracket": "self.add((Circle  # round\n  ({}=1)))",
    "a line that goes on": "self.add(Circle \\\n  ({}=1))",
    "in a string with values": "self.add(Text(f'{{Circle({}=1)}}'))",
    "in a string with values in values": "self.add(Text(f'{{1:{{Circle({}=1)}}}}'))",
    "in a lambda": "self.add(always_redraw(lambda a=1: Circle({}=a)))",
    "behind text": 'self.add(Text(\'Circle(x=1)\'), Text(r"""it\'s"""), Circle({}=1))',
    "twice": "self.add(Circle({0}=1), [Circle({0}=2)])",
    "too many": "self.add(Square(1, 2, 3, {}=1))",
    "too many, by a lambda": "self.add(Square(lambda color=1: 2, 3, {}=1))",
    "beside others": "self.add(Circle(*[1], **dict(x=1), {}=1))",
    "a class of the same name": "class Circle:\n    pass\nself.add(Circle({}=1))",
    "a variable of the same name": "Circle = Dot\nself.add(Circle({}=1))",
    "an attribute of the same name": "self.Circle, self.x = 1, 2\nself.add(Circle({}=1))",
    "a pattern": "match self:\n    case Circle({}=1):\n        pass\nself.add(Dot())",
    "a method": "c = Circle()\nself.add(c.next_to({}=1))",
    "a method of many": "self.add(Circle().scale(2).next_to({}=1))",
    "a method of animate": "c = Circle()\nself.play(c.animate.scale(2).next_to({}=1))",
    "an attribute": "self.add(Circle())\nself.{}",
    "an attribute of a variable": "c = Circle()\nself.add(c.{})",
    "an attribute of the camera": "self.add(Circle())\nself.camera.{}",
    "an attribute behind a blank": "c = Circle()\nself.add(c . {})",
    "an attribute that is given": "c = Circle()\nc.{0}, c.x = 1, 2\nself.add(c.{0})",
    "an attribute of a module": "self.add(Circle(np.{}))",
    "another alphabet": "größe = Circle()\nself.add(größe.{})",
    "the letters of another width": "self.add(Ｃircle({}=1))",
}


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES.keys())
@pytest.mark.parametrize("name", ["color", "colour"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_a_glance_at_the_tokens_says_what_the_tree_says(dress, name, newline):
    code = scene(dress.format(name)).replace("\n", newline)
    ast.parse(code)
    assert list(check_calls(Program(code))) == list(wrong_calls(Program(code)))


def test_a_glance_at_all_programs_of_these_tests_says_what_the_tree_says():
    codes = [code for code, check in FAULTY_PROGRAMS.values() if check != "does_not_parse"] + [*SOUND_PROGRAMS.values()]
    for code in codes:
        for changed in {
            code,
            *(code[: match.end()] + "z" + code[match.end() :] for match in re.finditer(r"\w+", code)),
        }:
            try:
                program = Program(changed)
            except SyntaxError:
                continue
            if found := list(check_calls(program)):
                assert found == list(wrong_calls(program))
            elif program.star_imports == ["manim"]:
                assert list(wrong_calls(program)) == []


def rows_of_every_kind():
    rows = [record(number) for number in range(70)]
    rows += [record(code=code) for code, _ in FAULTY_PROGRAMS.values() if "\0" not in code]
    rows += [record(description="", metadata={"needs_description": True, "licence": "MIT"}), b"{not json"]
    rows += [record(description=None), {"unheard": "of"}]
    rows += [{"question": "Why is the sky blue?", "answer": "Because air scatters blue light most."}]
    return rows


def test_every_row_is_kept_in_order_or_rejected_by_name(tmp_path):
    source = write_rows(tmp_path / "in.json", rows_of_every_kind())
    run = run_script("filter_quality.py", "--input", source, "--output", "out.json", cwd=tmp_path, check=0)
    kept, rejected = read_rows(tmp_path / "out.json"), read_rows(tmp_path / "out.rejects.jsonl")
    assert len(kept) + len(rejected) == len(rows_of_every_kind())
    assert f"{len(rows_of_every_kind())} in, {len(kept)} kept, {len(rejected)} rejected" in run.err
    assert [row["code"] for row in kept[:70]] == [record(number)["code"] for number in range(70)]
    assert all(row["metadata"]["quality"] == {"score": 1.0, "issues": []} for row in kept[:70])
    assert {row["metadata"]["error"]["code"] for row in rejected} <= {
        *CHECKS,
        "not_json",
        "invalid_record",
        "unknown_shape",
    }
    run_script("schema", "audit", "out.ledger.json", cwd=tmp_path, check=0)
    run_script("schema", "validate", "out.json", "out.rejects.jsonl", cwd=tmp_path, check=0)


def test_workers_write_the_same_bytes(tmp_path):
    source = write_rows(tmp_path / "in.json", rows_of_every_kind())
    for name, extra in (("a", []), ("b", ["--workers", "3"])):
        options = ["--input", source, "--output", f"{name}/out.json", "--report", f"{name}/report.json", *extra]
        run_script("filter_quality.py", *options, cwd=tmp_path, check=0, env={"PYTHONHASHSEED": str(len(extra))})
    for name in ("out.json", "out.rejects.jsonl", "report.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_tag_only_keeps_every_row_and_all_other_metadata(tmp_path):
    metadata = {"z": 1, "kind": "code", "id": "one", "a": {"deep": [1, 2.5, None, "ü"]}, "quality": {"old": 1}}
    rows = [record(code="print(1)", metadata=metadata), record(metadata={"id": "two"})]
    source = write_rows(tmp_path / "in.json", rows)
    run_script("filter_quality.py", "--input", source, "--output", "out.json", "--tag-only", cwd=tmp_path, check=0)
    first, second = read_rows(tmp_path / "out.json")
    assert first["metadata"]["quality"]["score"] == 0
    assert second["metadata"]["quality"] == {"score": 1.0, "issues": []}
    own = {"quality", "lineage"}
    assert {k: v for k, v in first["metadata"].items() if k not in own} == {
        k: v for k, v in metadata.items() if k not in own
    }
    assert [key for key in first["metadata"] if key not in own] == [key for key in metadata if key not in own]


def test_rejects_can_be_filtered_again_with_other_rules(tmp_path):
    source = write_rows(tmp_path / "in.json", [record(), record(code=scene("self.add(Circle(color=CYAN))"))])
    run_script("filter_quality.py", "--input", source, "--output", "out.json", cwd=tmp_path, check=0)
    (tmp_path / "rules.yaml").write_text("checks: {undefined_name: medium}\n")
    again = ["--input", "out.rejects.jsonl", "--output", "again.json", "--quality-config", "rules.yaml"]
    run_script("filter_quality.py", *again, cwd=tmp_path, check=0)
    (row,) = read_rows(tmp_path / "again.json")
    assert row["metadata"]["quality"]["score"] == 0.9
    assert "error" not in row["metadata"]


def test_the_rules_of_one_source_leave_the_others_alone(tmp_path):
    rules = "sources:\n  poor:\n    checks: {undefined_name: ignore}\n    limits: {description_words: 30}\n"
    (tmp_path / "rules.yaml").write_text(rules)
    code = scene("self.add(Circle(color=CYAN))")
    rows = [record(code=code, source="poor"), record(code=code, source="rich")]
    source = write_rows(tmp_path / "in.json", rows)
    options = ["--input", source, "--output", "out.json", "--quality-config", "rules.yaml"]
    run_script("filter_quality.py", *options, cwd=tmp_path, check=0)
    (kept,), (rejected,) = read_rows(tmp_path / "out.json"), read_rows(tmp_path / "out.rejects.jsonl")
    assert [issue["check"] for issue in kept["metadata"]["quality"]["issues"]] == ["generic_description"]
    assert (kept["source"], rejected["source"]) == ("poor", "rich")


def test_the_report_counts_every_row_and_shows_examples(tmp_path):
    source = write_rows(tmp_path / "in.json", rows_of_every_kind())
    options = ["--input", source, "--output", "out.json", "--report", "reports/quality.json"]
    run_script("filter_quality.py", *options, "--max-reject-rate", "0.1", cwd=tmp_path, check=3)
    report = json.loads((tmp_path / "reports" / "quality.json").read_bytes())
    ledger = json.loads((tmp_path / "out.ledger.json").read_bytes())
    assert report["rows"] == {key: ledger["counts"][key] for key in ("in", "kept", "rejected")}
    assert report["unreadable"] == {"invalid_record": 1, "not_json": 1, "unknown_shape": 1}
    assert sum(report["scores"].values()) == ledger["counts"]["in"] - 3
    assert report["checks"]["needs_description"]["rejected"] == 1
    example = report["checks"]["undefined_name"]["examples"][0]
    assert example["fate"] == "rejected"
    assert "nothing defines CYAN" in example["message"]
    assert len(report["checks"]["does_not_parse"]["examples"]) == 5
    assert report["sources"]["test"]["checks"]["does_not_parse"] > 5


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        ("chekcs: {}\n", "unknown key 'chekcs'; did you mean 'checks'?"),
        ("checks: {undefined_names: low}\n", "checks: unknown key 'undefined_names'; did you mean 'undefined_name'?"),
        ("checks: {undefined_name: sever}\n", "'sever' is none of critical, high, medium, low, note, ignore"),
        ("weights: {high: 2}\n", "weights: high: 2 is not a number from 0 to 1"),
        ("limits: {code_characters: many}\n", "limits: code_characters: 'many' is not a whole number"),
        ("sources: {a: {check: {}}}\n", "sources: a: unknown key 'check'; did you mean 'checks'?"),
        ("sources: [a]\n", "is not a mapping of source names"),
        ("- a\n", "is not a mapping"),
        ("a: [\n", "not YAML"),
    ],
)
def test_a_wrong_rules_file_is_refused_with_the_way_out(tmp_path, rules, complaint):
    (tmp_path / "rules.yaml").write_text(rules)
    source = write_rows(tmp_path / "in.json", [record()])
    options = ["--input", source, "--output", "out.json", "--quality-config", "rules.yaml"]
    run = run_script("filter_quality.py", *options, cwd=tmp_path, check=2)
    assert complaint in run.err.replace("\n", " ")
    assert not (tmp_path / "out.json").exists()


def test_options_that_would_do_nothing_are_refused(tmp_path):
    source = write_rows(tmp_path / "in.json", [record()])
    both = ["--input", source, "--output", "out.json", "--tag-only", "--min-quality", "0.8"]
    assert "--min-quality would do nothing" in run_script("filter_quality.py", *both, cwd=tmp_path, check=2).err
    piped = ["--input", source, "--output", "-", "--report", "report.json"]
    assert (
        "--report is made from the written files" in run_script("filter_quality.py", *piped, cwd=tmp_path, check=2).err
    )
    same = ["--input", source, "--output", "out.json", "--report", "out.ledger.json"]
    assert "already names this file" in run_script("filter_quality.py", *same, cwd=tmp_path, check=2).err


def test_it_works_in_a_pipe(tmp_path):
    rows = write_rows(tmp_path / "in.json", [record(), record(code="x")]).read_bytes()
    run = run_script("filter_quality.py", "--input", "-", "--output", "-", cwd=tmp_path, stdin=rows, check=0)
    assert json.loads(run.out)["metadata"]["quality"]["score"] == 1
    assert "1 kept, 1 rejected" in run.err
