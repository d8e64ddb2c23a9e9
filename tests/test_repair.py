"""The repairs of stage 1: each mends what it is for, and none can break a program."""

from __future__ import annotations

import ast
import json
import re
import warnings

import pytest
from conftest import read_rows, record, run_script, write_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import schema
from extractors._voiceover import rewrite_voiceover
from stages.prepare_data import repair
from stages.prepare_data.repair_one_line import relayout
from stages.prepare_data.repair_tokens import lex, meaning

STEPS = repair.all_steps(rewrite_voiceover)
DEFAULT = repair.choose(STEPS, (), ())
HEAD = "from manim import *\n\n\nclass Show(Scene):\n    def construct(self):\n"


def parse(code):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def same(one, other):
    return ast.dump(parse(one)) == ast.dump(parse(other))


def parses(code):
    try:
        parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def mend(code, *names):
    """The code after the default steps, or after the named ones alone."""
    return repair.mend(code, [step for step in STEPS if step.name in names] if names else DEFAULT)


def body(*lines, head=HEAD):
    return head + "".join(f"        {line}\n" for line in lines)


PROGRAM = body("dot = Dot()", "self.add(dot)")


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{PROGRAM}```",
        f"```py\n{PROGRAM}```\n",
        f"```Python3\n{PROGRAM}\n```",
        f"~~~\n{PROGRAM}~~~",
        f"~~~python\n{PROGRAM}~~~\n",
        f"Here is the scene you asked for:\n\n```python\n{PROGRAM}```\n\nRun it with `manim -pql`.",
        f"```\n```python\n{PROGRAM}```\n```",
        f"```python\n{PROGRAM}",
        f"{PROGRAM}```",
        f"````markdown\n```python\n{PROGRAM}```\n````",
        f"First install it:\n```bash\npip install manim\n```\nthen\n```python\n{PROGRAM}```",
    ],
)
def test_a_program_comes_out_of_its_fence(text):
    code, names = mend(text)
    assert same(code, PROGRAM)
    assert names[0] == "fences"


@pytest.mark.parametrize("mark", ["```", "~~~"])
def test_a_fence_in_a_string_stays(mark):
    code = body('note = """', f"{mark}python", "x = 1", f"{mark}", '"""', "self.add(Text(note))")
    assert mend(code) == (code, [])
    wrapped, _ = mend(f"```python\n{code}```")
    assert same(wrapped, code)


@pytest.mark.parametrize(
    "text",
    [
        f"<s>{PROGRAM}</s>",
        f"<s> {PROGRAM}",
        f"{PROGRAM}<|endoftext|>",
        f"{PROGRAM}\n<|end|>\n",
        f"<|assistant|>\n{PROGRAM}<|im_end|>",
        f"{PROGRAM}<|endoftext|>And now a story about a fox",
        f"{PROGRAM.rstrip()}...",
        f"```python\n{PROGRAM}```<|endoftext|>",
    ],
)
def test_marks_of_a_model_go(text):
    assert same(mend(text)[0], PROGRAM)


def test_marks_of_a_model_in_a_string_or_a_comparison_stay():
    code = body('label = Text("<s> and </s> and <|endoftext|>...")', "close = 1 <s> 2", "self.add(label)")
    assert mend(code) == (code, [])
    mended, names = mend(f"{code}</s>")
    assert same(mended, code)
    assert names == ["artefacts"]


def test_a_body_of_three_dots_is_no_artefact():
    assert mend("from manim import *\nclass Later(Scene):\n    ...\n")[1] == []


@pytest.mark.parametrize(
    "text",
    [
        "\\n" + PROGRAM,
        PROGRAM.replace("\n", "\\n"),
        json.dumps(body('name = "a\\nb"', "self.add(Text(name))"))[1:-1],
    ],
)
def test_line_ends_that_were_written_out_are_line_ends_again(text):
    code, names = mend(text)
    assert names == ["literal_newlines"]
    assert parse(code).body[1].name == "Show"


def test_line_ends_in_strings_and_behind_comments_are_told_apart():
    code = body("# the label", 'label = Text("two\\nlines")', "self.add(label)")
    flat = code.replace("two\\nlines", "two@lines").replace("\n", "\\n").replace("two@lines", "two\\nlines")
    assert same(mend(flat)[0], code)


@pytest.mark.parametrize("end", ["\r\n", "\r", "\r\r\n", "\n\r"])
@pytest.mark.parametrize(
    "text", ['a = """1{}2"""{}if a:{}    b = 3{}', "a = 'x{}y'{}", "a = 1 + \\{}2{}", "a = ({}1){}b{} 2"]
)
def test_a_program_says_the_same_with_any_line_ends_as_python_reads_it(text, end):
    code = text.replace("{}", end)
    told = [meaning(version) for version in (code, schema.as_read(code))]
    assert told[0] == told[1] and "\r" not in schema.as_read(code)
    assert (schema.syntax_error(code) is None) == (told[0] is not None)


def test_line_ends_tabs_and_marks_at_the_beginning_are_made_plain():
    code = "\ufefffrom manim import *\r\n\r\nclass A(Scene):\r\n\tdef construct(self):\r\n\t\tself.add(Dot())\r\n"
    mended, names = mend(code)
    assert mended == "from manim import *\n\nclass A(Scene):\n    def construct(self):\n        self.add(Dot())\n"
    assert names == ["line_ends"]
    assert mend("x\u00a0= '\u00a0'\n")[0] == "x = '\u00a0'\n"


def test_a_tab_in_a_string_stays():
    code = "def f():\n\ttext = '''a\n\tb'''\n\treturn text\n"
    assert same(mend(code)[0], code)


@pytest.mark.parametrize("magic", ["%%manim -v WARNING -ql Show", "%manim Show", "!pip install manim", "%load_ext x"])
def test_magics_of_a_notebook_go(magic):
    assert mend(f"{magic}\n{PROGRAM}") == (PROGRAM, ["magics"])


def test_a_magic_alone_is_no_program_and_one_in_a_string_stays():
    assert mend("%manim Show") == ("%manim Show", [])
    code = body('text = """', "%%manim Show", '"""', "part = (7", "% 4)")
    assert mend(f"%%manim Show\n{code}")[0] == code


def lines(*texts):
    return "".join(f"{text}\n" for text in texts)


ONE_LINE = {
    "statements": body("a = Dot()", "b = Square(side_length=2)", "self.add(a, b)", "self.wait(2)"),
    "chains": body(
        "a = Dot().shift(UP * 2).scale(-1)",
        "x, y = 1, 2",
        "a.x = b[0] = -3",
        "x += y",
        "self.play(a.animate.shift(LEFT))",
    ),
    "colons": body("d = {'a': 1, 'b': [1, 2][0:1]}", "f = lambda t: t ** 2", "g = lambda: 0", "x: int = 3"),
    "comprehensions": body(
        "a = [Dot(p) for p in [1, 2] if p > 1]", "b = {k: v for k, v in {}.items()}", "self.add(*a)"
    ),
    "choices": body("a = 1 if True else 2", "b = not a", "c = a in [1] and b is not None", "d = f(x) if a else g(y)"),
    "strings": body("a = 'it is; a: b'", 'b = "#ece6e2"', "c = f'{a} if {b}'", "self.add(Text('for x in y: pass'))"),
    "docstring": lines(
        "from manim import *",
        "",
        "class A(Scene):",
        '    """Shows it."""',
        "",
        "    def construct(self):",
        '        """All of it."""',
        "        self.add(Dot())",
    ),
    "imports": lines(
        "from manim import *",
        "import numpy as np",
        "from math import sin, cos as c",
        "import os, sys",
        "",
        "class A(Scene):",
        "    def construct(self):",
        "        self.wait()",
    ),
    "methods": lines(
        "from manim import *",
        "",
        "class A(Scene):",
        "    size = 3",
        "",
        "    def setup(self):",
        "        self.n = 1",
        "        self.m = 2",
        "",
        "    @staticmethod",
        "    def twice(x):",
        "        return 2 * x",
        "",
        "    def construct(self):",
        "        self.add(Dot())",
        "        self.wait()",
    ),
    "classes": lines(
        "from manim import *",
        "",
        "class A(Scene):",
        "    def construct(self):",
        "        self.wait()",
        "",
        "class B(A, Other):",
        "    def construct(self):",
        "        self.wait(2)",
        "        self.wait(3)",
    ),
    "base and mobject": lines(
        "from manim import *",
        "",
        "class Box(VGroup):",
        "    def __init__(self, **kwargs):",
        "        super().__init__(**kwargs)",
        "        self.add(Square())",
        "",
        "class A(Scene):",
        "    def construct(self):",
        "        self.add(Box())",
    ),
    "functions": lines(
        "from manim import *",
        "",
        "def wave(x, a=1):",
        "    y = a * x",
        "    return y",
        "",
        "class A(Scene):",
        "    def construct(self):",
        "        self.add(wave(2))",
    ),
    "main": lines(
        "from manim import *",
        "",
        "class A(Scene):",
        "    def construct(self):",
        "        self.wait()",
        "",
        "if __name__ == '__main__':",
        "    A().render()",
    ),
    "a bracket begins": body("a = 5", "(b, c) = 1, 2", "[d, e] = a, b", "self.add(a)"),
    "a bracket after a call": body("a = f(1)", "(b, c) = g(2)", "[x.shift(UP) for x in a]"),
}
GUESSED = {
    "loop": body("for i in range(3):", "    d = Dot(i * RIGHT)", "    self.add(d)", "self.wait()"),
    "loop in loop": body(
        "for i in range(3):", "    for j in range(2):", "        self.add(Dot([i, j, 0]))", "self.wait()"
    ),
    "if": body(
        "if a > 1:", "    self.add(b)", "elif a:", "    self.add(c)", "else:", "    self.wait()", "self.wait(3)"
    ),
    "try": body("try:", "    a = f()", "    b = a", "except ValueError as error:", "    b = error", "self.add(b)"),
    "try finally": body("try:", "    a = f()", "finally:", "    g()", "self.add(b)"),
    "with": body("with f() as x:", "    x.a()", "    x.b()", "self.wait()"),
    "nested function": body("def wave(t):", "    u = t * 2", "    return u", "self.add(plot(wave))", "self.wait()"),
    "two returns": body(
        "def f(t):", "    if t:", "        return 1", "    else:", "        return 2", "self.add(f(1))"
    ),
    "while": body("n = 3", "while n > 0:", "    self.wait(n)", "    n -= 1", "self.wait()"),
    "comment": body("# Create a circle", "circle = Circle()", "# and show it", "self.play(Create(circle))"),
    "comment at the end": body("self.wait()", "# the end of it"),
}


def flat(code):
    return re.sub(r"\s*\n\s*", " ", code).strip()


@pytest.mark.parametrize("name", ONE_LINE)
def test_one_line_gets_its_lines_back(name):
    code, guesses = relayout(flat(ONE_LINE[name]))
    assert same(code, ONE_LINE[name]), code
    assert guesses == 0
    assert mend(flat(ONE_LINE[name]), "one_line") == (code, ["one_line"])


@pytest.mark.parametrize("name", GUESSED)
def test_where_a_block_ends_is_a_guess_that_can_be_refused(name):
    line = flat(GUESSED[name])
    code, names = mend(line, "one_line", "one_line_guess")
    assert same(code, GUESSED[name]), code
    if names == ["one_line_guess"]:
        assert mend(line, "one_line") == (line, [])
    assert [token.text for token in lex(GUESSED[name]) if token.kind == "comment"] == [
        token.text for token in lex(code) if token.kind == "comment"
    ]


def test_blanks_that_were_kept_say_where_blocks_end():
    code = body("for i in range(3):", "    self.add(a)", "    self.add(b)", "    self.wait()", "self.wait()")
    mended, names = mend(code.strip().replace("\n\n\n", "\n").replace("\n", " "))
    assert same(mended, code)
    assert names == ["one_line"]


@pytest.mark.parametrize(
    "text",
    [
        "Here is a class for you that shows a circle: enjoy it",
        "from manim import * class A(Scene): def construct(self): this is where the code goes",
        "from manim import * class A(Scene): def construct(self): self.add(Dot(",
        "class A(Scene): def construct(self): text = 'no end",
        "",
    ],
)
def test_what_makes_no_program_is_left_as_it_is(text):
    assert mend(text) == (text, [])


def test_a_one_line_program_inside_a_comment_is_found():
    line = "from manim import * # a scene class A(Scene): def construct(self): self.wait()"
    assert parse(mend(line, "one_line_guess")[0]).body[1].name == "A"


@pytest.mark.parametrize(
    ("code", "first"),
    [
        ("class A(Scene):\n    pass\n", "from manim import *"),
        ("# important: from manim import all you need\nclass A(Scene):\n    pass\n", "from manim import *"),
        ("#!/usr/bin/env python\n# A dot.\nclass A(Scene):\n    pass\n", "#!/usr/bin/env python"),
        ('"""Shows it."""\nfrom __future__ import annotations\nimport os\nclass A(Scene):\n    pass\n', '"""Shows'),
        ("@cache\ndef f():\n    return Circle()\n", "from manim import *"),
        ("import numpy as np\nc = Circle()\n", "from manim import *"),
    ],
)
def test_the_import_of_manim_is_added_where_its_names_are_used(code, first):
    mended, names = mend(code)
    assert names == ["imports"]
    assert mended.startswith(first)
    assert mended.count("\nfrom manim import *\n") + mended.startswith("from manim import *\n") == 1
    assert compile(mended, "test", "exec")


@pytest.mark.parametrize(
    "code",
    [
        "from manim import Scene\nclass A(Scene):\n    pass\n",
        "import manim as m\nclass A(m.Scene):\n    pass\n",
        "if True:\n    from manim import *\nclass A(Scene):\n    pass\n",
        "class Scene:\n    pass\nclass A(Scene):\n    pass\n",
        "print('Circle')\n",
        "from .scene import *\nclass A(Scene):\n    pass\n",
        'config.background_color = WHITE\nconfig["pixel_width"] = 800\n',
    ],
)
def test_no_import_is_added_where_none_is_needed(code):
    assert mend(code) == (code, [])


def test_loose_code_gets_a_scene():
    loose = 'from manim import *\n\n# a dot\nname = """a\nb"""\nself.add(Dot())\nself.wait()\n'
    code, names = mend(loose)
    assert names == ["scene"]
    scene = parse(code).body[1]
    assert (scene.name, scene.bases[0].id, scene.body[0].name) == ("AnimationScene", "Scene", "construct")
    assert scene.body[0].body[0].value.value == "a\nb"
    code, names = mend("def construct(self):\n    # a dot\n    self.add(Dot())\n")
    assert names == ["scene", "imports"]
    assert code == body("# a dot", "self.add(Dot())").replace("Show", "AnimationScene")


@pytest.mark.parametrize(
    "code",
    [
        "from manim import *\nconfig.frame_width = 9\n",
        "from manim import *\nax = Axes()\nax.coords_to_point(1, 2)\n",
        "from manim import *\ndef show(self):\n    self.play(Create(Dot()))\n",
        "from manim import *\nself = Scene()\nself.add(Dot())\n",
        "from manim import *\nclass A(Scene):\n    pass\nself.add(Dot())\n",
    ],
)
def test_code_that_is_the_body_of_no_scene_gets_none(code):
    assert mend(code) == (code, [])


GL = "from manimlib import *\n\nclass A(Scene):\n    def construct(self):\n"
CONVERTED = {
    "import": (GL + "        self.wait()\n", body("self.wait()")),
    "two imports": ("from manimlib.imports import *\n" + GL + "        self.wait()\n", body("self.wait()")),
    "names": (
        body("a = TexMobject('x')", "self.play(ShowCreation(a))"),
        body("a = MathTex('x')", "self.play(Create(a))"),
    ),
    "plain text": (
        body("a = TextMobject('Hello')", "b = TextMobject('$x$')"),
        body("a = Text('Hello')", "b = Tex('$x$')"),
    ),
    "Tex": (GL + "        a = Tex('x')\n", body("a = MathTex('x')")),
    "fade from": (
        body("self.play(FadeInFrom(a, UP), FadeInFrom(b, direction=2 * LEFT), FadeInFrom(c))"),
        body("self.play(FadeIn(a, shift=DOWN), FadeIn(b, shift=-(2 * LEFT)), FadeIn(c, shift=UP))"),
    ),
    "fade out": (
        body("self.play(FadeOutAndShift(a, UP, run_time=2), FadeOutAndShiftDown(b), FadeInFromDown(c))"),
        body("self.play(FadeOut(a, shift=UP, run_time=2), FadeOut(b, shift=DOWN), FadeIn(c, shift=UP))"),
    ),
    "large": (body("self.play(FadeInFromLarge(a, scale_factor=3))"), body("self.play(FadeIn(a, scale=3))")),
    "settings": (
        "from manimlib import *\nclass A(Scene):\n    CONFIG = {\n        'n': 3,  # many\n        'f': min,\n    }\n",
        "from manim import *\nclass A(Scene):\n    n = 3\n    f = min\n",
    ),
    "axes": (
        body("a = Axes(x_min=-1, x_max=5, y_max=f(2), color=RED, y_min=-2)", "g = a.get_graph(f)"),
        body("a = Axes(x_range=[-1, 5], y_range=[-2, f(2)], color=RED)", "g = a.plot(f)"),
    ),
    "width": (
        GL + "        a.set_width(3).center()\n        b.set_height(2, stretch=True)\n",
        body("a.scale_to_fit_width(3).center()", "b.stretch_to_fit_height(2)"),
    ),
    "camera": (GL + "        self.camera_frame.shift(UP)\n", body("self.camera.frame.shift(UP)")),
    "sizes": (body("a.shift(FRAME_WIDTH * RIGHT)"), body("a.shift(config.frame_width * RIGHT)")),
    "not only ASCII": (
        body("t = Text('äöü€😀'); self.play(ShowCreation(t))"),
        body("t = Text('äöü€😀')", "self.play(Create(t))"),
    ),
    "an import by name": (
        "from manim import Scene, ShowCreation\nplay(ShowCreation(x))\n",
        "from manim import Scene, Create\nplay(Create(x))\n",
    ),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_manimgl_is_written_as_manim(name):
    before, after = CONVERTED[name]
    code, names = mend(before, "manimgl")
    assert same(code.replace("class A(", "class Show("), after.replace("class A(", "class Show(")), code
    assert names == ["manimgl"]
    assert "get_center" not in code


@pytest.mark.parametrize(
    "line",
    [
        "self.play(square.shift, UP)",
        "self.frame.reorient(1, 2)",
        "dot = GlowDot()",
        "self.add(PiCreature())",
        "self.setup_axes()",
    ],
)
def test_what_manim_has_no_word_for_leaves_the_whole_program_as_it_is(line):
    code = GL + f"        self.play(ShowCreation(a))\n        {line}\n"
    assert mend(code) == (code, [])


@pytest.mark.parametrize(
    "code",
    [
        body("x.center()", "y = x.get_center()"),
        body("a.set_width(3)"),
        body("Tex('x')"),
        body("words = 'ShowCreation TextMobject'", "a.ShowCreation = 1"),
        "from manim import *\nclass ShowCreation(Create):\n    pass\nShowCreation(x)\n",
        "import manimlib\nmanimlib.Scene()\n",
        body("a = Axes(x_min=1)", "b.get_graph(f)"),
    ],
)
def test_what_manim_has_is_not_converted(code):
    assert mend(code, "manimgl") == (code, [])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('MathTex("\\frac{1}{2}")', 'MathTex(r"\\frac{1}{2}")'),
        ('MathTex("\\epsilon")', 'MathTex(r"\\epsilon")'),
        ('Text("\\d")', 'Text(r"\\d")'),
        ('MathTex(f"\\frac{{{a}}}{{2}}")', 'MathTex(f"\\\\frac{{{a}}}{{2}}")'),
        ('Tex("\\text{a}\\nb")', 'Tex("\\\\text{a}\\nb")'),
        ("Tex('it\\'s \\pi')", "Tex('it\\'s \\\\pi')"),
        ('MathTex("\\xi + \\uparrow")', 'MathTex(r"\\xi + \\uparrow")'),
        ('MathTex("ä", "\\beta", color=RED)', 'MathTex("ä", r"\\beta", color=RED)'),
    ],
)
def test_tex_gets_its_backslashes_back(before, after):
    assert mend(body(f"a = {before}")) == (body(f"a = {after}"), ["tex"])


@pytest.mark.parametrize(
    "code",
    [
        'Text("a\\nb")',
        'Tex(r"\\frac")',
        'Tex("\\\\frac")',
        'print("\\text")',
        'Tex("a\\nb")',
        'b"\\d"',
        'Text("\\u00e4")',
    ],
)
def test_backslashes_that_are_right_stay(code):
    assert mend(body(f"a = {code}")) == (body(f"a = {code}"), [])


def test_a_voice_goes_and_its_time_stays():
    code = body(
        "self.set_speech_service(S())",
        'with self.voiceover(text="One two three four five") as t:',
        "    self.play(Create(a), run_time=t.duration)",
        "self.wait()",
        head=HEAD.replace("import *", "import *\nfrom manim_voiceover import VoiceoverScene").replace(
            "(Scene)", "(VoiceoverScene)"
        ),
    )
    mended, names = mend(code)
    assert mended == body("self.play(Create(a), run_time=2)", "self.wait()")
    assert names == ["voiceover"]


def test_a_still_is_shown_for_a_while_when_asked():
    assert mend(PROGRAM) == (PROGRAM, [])
    assert mend(PROGRAM, "static_wait") == (PROGRAM.rstrip() + "\n        self.wait()\n", ["static_wait"])
    for code in (body("self.play(x)"), body("self.add(x)", "self.wait()"), body("self.add(x)", "self.show_more()")):
        assert mend(code, "static_wait") == (code, [])


def test_animations_are_grouped_when_asked():
    code = body("self.play(Create(a), *more, run_time=2)", "self.play(Create(a), run_time=2)", "self.play(a, b)")
    mended, names = mend(code, "animation_group")
    assert mended == code.replace("Create(a), *more", "AnimationGroup(Create(a), *more)")
    assert (mend(code), names) == ((code, []), ["animation_group"])


def test_a_step_that_breaks_or_changes_a_program_is_undone():
    code = "x = 1\n"
    steps = [
        repair.Step("breaks", lambda text: text + ")"),
        repair.Step("changes", lambda text: text.replace("1", "2"), "tree"),
        repair.Step("cuts", lambda text: text.replace("= 1", "= '1'"), "shape"),
        repair.Step("spaces", lambda text: text.replace(" ", "  "), "tree"),
    ]
    assert repair.mend(code, steps) == ("x  =  1\n", ["spaces"])


def test_the_original_is_kept_when_nothing_helps_and_when_something_did():
    made = {"description": "d", "code": "not a program", "source": "s", "metadata": {"kind": "code"}}
    assert repair.repair(made, DEFAULT) is made
    assert repair.repair({**made, "metadata": {"kind": "qa"}, "code": f"```\n{PROGRAM}```"}, DEFAULT)["code"][0] == "`"
    mended = repair.repair({**made, "code": f"```\n{PROGRAM}```"}, DEFAULT)
    assert mended["metadata"] == {
        "kind": "code",
        "original_code": f"```\n{PROGRAM}```",
        "auto_fixed": True,
        "fixes_applied": ["fences"],
    }
    again = repair.repair({**mended, "code": mended["code"].replace("dot = Dot()", "dot = TexMobject('x')")}, DEFAULT)
    assert again["metadata"]["original_code"] == f"```\n{PROGRAM}```"
    assert again["metadata"]["fixes_applied"] == ["fences", "manimgl"]


EXPRESSIONS = [
    "Dot()",
    '"#ece6e2"',
    "'```'",
    "[1, 2][0:1]",
    "lambda t: t",
    "a if b else c",
    'Tex("\\frac")',
    '"""a\n  b"""',
    "{'a': 1}",
    "ShowCreation(x)",
    "f'{a}: <s>'",
    "-1",
    "'ä\\n'",
]
expressions = st.sampled_from(EXPRESSIONS)
simple = st.one_of(
    expressions.map(lambda value: f"x = {value}"),
    expressions.map(lambda value: f"self.add({value})"),
    st.sampled_from(
        ["pass", "# a note", "self.play(a, b, run_time=1)", "from manimlib import *", "y = 1; z = 2", "..."]
    ),
)


def block(parts):
    head, lines = parts
    return head + "\n" + "\n".join("    " + line for text in [*lines, "pass"] for line in text.split("\n"))


statements = st.recursive(
    simple,
    lambda inner: st.tuples(
        st.sampled_from(
            ["class A(Scene):", "def construct(self):", "for i in b:", "if a:", "with self.voiceover(text='a b') as t:"]
        ),
        st.lists(inner, max_size=3),
    ).map(block),
    max_leaves=12,
)
programs = st.lists(statements, max_size=5).map(lambda lines: "\n".join(lines) + "\n")
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(programs)
def test_no_repair_makes_a_program_into_none(code):
    for steps in (DEFAULT, STEPS, *([step] for step in STEPS)):
        mended, names = repair.mend(code, steps)
        assert (mended == code) == (not names)
        assert parses(mended) or not parses(code)


@QUICK
@given(programs)
def test_repairs_of_form_keep_every_string(code):
    def strings(text):
        return [
            node.value
            for node in ast.walk(parse(text))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]

    form = [step for step in STEPS if step.keeps == "tree"]
    for text in (code, f"```python\n{code}```", f"{code}<|endoftext|>", code.replace("\n", "\r\n")):
        mended, _ = repair.mend(text, form)
        # What the parser takes and the compiler does not, such as a star import in a class, is no program here.
        if schema.parses(code) and code.strip() and "```" not in code:
            assert strings(mended) == strings(code)


@QUICK
@given(programs)
def test_a_repaired_program_needs_no_repair(code):
    mended, _ = repair.mend(code, DEFAULT)
    assert repair.mend(mended, DEFAULT)[0] == mended


@QUICK
@given(st.text(alphabet="abc #'\"\\\n\t`~%!<>|s()[]{}:;=.,nf\ufeff", max_size=60))
def test_no_text_can_stop_the_repairs(text):
    mended, names = repair.mend(text, STEPS)
    assert parses(mended) or (mended == text and not names)


@QUICK
@given(
    st.lists(
        simple.filter(lambda line: "\n" not in line and "#" not in line and ";" not in line), min_size=1, max_size=6
    )
)
def test_one_line_loses_nothing(lines):
    code = body(*lines)
    mended, names = mend(flat(code), "one_line", "one_line_guess")
    if names and "..." not in lines:
        assert same(mended, code)


def prepare(folder, *arguments, check=0):
    return run_script("prepare_data.py", "prepare", *arguments, cwd=folder, check=check)


def rows_of(folder, *names):
    return [row for name in names or ("train.json", "test.json") for row in read_rows(folder / "data_formatted" / name)]


def source(folder, rows):
    write_rows(folder / "a.jsonl", rows)
    (folder / "sources.yaml").write_text("a:\n  type: local\n  path: a.jsonl\n")


def pair(number, output, **more):
    return {"instruction": record(number)["description"], "output": output, **more}


def test_prepare_repairs_counts_and_remembers(tmp_path):
    fenced = f"```python\n{record(1)['code']}```"
    source(tmp_path, [pair(1, fenced), pair(2, flat(record(2)["code"])), pair(3, record(3)["code"]), pair(4, "def (:")])
    before = prepare(tmp_path, "--no-fix", "all", "--keep-going")
    assert "4 in, 1 kept" in before.err
    rejected = {row["description"]: row["metadata"]["id"] for row in rows_of(tmp_path, "rejects.jsonl")}
    prepare(tmp_path)
    rows = {row["description"]: row for row in rows_of(tmp_path)}
    first = rows[record(1)["description"]]
    assert first["metadata"]["original_code"] == fenced
    assert (first["metadata"]["fixes_applied"], first["metadata"]["auto_fixed"]) == (["fences"], True)
    assert first["metadata"]["id"] == rejected[first["description"]]
    assert same(rows[record(2)["description"]]["code"], record(2)["code"])
    assert "original_code" not in rows[record(3)["description"]]["metadata"]
    (gone,) = rows_of(tmp_path, "rejects.jsonl")
    assert (gone["code"], gone["metadata"]["error"]["code"]) == ("def (:", "does_not_parse")
    fixes = {"fences": 1, "one_line": 1}
    ledger = json.loads((tmp_path / "data_formatted/ledger.json").read_bytes())
    stats = json.loads((tmp_path / "data_formatted/dataset_stats.json").read_bytes())
    assert ledger["extra"]["fixes"] == stats["fixes"] == stats["sources"]["a"]["fixes"] == fixes
    assert ledger["options"]["fix"] == [step.name for step in DEFAULT]


def test_repairs_are_switched_by_name(tmp_path):
    source(tmp_path, [pair(1, f"```\n{PROGRAM}```"), pair(2, flat(record(2)["code"])), pair(3, record(3)["code"])])
    prepare(tmp_path, "--no-fix", "fences", "--no-fix", "imports")
    assert [row["metadata"]["error"]["code"] for row in rows_of(tmp_path, "rejects.jsonl")] == ["does_not_parse"]
    prepare(tmp_path, "--no-fix", "all", "--fix", "fences", "--fix", "static_wait")
    mended = next(row for row in rows_of(tmp_path) if "fixes_applied" in row["metadata"])
    assert mended["metadata"]["fixes_applied"] == ["fences", "static_wait"]
    assert mended["code"].rstrip().endswith("self.wait()")
    assert "contradict" in prepare(tmp_path, "--fix", "tex", "--no-fix", "tex", check=2).err
    assert "'texx' is not one of" in prepare(tmp_path, "--fix", "texx", check=2).err


def test_rows_that_show_nothing_or_are_for_manimgl_are_rejected_by_name(tmp_path):
    gl = GL + "        self.add(GlowDot())\n"
    rows = [
        pair(1, record(1)["code"], after_context="There is No visible scene here."),
        pair(2, gl),
        pair(3, "import manimlib\n" + record(3)["code"]),
        pair(4, record(4)["code"]),
        {**pair(5, record(5)["code"]), "instruction": "word " * 61},
    ]
    source(tmp_path, rows)
    prepare(tmp_path, "--max-description-words", "60")
    codes = [row["metadata"]["error"]["code"] for row in rows_of(tmp_path, "rejects.jsonl")]
    assert codes == ["no_visible_scene", "manimgl", "manimgl", "long_description"]
    prepare(tmp_path)
    assert len(rows_of(tmp_path)) == 2


def test_repairs_are_the_same_in_several_processes(tmp_path):
    for name in "ab":
        write_rows(tmp_path / f"{name}.jsonl", [pair(number, flat(record(number)["code"])) for number in range(6)])
    (tmp_path / "sources.yaml").write_text("".join(f"{n}:\n  type: local\n  path: {n}.jsonl\n" for n in "ab"))
    prepare(tmp_path)
    alone = {path.name: path.read_bytes() for path in (tmp_path / "data_formatted").iterdir()}
    prepare(tmp_path, "--workers", "2")
    assert alone == {path.name: path.read_bytes() for path in (tmp_path / "data_formatted").iterdir()}


def test_a_tree_too_deep_to_be_looked_through_stops_no_run(tmp_path):
    deep = f"from manim import *\nclass A(Scene):\n\tdef construct(self):\n\t\tx = {' + '.join(['self.k'] * 900)}\n"
    source(tmp_path, [pair(1, deep), pair(2, f"```\n{PROGRAM}```")])
    prepare(tmp_path)
    kept = {row["description"]: row["code"] for row in rows_of(tmp_path)}
    assert ast.unparse(ast.parse(kept[record(2)["description"]])) == ast.unparse(ast.parse(PROGRAM))
    assert kept[record(1)["description"]].expandtabs(4) == deep.expandtabs(4)
