"""The bugs of test/fault/mutants, which builds and tests each of them: here, that each still can be
seeded, and is looked for by tests that are there."""

from __future__ import annotations

import pathlib
import re

from mutations import COLLECTOR, MUTATIONS, Mutation

TESTS = pathlib.Path(__file__).resolve().parents[1]


def why_not(mutation: Mutation) -> str | None:
    text = (COLLECTOR / mutation.file).read_text()
    try:
        return f"{mutation.name} changes nothing" if mutation.apply(text) == text else None
    except LookupError as error:
        return str(error)


def is_there(test: str) -> bool:
    file, _, name = test.partition("[")[0].partition("::")
    found = [TESTS / file] if "/" in file else TESTS.glob(f"*/test_{file}.c")
    text = "".join(path.read_text() for path in found)
    return bool(text and (not name or re.search(rf"^def {name}\(", text, re.M)))


def test_each_bug_can_still_be_seeded():
    assert list(filter(None, map(why_not, MUTATIONS))) == []


def test_the_tests_that_should_notice_are_there():
    tests = {test for mutation in MUTATIONS for test in mutation.tests.split()}
    assert sorted(test for test in tests if not is_there(test)) == []


def test_there_are_many_and_each_is_another():
    assert len({(m.file, m.old, m.new) for m in MUTATIONS}) == len(MUTATIONS) >= 28
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS)
