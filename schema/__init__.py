"""The record that every stage reads and writes, and the contract that every stage keeps. Nothing else is shared.

    with schema.write(output) as keep, schema.rejects(output) as reject:
        for record in schema.read(source, reject):
            keep(record)

A file-to-file stage gets its options, its rejects, its ledger, its worker processes and its exit codes from
`schema.options` and `schema.run`; docs/record-format.md describes the files themselves.
"""

from schema._commit import Held, atomic, beside, folder, lock
from schema._contract import (
    CONTEXT,
    ENGINE,
    RESHARD,
    Contract,
    folder_options,
    options,
    workplace_options,
)
from schema._convert import to_record
from schema._engine import Workplace, check, each
from schema._files import Reject, ledger_path, numbered, read, rejects, rejects_path, write, write_parts
from schema._identity import (
    VERSION,
    add_lineage,
    adopt,
    content_hash,
    description_fingerprint,
    record_id,
    share,
)
from schema._ledger import audit, file_facts, write_ledger
from schema._marks import FIELDS, Marked, Marker, Marks, MarkWriter
from schema._near import Bridge, Finder, Link, links, marks, sides
from schema._normal import code_fingerprint
from schema._options import dotenv, stacked, take_dotenv, verbosity
from schema._record import SCHEMA_FILE, Fault, Record, canonical, encode, problem, sha256
from schema._report import Failure, Incomplete, also_log, group, log, main, progress, set_verbosity
from schema._shards import exists, files, is_set, set_name, stamp, version_of
from schema._spread import columns, components, dealt, gather, pairs, sketches, subset
from schema._stage import Run, rehearsal, run
from schema._storage import absolute, at_hand, is_remote, read_bytes
from schema._tokens import as_read, names, parses, syntax_error

__all__ = [
    "CONTEXT",
    "ENGINE",
    "FIELDS",
    "RESHARD",
    "SCHEMA_FILE",
    "VERSION",
    "Bridge",
    "Contract",
    "Failure",
    "Fault",
    "Finder",
    "Held",
    "Incomplete",
    "Link",
    "MarkWriter",
    "Marked",
    "Marker",
    "Marks",
    "Record",
    "Reject",
    "Run",
    "Workplace",
    "absolute",
    "add_lineage",
    "adopt",
    "also_log",
    "as_read",
    "at_hand",
    "atomic",
    "audit",
    "beside",
    "canonical",
    "check",
    "code_fingerprint",
    "columns",
    "components",
    "content_hash",
    "dealt",
    "description_fingerprint",
    "dotenv",
    "each",
    "encode",
    "exists",
    "file_facts",
    "files",
    "folder",
    "folder_options",
    "gather",
    "group",
    "is_remote",
    "is_set",
    "ledger_path",
    "links",
    "lock",
    "log",
    "main",
    "marks",
    "names",
    "numbered",
    "options",
    "pairs",
    "parses",
    "problem",
    "progress",
    "read",
    "read_bytes",
    "record_id",
    "rehearsal",
    "rejects",
    "rejects_path",
    "run",
    "set_name",
    "set_verbosity",
    "sha256",
    "share",
    "sides",
    "sketches",
    "stacked",
    "stamp",
    "subset",
    "syntax_error",
    "take_dotenv",
    "to_record",
    "verbosity",
    "version_of",
    "workplace_options",
    "write",
    "write_ledger",
    "write_parts",
]
