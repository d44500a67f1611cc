"""The bugs of test/fault/mutants, which builds and tests each of them: here, that each still can be
seeded, and is looked for by tests that are there."""

from __future__ import annotations

import pathlib
import re

import pytest

from mutations import COLLECTOR, MUTATIONS

TESTS = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_a_bug_can_still_be_seeded(mutation):
    text = (COLLECTOR / mutation.file).read_text()
    assert mutation.apply(text) != text


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_the_tests_that_should_notice_it_are_there(mutation):
    for test in mutation.tests.split():
        file, _, name = test.partition("[")[0].partition("::")
        found = [TESTS / file] if "/" in file else TESTS.glob(f"*/test_{file}.c")
        text = "".join(path.read_text() for path in found)
        assert text and (not name or re.search(rf"^def {name}\(", text, re.M)), test


def test_there_are_many_and_each_is_another():
    assert len({(m.file, m.old, m.new) for m in MUTATIONS}) == len(MUTATIONS) >= 28
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS)
