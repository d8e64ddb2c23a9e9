"""By which means an answer gets its shape.

native   the provider's own: a JSON schema that the model can not leave
json     "some JSON object", for servers that refuse the first; the schema stands in the prompt
text     nothing but the prompt, for servers that refuse both

Whatever the means, every answer is checked against the schema. A server that refuses is asked by the next means, which
is said once and remembered in the cache folder; --structured settles it.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import schema
from stages.prepare_data_with_llm.questions import Request

MEANS = ("native", "json", "text")
NOTES = "structured.json"
RULE = """

Answer with one JSON object and nothing else. It follows this JSON schema:
"""


@dataclass
class Structure:
    """The means that are used now; they get weaker at the first call, and never later."""

    means: str
    is_settled: bool = False
    server: str = ""
    folder: Path = Path()

    def of(self, request: Request) -> Request:
        """A request by these means; all of it is in the key, so that answers by other means are other answers."""
        if self.means == "native":
            return request
        told = request.system + RULE + json.dumps(request.schema, ensure_ascii=False)
        return replace(request, system=told, parameters=request.parameters | {"structured": self.means})

    def weaken(self, refusal: str) -> bool:
        """Go on by the next means; False if there is none, or if the user has settled it."""
        if self.is_settled or self.means == MEANS[-1]:
            return False
        self.means = MEANS[MEANS.index(self.means) + 1]
        schema.log(
            f"{self.server} refuses the shape of the answer ({refusal[:120]}); asking with --structured {self.means}"
        )
        notes = read_notes(self.folder) | {self.server: self.means}
        with schema.atomic(self.folder / NOTES) as file:
            file.write(schema.canonical(notes))
        return True


def choose(told: str | None, server: str, folder: Path) -> Structure:
    """The means that the user names, or those by which this server was asked before."""
    means = told or read_notes(folder).get(server, MEANS[0])
    return Structure(means, told is not None, server, folder)


def read_notes(folder: Path) -> dict[str, str]:
    """What is remembered about servers; a file that somebody has spoilt is as good as none."""
    try:
        notes = json.loads((folder / NOTES).read_bytes())
    except (OSError, ValueError):
        return {}
    return {server: means for server, means in notes.items() if means in MEANS} if isinstance(notes, dict) else {}
