"""Describes a program without a language model: from its syntax tree and the text around it.

The result is a request as a person would write it, of 15 to 60 words: what is on the screen, what happens in which
order, how it is viewed. The richest wording that fits is taken; the same record always gives the same words.
"""

import ast
import hashlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

from stages.prepare_data_with_llm.features import imported
from stages.prepare_data_with_llm.programs import read_scenes
from stages.prepare_data_with_llm.storyboard import Wording, moves, objects, story
from stages.prepare_data_with_llm.values import Scene
from stages.prepare_data_with_llm.words import join, number, split_name

NAME = "offline/1"
FEWEST, ENOUGH, MOST = 15, 25, 60
OPENINGS = (
    "Create a Manim animation{} that shows",
    "Make a Manim animation{} with",
    "Write a Manim scene{} that shows",
    "I need a Manim animation{} with",
)
STILL_OPENINGS = (
    "Create a Manim scene{} that shows",
    "Make a still Manim picture{} with",
    "Write a Manim scene{} that displays",
)
# From rich to poor: what is left out first when a description grows too long.
WORDINGS = (
    Wording(places=True, details=True, times=True, objects=8, steps=12, label=10),
    Wording(places=False, details=True, times=True, objects=8, steps=12, label=10),
    Wording(places=False, details=True, times=False, objects=6, steps=8, label=8),
    Wording(places=False, details=False, times=False, objects=5, steps=6, label=5),
    Wording(places=False, details=False, times=False, objects=4, steps=4, label=4),
    Wording(places=False, details=False, times=False, objects=3, steps=3, label=3),
    Wording(places=False, details=False, times=False, objects=2, steps=2, label=2),
)
# Sentences about calling functions, which no viewer would ask for, and those that lean on the one before them.
FOR_PROGRAMMERS = re.compile(
    r"(?i)\b(argument|parameter|keyword|default|method|function|instance|return|attribute|import|deprecated|note|see"
    r"|subclass|class|if|you|we)(s|es|ed)?\b"
)
LEANS = re.compile(
    r"(It|Its|This|That|These|Those|They|Such|Here|However|Therefore|Otherwise|Then|Also|Since|Has|Have|Check|When"
    r"|To achieve|In addition|As|But|And|Or|For example)\b"
)
# Names that say nothing about what a scene is about.
EMPTY_NAME = re.compile(
    r"(?i)\b(my|the|a|manim|example|examples|scene|test|demo|demonstration|animation|main|ex|video|class|gen|\w|\d+)\b"
)


def describe(code: str, metadata: dict[str, Any]) -> str:
    """A request that this program answers. Raises SyntaxError where there is no program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\\d" in somebody's string is not our user's business
        tree = ast.parse(code)
    scenes = read_scenes(tree)
    if not scenes:
        text = describe_definitions(tree)
    elif len(scenes) == 1:
        text = describe_scene(scenes[0], code)
    else:
        text = describe_many(scenes)
    return lengthened(text, scenes, metadata)


def describe_scene(scene: Scene, code: str) -> str:
    """The richest wording of one scene that is short enough."""
    sentence = opening(scene, code)
    text = ""
    for wording in WORDINGS:
        text = " ".join([f"{sentence} {objects(scene, wording).rstrip('.')}.", *story(scene, wording), *notes(scene)])
        if len(text.split()) <= MOST:
            return text
    return shortened(text)


def opening(scene: Scene, code: str) -> str:
    """One of a few first phrases, chosen by the program itself, so that not every request begins alike."""
    choices = OPENINGS if moves(scene) else STILL_OPENINGS
    choice = int(hashlib.sha256(code.encode()).hexdigest(), 16) % len(choices)
    title = topic(scene.name)
    return choices[choice].format(f' called "{title}"' if title else "")


def topic(name: str) -> str:
    """'BraceAnnotationExample2' as 'Brace Annotation'; nothing for a name like MyScene."""
    words = EMPTY_NAME.sub(" ", re.sub(r"(?<=\D)(?=\d)", " ", split_name(name))).split()
    return " ".join(word[:1].upper() + word[1:] for word in words)


def notes(scene: Scene) -> list[str]:
    background = [f"Use a {scene.background} background."] if scene.background else []
    return scene.notes + background


def shortened(text: str) -> str:
    """Whole sentences up to the limit; if even the first is too long, its beginning."""
    kept: list[str] = []
    for sentence in re.split(r"(?<=[.]) ", text):
        if len(" ".join([*kept, sentence]).split()) > MOST:
            break
        kept.append(sentence)
    return " ".join(kept) or " ".join(text.split()[: MOST - 4]).rstrip(",;:.") + " and further objects."


def describe_many(scenes: list[Scene]) -> str:
    wording = WORDINGS[-1]
    parts = [f'"{topic(scene.name) or scene.name}" with {objects(scene, wording)}' for scene in scenes]
    sentence = f"Create {number(len(scenes))} Manim animations: {join(parts)}."
    while len(sentence.split()) > MOST and len(parts) > 1:
        parts.pop()
        sentence = f"Create {number(len(scenes))} Manim animations, among them {join(parts)}."
    return shortened(sentence)


def describe_definitions(tree: ast.Module) -> str:
    """A program without a scene: what it defines and what it says about itself."""
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    parts = [
        phrase for phrase in (named("class", "classes", classes), named("function", "functions", functions)) if phrase
    ]
    uses = ["uses Manim"] if any("manim" in name for name in imported(tree)) else []
    does = join([*uses, *([f"defines {join(parts)}"] if parts else [])] or ["does one small job"])
    purpose = first_sentence(next((text for node in documented(tree) if (text := ast.get_docstring(node))), ""))
    return f"Write a Python program that {does}. {purpose}".strip()


def named(one: str, several: str, names: list[str]) -> str:
    if len(names) <= 1:
        return f"the {one} {names[0]}" if names else ""
    shown = names if len(names) <= 4 else [*names[:4], f"{number(len(names) - 4)} more"]
    return f"the {several} {join(shown)}"


def documented(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef]:
    yield tree
    yield from (node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef))


def first_sentence(text: str) -> str:
    """The first sentence of a text that is a plain one."""
    return next(plain_sentences(text), "")


def plain_sentences(text: str) -> Iterator[str]:
    """Sentences without lists, code or talk among programmers."""
    for sentence in re.split(r"(?<=[.!?:])\s+", " ".join(text.split())):
        plain = plain_words(sentence)
        if not 5 <= len(plain.split()) <= 25 or not re.fullmatch(r"[A-Z][\w ,'()-]+[.!?]", plain):
            continue
        if not FOR_PROGRAMMERS.search(plain) and not LEANS.match(plain):
            yield plain


def plain_words(text: str) -> str:
    """Without the markup of documentation: :class:`~.Circle` is Circle."""
    text = re.sub(r":[\w:]+:`~?\.?(?:[^`<]*<)?~?\.?([^`>]*)>?`", r"\1", text)
    text = text.replace("``", "").replace("`", "").replace("*", "").strip()
    return re.sub(r"^(Examples?|Notes?|Warnings?|Tips?) (?=[A-Z])", "", text)


def lengthened(text: str, scenes: list[Scene], metadata: dict[str, Any]) -> str:
    """A short description takes a sentence from the text around the program, or says what is plain to see."""
    if len(text.split()) < ENOUGH and (around := surrounding(metadata)) and len(f"{text} {around}".split()) <= MOST:
        text = f"{text} {around}"
    if len(text.split()) < FEWEST and scenes and not any(map(moves, scenes)):
        text += " It is a still picture: nothing has to move."
    if len(text.split()) < FEWEST:
        ending = "Keep the default camera and a plain black background, and show nothing else."
        text += f" {ending if scenes else 'Keep it short, clear and runnable as it stands, without any further files.'}"
    return text


def surrounding(metadata: dict[str, Any]) -> str:
    """A sentence from the text that the program was taken from: what is documented, or what stands nearest."""
    for key, nearest in (("before_context", -1), ("original_context", -1), ("after_context", 0)):
        context = metadata.get(key)
        if not isinstance(context, str):
            continue
        if found := [sentence for part in prose(context) for sentence in plain_sentences(part)]:
            return f"It should illustrate the following: {found[nearest]}"
    return ""


def prose(context: str) -> list[str]:
    """A context without the sections that list parameters and the programs of other examples."""
    parts = re.split(r"([A-Z][\w ]{2,20}?) -{4,}", " ".join(context.split()))
    kept = [
        parts[0],
        *(
            text
            for title, text in zip(parts[1::2], parts[2::2], strict=False)
            if title.endswith(("Examples", "Example"))
        ),
    ]
    return [re.sub(r"\.\. manim::.*?(?=[A-Z][a-z]+ [a-z]+ [a-z]+ |$)", "", part) for part in kept]
