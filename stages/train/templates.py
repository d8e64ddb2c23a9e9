"""How a request and its answer are worded for models that bring no chat template; they are saved with the adapter."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import click

TODAY = datetime(2026, 1, 1)
REQUEST = ("instruction", "input", "question", "description", "prompt", "request")
ANSWER = ("output", "response", "answer", "code", "completion")
_START = "{{ bos_token or '' }}{% for message in messages %}"
_OTHERWISE = "{% else %}{{ message['content'] }}\n\n{% endif %}{% endfor %}"
_ANSWER = "{% elif message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}"


def _headings(question: str, given: str, reply: str) -> str:
    """Request and answer under headings; what a request is about stands apart, where a row has it apart."""
    apart = f"{{% if message['input'] is defined %}}{given}{{{{ message['input'] }}}}\n\n{{% endif %}}" if given else ""
    return (
        _START
        + f"{{% if message['role'] == 'user' %}}{question}{{{{ message['content'] }}}}\n\n{apart}{reply}"
        + _ANSWER
        + _OTHERWISE
    )


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
NAMED = {
    "alpaca": _headings("### Instruction:\n", "### Input:\n", "### Response:\n"),
    "chatml": CHATML,
    "llama": (
        "{{ bos_token or '' }}{% for message in messages %}"
        "{% if message['role'] == 'system' %}{% elif message['role'] == 'user' %}"
        "{{ '[INST] ' }}{% if loop.index0 == 1 %}{{ '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' }}"
        "{% endif %}{{ message['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "plain": _headings("### Instruction:\n", "", "### Response:\n"),
    "deepseek": _headings("### Instruction:\n", "", "### Response:\n"),
    "gemma": (
        "{{ bos_token or '' }}{% for message in messages %}{% if message['role'] == 'system' %}"
        "{% elif message['role'] == 'user' %}{{ '<start_of_turn>user\\n' }}{% if loop.index0 == 1 %}"
        "{{ messages[0]['content'] + '\\n\\n' }}{% endif %}{{ message['content'] + '<end_of_turn>\\n' }}"
        "{{ '<start_of_turn>model\\n' }}{% else %}{{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "stablecode": _headings("###Instruction\n", "", "###Response\n"),
}
# Families by what their config.json or folder is called; the first that is found in it counts.
FAMILIES = (
    ("stable", "stablecode"),
    ("deepseek", "deepseek"),
    ("gemma", "gemma"),
    ("qwen", "chatml"),
    ("lfm2", "chatml"),
    ("mistral", "llama"),
    ("codellama", "llama"),
)
# Families whose chat models were taught to put programs between ```.
FENCED = ("qwen", "deepseek", "gemma", "llama-3", "llama3")
# Read by evaluate_model.py: the reference answers are put as they were when the model learned them.
FENCE_NOTE = "{#- programs stand in a fence of ```python -#}"
# Words that have to be one token each, or the template would teach the model to spell them.
NEEDS = {"chatml": ("<|im_start|>", "<|im_end|>"), "gemma": ("<start_of_turn>", "<end_of_turn>")}


def of_family(folder: Path, vocabulary: dict[str, int]) -> tuple[str, str]:
    """Name and text of the template for a model without one."""
    called = _called(folder)
    for word, name in FAMILIES:
        if word in called and all(token in vocabulary for token in NEEDS.get(name, ())):
            return name, NAMED[name]
    return "plain", NAMED["plain"]


def without_today(template: str) -> tuple[str, bool]:
    """The template with one date for ever, and whether it had asked for today's: else each day trains another text."""
    pattern = r"""strftime_now\(\s*(['"])(.*?)\1\s*\)"""
    fixed = re.sub(pattern, lambda match: json.dumps(TODAY.strftime(match[2])), template)
    return fixed, fixed != template


def answers_in_fences(folder: Path) -> bool:
    """Whether the chat models of this family put programs between ``` by themselves: no training has to undo that."""
    called = _called(folder)
    return any(word in called for word in FENCED)


def _called(folder: Path) -> str:
    """Everything that a model is called by; in the cache of the hub its folder is named by a revision."""
    known: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    home = folder.parent.parent.name if folder.parent.name == "snapshots" else folder.name
    return " ".join([str(known.get("model_type")), str(known.get("_name_or_path", "")), home]).lower()


def with_wording(template: str, system: str | None, fenced: bool) -> str:
    """The template with a system message for those who bring none, and a note for those who put an answer behind it."""
    note = FENCE_NOTE if fenced else ""
    if not system:
        return note + template
    said = json.dumps(system, ensure_ascii=False)
    if takes_system(template):
        first = f"[{{'role': 'system', 'content': {said}}}] + messages"
    else:
        joined = f"{said} + '\n\n' + messages[0]['content']"
        first = f"[{{'role': 'user', 'content': {joined}}}] + messages[1:]"
    return f"{note}{{% if messages[0]['role'] != 'system' %}}{{% set messages = {first} %}}{{% endif %}}{template}"


def takes_system(template: str) -> bool:
    """Whether a system message comes out again; some templates refuse it."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    talk = [{"role": "system", "content": "Linemill?"}, {"role": "user", "content": "x"}]
    try:
        return "Linemill?" in render_jinja_template([talk], chat_template=template, bos_token="", eos_token="")[0][0]
    except (TemplateError, TypeError):
        return False


def find(name: str) -> str:
    """The template of a name, or of a YAML file."""
    if name in NAMED:
        return NAMED[name]
    path = Path(name)
    if not path.is_file():
        raise click.UsageError(f"model.template {name}: no such file, and the names are {', '.join(NAMED)}")
    return from_file(path)


def from_file(path: Path) -> str:
    """`template: "Q: {instruction}\\nA: {output}"` as a chat template. What stands behind the answer is not learned."""
    import yaml

    try:
        tree = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError) as error:
        raise click.UsageError(f"{path}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(tree, dict) or not isinstance(text := tree.get("template"), str):
        raise click.UsageError(f"{path}: it needs `template:` with a text like 'Q: {{instruction}} A: {{output}}'")
    if unknown := sorted(set(tree) - {"name", "description", "template", "input_variables"}):
        raise click.UsageError(f"{path}: no key {unknown[0]!r}; a template has template, input_variables, name")
    names = re.findall(r"\{(\w+)\}", text)
    if declared := set(tree.get("input_variables") or names) - set(names):
        raise click.UsageError(f"{path}: input_variables names {min(declared)!r}, which the template does not hold")
    if wrong := [name for name in names if name not in (*REQUEST, *ANSWER, "system")]:
        raise click.UsageError(f"{path}: no placeholder {{{wrong[0]}}}; a row has {{instruction}} and {{output}}")
    return _as_chat_template(path, text, names)


def _as_chat_template(path: Path, text: str, names: list[str]) -> str:
    if sum(name in REQUEST for name in names) != 1 or sum(name in ANSWER for name in names) > 1:
        raise click.UsageError(f"{path}: the template needs {{instruction}} once, and {{output}} once at its end")
    parts = re.split(r"\{(\w+)\}", text)
    asked = [position for position, part in enumerate(parts) if position % 2 and part in ANSWER]
    if asked and asked[0] != len(parts) - 2:
        raise click.UsageError(f"{path}: a placeholder stands behind the answer, which has to be the last")
    if asked:
        parts = parts[: asked[0]]
    said = {name: "{{ message['content'] }}" for name in REQUEST}
    said["system"] = "{{ messages[0]['content'] if messages[0]['role'] == 'system' }}"
    # Fixed text is quoted, as it may hold what Jinja would take for its own words.
    prompt = "".join(said[part] if position % 2 else _quoted(part) for position, part in enumerate(parts))
    return f"{_START}{{% if message['role'] == 'user' %}}{prompt}{_ANSWER}{{% endif %}}{{% endfor %}}"


def _quoted(text: str) -> str:
    return "{{ " + json.dumps(text, ensure_ascii=False) + " }}"
