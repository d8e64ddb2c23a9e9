"""What each check weighs: the table of checks, the two modes, and the file that changes them for one's own data."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

import click

# The severity of a check is what its finding does to training: critical rows teach nothing or something false, high
# ones teach programs that fail, medium ones teach a little less than they could, low ones are a matter of looks.
SEVERITIES = ("critical", "high", "medium", "low", "note")
CHECKS = {
    "empty_description": "critical",
    "needs_description": "critical",  # lenient: note
    "does_not_parse": "critical",
    "short_code": "critical",
    "no_scene_class": "critical",
    "empty_construct": "critical",
    "empty_text": "critical",
    "secret": "critical",
    "licence_not_allowed": "critical",
    "personal_data": "critical",
    "too_long": "critical",
    "dangerous_call": "high",
    "undefined_name": "high",
    "wrong_argument": "high",
    "unknown_method": "high",
    "manimgl_code": "high",
    "no_manim_import": "high",
    "no_construct": "high",
    "placeholder_comment": "high",
    "ellipsis_body": "high",
    "placeholder_description": "high",
    "placeholder_text": "high",
    "generic_description": "medium",
    "missing_shape": "medium",
    "mismatch": "medium",
    "conflicting_descriptions": "medium",
    "judged_mismatch": "high",
    "no_mobject": "medium",
    "bad_escape": "medium",
    "short_text": "medium",
    "no_capital_letter": "low",
    "no_end_punctuation": "low",
}
# A critical finding makes the score 0. In strict mode one high finding alone fails the default minimum of 0.8, and so
# do three medium ones; in lenient mode it takes twice as many.
WEIGHTS = {
    "strict": {"high": 0.3, "medium": 0.1, "low": 0.02},
    "lenient": {"high": 0.15, "medium": 0.05, "low": 0.01},
}
# The shortest scene of Manim's manual has 77 characters with its import; fewer than four words ("Draw a circle.") name
# no colour, place or motion.
LIMITS = {"code_characters": 50, "description_words": 4, "text_characters": 20}
IGNORED = "ignore"


class Rules(NamedTuple):
    """What is in force for the rows of one source."""

    severities: dict[str, str]
    weights: dict[str, float]
    limits: dict[str, int]

    def severity(self, check: str) -> str | None:
        """None for a check that is switched off."""
        severity = self.severities[check]
        return None if severity == IGNORED else severity


class RuleBook:
    """The rules of a mode, with the changes of a configuration file, for any source."""

    def __init__(self, mode: str, config: dict[str, Any] | None = None) -> None:
        self.config = config or {}
        severities = CHECKS | ({"needs_description": "note"} if mode == "lenient" else {})
        self.base = _changed(Rules(severities, WEIGHTS[mode], LIMITS), self.config)
        self.sources = {name: _changed(self.base, changes) for name, changes in self.config.get("sources", {}).items()}

    def of(self, source: str) -> Rules:
        return self.sources.get(source, self.base)


def read_config(path: str) -> dict[str, Any]:
    """The content of a quality file; anything in it that would have no effect is an error."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            config = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    config = {} if config is None else config
    _check_keys(path, config, ("checks", "weights", "limits", "sources"))
    _check_values(path, config)
    sources = config.get("sources") or {}
    if not isinstance(sources, dict) or not all(isinstance(name, str) for name in sources):
        raise click.UsageError(f"{path}: sources: {sources!r} is not a mapping of source names (quote numbers)")
    for name, changes in sources.items():
        _check_keys(f"{path}: sources: {name}", changes, ("checks", "weights", "limits"))
        _check_values(f"{path}: sources: {name}", changes)
    return {key: value for key, value in config.items() if value}


def _changed(rules: Rules, changes: dict[str, Any]) -> Rules:
    return Rules(
        rules.severities | (changes.get("checks") or {}),
        rules.weights | (changes.get("weights") or {}),
        rules.limits | (changes.get("limits") or {}),
    )


def _check_values(place: str, changes: dict[str, Any]) -> None:
    severities = (*SEVERITIES, IGNORED)
    for check, severity in _section(place, changes, "checks", CHECKS).items():
        if severity not in severities:
            raise click.UsageError(f"{place}: checks: {check}: {severity!r} is none of {', '.join(severities)}")
    for severity, weight in _section(place, changes, "weights", WEIGHTS["strict"]).items():
        if not _is_number(weight) or not 0 <= weight <= 1:
            raise click.UsageError(f"{place}: weights: {severity}: {weight!r} is not a number from 0 to 1")
    for limit, value in _section(place, changes, "limits", LIMITS).items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise click.UsageError(f"{place}: limits: {limit}: {value!r} is not a whole number from 0 up")


def _section(place: str, changes: dict[str, Any], name: str, known: dict[str, Any]) -> dict[str, Any]:
    section = changes.get(name) or {}
    _check_keys(f"{place}: {name}", section, tuple(known))
    return dict(section)


def _check_keys(place: str, mapping: Any, known: tuple[str, ...]) -> None:
    if not isinstance(mapping, dict):
        raise click.UsageError(f"{place}: {mapping!r} is not a mapping; it takes {', '.join(known)}")
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1, 0.0)[0]
            raise click.UsageError(f"{place}: unknown key {str(key)!r}; did you mean {near!r}?")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
