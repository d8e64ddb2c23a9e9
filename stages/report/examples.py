"""The sections that show rows beside each other: duplicates and what stays of them, descriptions before and after."""

from __future__ import annotations

from collections.abc import Mapping

import schema
from stages.report import drawing
from stages.report.census import Census, Cluster, Removed
from stages.report.markup import Section, beside, compared, details, quote


def duplicates(census: Census, kept: Mapping[str, schema.Record]) -> Section:
    """The largest clusters, each removed row beside the one that stays."""
    title = "Duplicates"
    removed = census.clusters.total()
    if not removed:
        return Section("duplicates", title, "No row was merged into another one.", [])
    clusters = census.shown_clusters()
    words = (
        f"{removed:,} rows were merged into {len(census.clusters):,} others. The {len(clusters):,} largest clusters:"
    )
    return Section(
        "duplicates", title, words, [_cluster(one, kept.get(one.kept_id), one is clusters[0]) for one in clusters]
    )


def _cluster(cluster: Cluster, original: schema.Record | None, is_first: bool) -> str:
    pairs = [_pair(one, original, cluster.kept_id) for one in cluster.removed[:2]]
    more = f"<p>{cluster.size - len(pairs):,} more in this cluster.</p>" if cluster.size > len(pairs) else ""
    title = f"{cluster.size + 1:,} rows: {_title(original or cluster.removed[0].record)}"
    return details(title, *pairs, more, is_open=is_first)


def _pair(one: Removed, original: schema.Record | None, kept_id: str) -> str:
    why = f"{one.field}, similarity {one.similarity:.2f}"
    if original is None:
        title = f"removed · {why} · the kept row {kept_id[:12]} is in none of the files"
        return quote(title, one.record["code"], kind="code")
    titles = (f"kept · {original['source']}", f"removed · {one.record['source']} · {why}")
    if one.field == "description":
        return compared(titles, original["description"], one.record["description"])
    return compared(titles, original["code"], one.record["code"])


def _title(record: schema.Record) -> str:
    words = record["description"] or str(record["metadata"].get("scene") or record["code"])
    return drawing.cut(" ".join(words.split()), 100)


def rewrites(census: Census) -> Section:
    title = "Rewritten descriptions"
    if not census.rewritten:
        return Section("rewrites", title, "No description that a source brought was written anew.", [])
    rows = census.shown_rewrites()
    words = f"{census.rewritten:,} descriptions were written anew; {len(rows)} of them, evenly spread."
    blocks = [
        beside(
            quote("before", row["metadata"]["original_description"] or "(nothing)"),
            quote(f"after · {row['metadata'].get('description_generated_by') or 'unknown'}", row["description"]),
        )
        for row in rows
    ]
    return Section("rewrites", title, words, blocks)
