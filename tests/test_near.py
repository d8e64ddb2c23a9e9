"""Which records say the same, and on which side each falls."""

from __future__ import annotations

from conftest import record

import schema


def test_a_record_is_linked_to_the_first_earlier_one_with_its_code_description_or_group():
    first, other = record(0), record(7)
    rows = [
        first,
        other,
        record(13, code="# a comment\n" + first["code"]),
        record(14, description=other["description"].upper()),
        record(19, metadata={"group": "a"}),
        record(24, metadata={"group": "a"}),
        record(31, code=first["code"]),
        record(33, description="", metadata={"needs_description": True}),
        record(37, description="", metadata={"needs_description": True}),
    ]
    expected = [[], [], [(0, "code", 1.0)], [(1, "description", 1.0)], [], [(4, "group", 1.0)], [(0, "code", 1.0)]]
    assert schema.links(rows, near=None) == [*expected, [], []]


def test_a_side_is_that_of_the_earlier_records_that_say_the_same():
    rows = [record(0), record(7), record(13, code=record(0)["code"]), record(14, description=record(7)["description"])]
    found = schema.sides(schema.marks(rows, near=None), [0, 1, 9, 9].__getitem__)
    assert found == [0, 1, 0, 1]


def test_a_record_that_says_the_same_as_two_sides_is_a_bridge_and_pulls_nothing_along():
    bridge = record(7, description=record(0)["description"])
    rows = [record(0), record(7), bridge, record(13, code=record(7)["code"])]
    found = schema.sides(schema.marks(rows, near=None), [0, 1, 9, 9].__getitem__)
    assert found == [0, 1, schema.Bridge((0, "description", 1.0), (1, "code", 1.0)), 1]


def test_records_that_come_later_change_no_side():
    rows = [record(number % 30, description=f"A scene, {number % 7} of some.") for number in range(60)]

    def sides(rows):
        marks = schema.marks(rows, near=None)
        return schema.sides(marks, lambda number: int(schema.share(marks.key(number), 42) < 0.5))

    assert sides(rows)[:40] == sides(rows[:40])
    assert {side for side in sides(rows) if isinstance(side, int)} == {0, 1}
