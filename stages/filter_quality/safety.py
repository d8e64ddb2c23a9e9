"""What must not get into training data: keys, persons, other people's licences, and programs that do harm."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Iterator

import schema
from stages.filter_quality.findings import Finding
from stages.filter_quality.program import Program

_KEYS = {
    "an Anthropic key": r"sk-ant-[\w-]{20,}",
    "an OpenAI key": r"sk-(?!ant-)(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{32,}",
    "an AWS key": r"(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])",
    "a GitHub token": r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,}",
    "a Hugging Face token": r"hf_[A-Za-z0-9]{30,}",
    "a Google key": r"AIza[\w-]{35}",
    "a Slack token": r"xox[abprs]-[\w-]{20,}",
    "a Stripe key": r"[rs]k_live_[A-Za-z0-9]{20,}",
    "a signed token (JWT)": r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
}
_KEY = re.compile("|".join(f"(?<![A-Za-z0-9])({pattern})" for pattern in _KEYS.values()))
_LONG_WORD = re.compile(r"""[:=][ \t]*+["'][^"'\s]{16}""")
_ASSIGNED = re.compile(
    r"""(?:api_?key|secret|passw(?:or)?d|auth_?token|access_?token)["']?[ \t]*[:=][ \t]*["']([^"'\s]{16,})["']""",
    re.IGNORECASE,
)
# One of these stands in every key; to look for them costs a tenth of the search itself.
_KEY_PART = re.compile(r"sk-|AKIA|ASIA|gh[pousr]_|github_pat_|hf_|AIza|xox|k_live_|eyJ|PRIVATE KEY")
_STAND_IN = re.compile(r"your|example|placeholder|change|dummy|insert|test|xxx|\*\*\*|<|\$\{|\.\.\.", re.IGNORECASE)
_RANDOM_BITS = 3.5  # per character: English words stay below, keys of 16 characters and more are above

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?!example\.)[\w-]{1,63}(?:\.[\w-]{1,63})*\.[A-Za-z]{2,24}(?![\w-])")
# Only with the plus of a country, or in the brackets and groups that people write: rows of numbers are no telephone.
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d{1,3}[ ./-]?(?:\(\d{1,4}\)[ ./-]?)?|\(\d{3}\)[ ./-]?)\d{2,4}(?:[ ./-]?\d{2,4}){1,3}(?![\w.])"
)

_HARM = {
    "starts a program": """
        os.system os.popen os.exec* os.spawn* os.posix_spawn* os.fork os.forkpty os.kill os.killpg pty.spawn
        subprocess.* multiprocessing.Process""",
    "deletes or moves files": """
        os.remove os.unlink os.rmdir os.removedirs os.rename os.renames os.replace os.truncate shutil.rmtree
        shutil.move pathlib.Path().unlink pathlib.Path().rmdir""",
    "uses the network": """
        socket.* requests.* urllib.request.* http.client.* httpx.* aiohttp.* ftplib.* smtplib.* telnetlib.*
        websocket.* webbrowser.*""",
    "runs text as a program": "eval exec compile __import__ importlib.import_module runpy.*",
    "loads code from data": """
        pickle.load pickle.loads marshal.load marshal.loads shelve.open dill.load dill.loads ctypes.*""",
    "changes the machine": "os.chmod os.chown os.setuid os.putenv signal.* resource.* sys.settrace",
}
_HARMS = {name: what for what, names in _HARM.items() for name in names.split()}
_MODULES = "|".join(sorted({name.partition(".")[0] for name in _HARMS if "." in name}))
_HARM_NAMES = frozenset({*_MODULES.split("|"), "eval", "exec", "compile", "__import__", "open"})
_HARM_IMPORTS = [re.compile(rf"{word}[ \t]+(?:{_MODULES})\b") for word in ("from", "import")] + [
    re.compile(r"import[ \t][^\n,]*+,")
]
_HARM_WORD = re.compile(
    rf"\b(?:{_MODULES})\.|\b(?:from|import)[ \t]+(?:{_MODULES})\b|\b(?:eval|exec|compile|__import__|open)[ \t]*\("
)


def check_secrets(record: schema.Record) -> Iterator[Finding]:
    """Keys that open something, named without being repeated."""
    for field in ("code", "description"):
        text = record["code"] if field == "code" else record["description"]
        small = text.lower()
        if _KEY_PART.search(text) and (found := _KEY.search(text)):
            what = list(_KEYS)[next(number for number, group in enumerate(found.groups()) if group)]
        elif (
            ("key" in small or "secret" in small or "passw" in small or "token" in small)
            and _LONG_WORD.search(text)
            and (found := next(filter(_looks_random, _ASSIGNED.finditer(text)), None))
        ):
            what = "a password or key"
        else:
            continue
        line = text.count("\n", 0, found.start()) + 1
        yield Finding("secret", f"its {field} holds {what} (line {line})", line if field == "code" else None)


def _looks_random(found: re.Match[str]) -> bool:
    text = found[1]
    if _STAND_IN.search(text):
        return False
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts) >= _RANDOM_BITS


def check_licence(record: schema.Record, allowed: frozenset[str]) -> Iterator[Finding]:
    """Whether the licence is one of those that were allowed; a row that names none has the licence "unknown"."""
    licence = str(record["metadata"].get("licence") or "unknown")
    if licence.casefold() not in allowed:
        yield Finding("licence_not_allowed", f"its licence is {licence}")


def check_persons(record: schema.Record) -> Iterator[Finding]:
    """Mail addresses and telephone numbers."""
    texts = (record["description"], record["code"])
    counts = {what: sum(len(pattern.findall(text)) for text in texts) for what, pattern in _PERSONAL.items()}
    if any(counts.values()):
        told = " and ".join(f"{count} {what}" for what, count in counts.items() if count)
        yield Finding("personal_data", f"it holds {told}")


_PERSONAL = {"mail addresses": _EMAIL, "telephone numbers": _PHONE}


def without_persons(record: schema.Record) -> schema.Record:
    """The record with signs in place of mail addresses and telephone numbers."""
    description, code = (
        _PHONE.sub("[PHONE]", _EMAIL.sub("[EMAIL]", text)) for text in (record["description"], record["code"])
    )
    if (description, code) == (record["description"], record["code"]):
        return record
    metadata = {**record["metadata"], "redacted": True}
    return {**record, "description": description, "code": code, "metadata": metadata}


def check_danger(program: Program) -> Iterator[Finding]:
    """Calls that no picture needs. Names can be hidden from this; only the sandbox of the render gate contains."""
    if not _may_harm(program) or not _HARM_WORD.search(program.code):
        return
    names = _imported(program)
    for node in program.nodes(ast.Call):
        if what := _harm(node, names, program):
            yield Finding("dangerous_call", f"{ast.unparse(node.func)}(...) {what}", node.lineno)
            return


def _may_harm(program: Program) -> bool:
    """What is called has a name, or is imported; to ask that costs a tenth of the search itself."""
    return not _HARM_NAMES.isdisjoint(program.names) or any(each.search(program.code) for each in _HARM_IMPORTS)


def _imported(program: Program) -> dict[str, str]:
    names: dict[str, str] = {}
    for node in program.nodes(ast.Import):
        names |= {each.asname: each.name for each in node.names if each.asname}
        names |= {first: first for each in node.names if not each.asname for first in [each.name.split(".")[0]]}
    for node in program.nodes(ast.ImportFrom):
        if node.module:
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return names


def _harm(call: ast.Call, names: dict[str, str], program: Program) -> str | None:
    if isinstance(call.func, ast.Name) and call.func.id == "open" and "open" not in program.bound:
        return "writes a file" if _writes(call) else None
    dotted = _dotted(call.func)
    first = dotted.partition(".")[0].removesuffix("()")
    if first not in names:
        return _HARMS.get(dotted) if dotted not in program.bound else None
    full = names[first] + dotted.removeprefix(first)
    for name in (full, *(full[:end] + "*" for end in range(len(full), 3, -1))):
        if name in _HARMS:
            return _HARMS[name]
    return None


def _writes(call: ast.Call) -> bool:
    modes = [*call.args[1:2], *(each.value for each in call.keywords if each.arg == "mode")]
    return any(isinstance(mode, ast.Constant) and set("wax+") & set(str(mode.value)) for mode in modes)


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{_dotted(value)}.{name}"
        case ast.Call(func=func):
            return f"{_dotted(func)}()"
    return ""
