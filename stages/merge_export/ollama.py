"""A Modelfile for Ollama, whose template is derived from the chat template that the model was trained with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]
_SYSTEM, _USER, _ANSWER, _AGAIN = "LINEMILLSYSTEM", "LINEMILLUSER", "LINEMILLANSWER", "LINEMILLAGAIN"


class Turns(NamedTuple):
    """What a chat template puts around each message; `system` is None where it refuses such a message."""

    begin: str
    default: str  # in place of a system message, when there is none
    system: tuple[str, str] | None
    user: tuple[str, str]
    assistant: tuple[str, str]
    prompt: str  # after the last message, for an answer to follow
    folded: bool = False  # a system message opens the first turn of the user, as with Gemma 3


def derive(tokenizer: PreTrainedTokenizerBase, talks: Iterable[Messages]) -> Turns | None:
    """The turns of a chat template; None where it is more than that, which is tried on the questions of `talks`.

    Only what comes before an answer counts: some templates write the last answer otherwise than those before it.
    """
    from jinja2 import TemplateError

    if "strftime_now" in str(tokenizer.chat_template):
        return None  # it says another day each day

    def render(*contents: str, ask: bool = False) -> str:
        roles = {_SYSTEM: "system", _ANSWER: "assistant"}
        talk = [{"role": roles.get(content, "user"), "content": content} for content in contents]
        return str(tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=ask))

    try:
        question, asked = render(_USER), render(_USER, ask=True)
        answered, again = render(_USER, _ANSWER), render(_USER, _ANSWER, _AGAIN)
        head, user_end = question.split(_USER)
        assistant_start, between = again.removeprefix(question).split(_AGAIN)[0].split(_ANSWER)
        assistant_end = answered.split(_ANSWER)[1]
    except (TemplateError, ValueError):
        return None
    user_start = between.removeprefix(assistant_end)
    begin = tokenizer.bos_token if tokenizer.bos_token and head.startswith(tokenizer.bos_token) else ""
    turns = Turns(
        begin=begin,
        default=head.removeprefix(begin).removesuffix(user_start),
        system=None,
        user=(user_start, user_end),
        assistant=(assistant_start, assistant_end),
        prompt=asked.removeprefix(question),
    )
    try:
        before, rest = render(_SYSTEM, _USER).split(_SYSTEM)
        before, between = before.removeprefix(begin), rest.split(_USER)[0]
        folded = bool(user_start) and before == user_start and not between.endswith(user_start)
        turns = turns._replace(system=(before, between.removesuffix(user_start)), folded=folded)
    except (TemplateError, ValueError):
        pass  # no system messages then
    questions = [talk[:-1] if talk[-1]["role"] == "assistant" else talk for talk in talks]
    return turns if all(_same(tokenizer, turns, talk) for talk in questions) else None


def _same(tokenizer: PreTrainedTokenizerBase, turns: Turns, talk: Messages) -> bool:
    if turns.system is None and talk[0]["role"] == "system":
        return True
    talk = [{**message, "content": message["content"].strip()} for message in talk]
    return apply(turns, talk) == str(tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True))


def apply(turns: Turns, talk: Messages) -> str:
    """What Ollama sends, with the template of `modelfile`."""
    around = {"user": turns.user, "assistant": turns.assistant, "system": turns.system or ("", "")}
    parts = [turns.begin, "" if talk[0]["role"] == "system" else turns.default]
    for place, message in enumerate(talk):
        start, end = around[message["role"]]
        opened = turns.folded and place == 1 and talk[0]["role"] == "system"
        parts.append(("" if opened else start) + message["content"] + end)
    return "".join(parts) + turns.prompt


def modelfile(turns: Turns, weights: str, stops: list[str]) -> str:
    """The begin token is left to the runtime, which adds it from the settings of the weights."""
    branches = [("user", turns.user), ("assistant", turns.assistant)]
    if turns.system:
        branches.insert(0, ("system", turns.system))
    template = f"{{{{ if not .System }}}}{_literal(turns.default)}{{{{ end }}}}" if turns.default else ""
    template += "{{ range $place, $_ := .Messages }}" if turns.folded else "{{ range .Messages }}"
    for number, (role, (start, end)) in enumerate(branches):
        template += f'{{{{ {"else " if number else ""}if eq .Role "{role}" }}}}'
        if turns.folded and role == "user":
            template += "{{ if not (and $.System (eq $place 1)) }}" + _literal(start) + "{{ end }}{{ .Content }}"
        else:
            template += _literal(start) + "{{ .Content }}"
        template += _literal(end)
    template += "{{ end }}{{ end }}" + _literal(turns.prompt)
    lines = [f"FROM ./{weights}", f'TEMPLATE """{template}"""']
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Ollama knows no escapes: what a quote or a line break is in stands between three quotes."""
    return f'"""{text}"""' if '"' in text or "\n" in text else f'"{text}"'


def _literal(text: str) -> str:
    """A text as it stands in a template, where two braces and three quotes would mean something."""
    return text.replace("{{", '{{ "{{" }}').replace('"""', '{{ "\\"\\"\\"" }}')
