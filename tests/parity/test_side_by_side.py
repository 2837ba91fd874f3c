"""Runs each probe on asyncio and on the loop under test and compares the outcomes."""

from __future__ import annotations

import pytest

from .differences import DIFFERENCES, corrected
from .harness import PROBE_FAILED, Probe, differences, run_probe
from .loops import factory_under_test, is_twin, new_reference_loop
from .registry import all_probes

PROBES = all_probes()


@pytest.mark.parametrize("probe", [found for found in PROBES if found.applies], ids=str)
def test_a_program_sees_the_same_as_on_asyncio(probe: Probe) -> None:
    factory = factory_under_test()
    expected = run_probe(probe, new_reference_loop)
    broken = [event for event in expected.events if event[0] == PROBE_FAILED]
    assert not broken, f"a probe has to work on asyncio: {broken}"
    if not is_twin(factory):
        expected = corrected(probe.name, expected)
    found = differences(expected, run_probe(probe, factory))
    if found:
        pytest.fail(f"row {probe.row}:\n" + "\n".join(found), pytrace=False)


def test_every_listed_difference_belongs_to_a_probe() -> None:
    names = {probe.name for probe in PROBES}
    assert {difference.probe for difference in DIFFERENCES} <= names
