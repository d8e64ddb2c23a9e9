"""What a sandboxed child does: import one program, render its scenes as cheaply as the level allows, say what happened.

This is the only file that runs a stranger's program.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
import traceback
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.filter_quality.render import latex
from stages.filter_quality.render.tex import Memory, Tex, svg_of

MODULE = "scene_under_test"
COMPARED_WITH = "0.22.0"  # what quicker/ gives the same as, to the bit
# Read here, where the project can still be seen; they import Manim, so they run where Manim is loaded.
_QUICKER = {
    name: compile(Path(__file__).with_name("quicker").joinpath(f"{name}.py").read_text("utf-8"), f"{name}.py", "exec")
    for name in ("mobjects", "colours", "curves", "drawing", "outlines")
}
_MOST_SCENES = 5
_TINY, _LEGIBLE = (214, 120), (854, 480)
# The first statement of most programs. Carried out once, in the server, it costs a program no copies of the pages that
# hold these 900 names; nor must it look at all of them to find its scenes. It must where a word of it may bind what its
# outermost lines do not name.
_STAR = re.compile(r"((?:[ \t]*(?:#[^\n]*)?\n)*)from manim import \*(?=[ \t]*(?:#[^\n]*)?(?:\n|\Z))")
_BINDS_UNSEEN = re.compile(r"\b(?:global|globals|exec|vars|locals|setattr|__dict__|modules)\b")
_starred = types.ModuleType(MODULE)
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")  # differs from run to run
_MESSAGE = 300
_NOTHING = lambda *_, **__: None  # noqa: E731

Answer = dict[str, Any]


def run(job: dict[str, Any], folder: str, memory: Memory) -> tuple[Answer, bytes]:
    """The facts of one run and, when it is wanted, the last frame as PNG."""
    if memory.shortcut:
        latex.take(memory.shortcut)
    if "formula" in job:
        return _formula(job, folder)
    answer: Answer = {"stage": "import", "scenes": []}
    picture = b""
    tex = Tex(job["tex"], memory.known)
    try:
        _prepare(job, folder)
        scenes = _scenes(_import(job["code"], folder), job["scene"])
        if job["level"] != "import":
            for scene in scenes[:_MOST_SCENES]:
                answer["stage"] = "construct"
                facts, picture = _render(scene, job)
                answer["scenes"].append(facts)
        else:
            answer["scenes"] = [{"name": scene.__name__} for scene in scenes[:_MOST_SCENES]]
        answer["stage"] = "done" if scenes else "no scene"
    except BaseException as error:  # noqa: BLE001  sys.exit and KeyboardInterrupt of a program are its faults too
        answer["error"] = _told(error, folder)
    answer["tex"] = tex.kind if tex.used else "none"
    answer["formulas"] = tex.asked
    return answer, picture


def _formula(job: dict[str, Any], folder: str) -> tuple[Answer, bytes]:
    _prepare(job, folder)
    return {"stage": "done", "scenes": [], "tex": job["tex"]}, svg_of(job["formula"]).encode()


def warm_up(folder: str, *, plain: bool = False) -> None:
    """Load, in the server, what scenes load late (fonts, progress bars, SVG), by rendering one of our own."""
    import logging

    import manim
    import scipy.interpolate  # noqa: F401

    class Warm(manim.Scene):  # type: ignore[misc]
        def construct(self) -> None:
            self.play(manim.Write(manim.Text("warm")), manim.Create(manim.Circle()))

    if not plain:
        make_quicker()
    exec("from manim import *", vars(_starred))
    logging.disable(logging.CRITICAL)
    manim.config.verbosity = "CRITICAL"
    job = {"level": "check", "frame": True}
    _prepare(job, folder)
    _render(Warm, job)


def make_quicker() -> None:
    """Manim's dear parts done for less, where it is the release that this was compared with."""
    if version("manim") == COMPARED_WITH:
        for name, code in _QUICKER.items():
            part: dict[str, Any] = {"__name__": f"quicker.{name}"}
            exec(code, part)
            part["make_quicker"]()


def _prepare(job: dict[str, Any], folder: str) -> None:
    import random

    import manim
    import numpy

    config = manim.config
    config.media_dir = f"{folder}/media"
    config.progress_bar = "none"
    config.disable_caching = True
    config.seed = 0
    config.frame_rate = 5 if job["level"] == "sampled" else 15
    small = job["level"] in ("check", "sampled") and not job["frame"]
    config.pixel_width, config.pixel_height = _TINY if small else _LEGIBLE
    config.dry_run = job["level"] in ("check", "sampled")
    if job["level"] == "last":
        config.format = "png"
    random.seed(0)
    numpy.random.seed(0)


def _import(code: str, folder: str) -> list[Any]:
    """What the program binds, in its order."""
    path = Path(folder, "scene.py")
    path.write_text(code, "utf-8", errors="surrogatepass")
    found = _STAR.match(code)
    module = _starred if found else types.ModuleType(MODULE)
    module.__file__ = str(path)
    sys.modules[MODULE] = module
    sys.path.insert(0, folder)
    compiled = compile(found[1] + "pass" + code[found.end() :] if found else code, str(path), "exec", dont_inherit=True)
    bound = module.__dict__
    exec(compiled, bound)
    if found and not _BINDS_UNSEEN.search(code):
        return [bound[name] for name in compiled.co_names if name in bound]
    return list(bound.values())


def _scenes(bound: list[Any], wanted: str | None) -> list[Any]:
    """The scene classes of the program in its order; only the wanted one where the record names one that is there."""
    import manim

    found = [value for value in bound if isinstance(value, type) and issubclass(value, manim.Scene)]
    own = list(dict.fromkeys(scene for scene in found if scene.__module__ == MODULE))
    return [scene for scene in own if scene.__name__ == wanted] or own


def _render(scene_class: Any, job: dict[str, Any]) -> tuple[Answer, bytes]:
    drawn = job["level"] in ("last", "full")
    scene = scene_class() if job["level"] != "check" else scene_class(skip_animations=True)
    renderer = scene.renderer
    draw = renderer.update_frame
    if not drawn:
        renderer.update_frame = renderer.save_static_frame_data = _NOTHING
    seen = _watch(scene, draw)
    scene.render()
    renderer.static_image = None
    draw(scene)
    frame = renderer.get_frame()
    facts = {
        "name": scene_class.__name__,
        "plays": int(renderer.num_plays),
        "duration": round(float(renderer.time), 2),
        "mobjects": len(scene.mobjects),
        "blank": not seen and _is_blank(frame),
        "frame_hash": hashlib.sha256(frame.tobytes()).hexdigest()[:16],
    }
    return facts, _png(frame) if job["frame"] else b""


def _watch(scene: Any, draw: Any) -> list[bool]:
    """A list that gets an entry at the end of the first animation that leaves something to be seen."""
    seen: list[bool] = []
    renderer, play = scene.renderer, scene.renderer.play

    def play_and_look(*arguments: Any, **options: Any) -> None:
        play(*arguments, **options)
        if not seen:
            kept, renderer.static_image = renderer.static_image, None
            draw(scene)
            renderer.static_image = kept
            if not _is_blank(renderer.get_frame()):
                seen.append(True)

    renderer.play = play_and_look
    return seen


def _is_blank(frame: Any) -> bool:
    return bool((frame == frame[0, 0]).all())


def _png(frame: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()


def _told(error: BaseException, folder: str) -> Answer:
    """What is known of an error; nothing in it changes from run to run."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == f"{folder}/scene.py"]
    line = lines[-1] if lines else getattr(error, "lineno", None)
    message = _ADDRESS.sub("0x...", " ".join(_text(error).split())).replace(folder, "/scene")
    told: Answer = {"type": type(error).__name__, "message": message[:_MESSAGE], "line": line}
    told["kinds"] = [kind.__name__ for kind in type(error).__mro__[:-1]]
    told["errno"] = getattr(error, "errno", None)
    told["name"] = getattr(error, "name", None)
    told["in_tex"] = any(frame.filename.endswith("tex_file_writing.py") for frame in frames)
    return told


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001  the class of the error may be the program's own
        return "an error that can not be told"


def detach(keep: int) -> None:
    """No input, no output, and no open file but the one for the answer: nothing of the server's can be reached."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.closerange(3, keep)
    os.closerange(keep + 1, 1 << 16)
