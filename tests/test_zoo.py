"""A share of the zoo: a question that has gone deaf or shrill shows; ``benchmarks/doctor.py`` counts all of it."""

from __future__ import annotations

import warnings

import pytest

import zoo
from lastlayer.diagnosis import Findings, catalog

# The first set-up of every fault, and every twelfth healthy one.
BROKEN = list({setup.fault: setup for setup in reversed(zoo.BROKEN.values())}.values())
HEALTHY = list(zoo.HEALTHY.values())[::12]


def examined(setup: zoo.Setup) -> Findings:
    with warnings.catch_warnings():
        # PyTorch warns of some of the faults too.
        warnings.simplefilter("ignore")
        return zoo.examine(setup)


def test_every_fault_has_two_set_ups_and_every_set_up_a_fault() -> None:
    faults = [setup.fault for setup in zoo.BROKEN.values()]
    assert set(faults) == set(catalog()) - {"check_failed", "forward_fails"}
    assert all(faults.count(fault) >= 2 for fault in faults)
    assert len(zoo.BROKEN) >= 60
    assert len(zoo.HEALTHY) >= 60


@pytest.mark.parametrize("setup", BROKEN, ids=lambda setup: str(setup.fault))
def test_a_broken_set_up_is_recognized(setup: zoo.Setup) -> None:
    findings = examined(setup)
    assert setup.fault in findings.names, str(findings)
    assert "check_failed" not in findings.names, str(findings)


@pytest.mark.parametrize("setup", HEALTHY, ids=lambda setup: setup.name)
def test_a_healthy_set_up_raises_no_alarm(setup: zoo.Setup) -> None:
    findings = examined(setup)
    assert not findings.errors, str(findings)
    assert not findings.warnings, str(findings)
    assert "check_failed" not in findings.names, str(findings)
