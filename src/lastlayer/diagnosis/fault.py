"""A fault the doctor knows, as data: what it is, how bad, why it matters, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lastlayer.diagnosis.finding import Finding, Severity


@dataclass(frozen=True)
class Fault:
    """One mistake or one way in which learning fails.

    Attributes:
        name: in snake case; what :class:`Finding` and the zoo call it.
        title: in a few words.
        severity: of its findings, unless one says otherwise.
        why: what it does to learning, and how it comes about, in a sentence or two.
        fix: what to do, in a sentence.
        reference: where it is described.
    """

    name: str
    title: str
    severity: Severity
    why: str
    fix: str
    reference: str

    def found(
        self,
        where: str,
        evidence: str,
        *,
        numbers: Mapping[str, float] | None = None,
        fix: str | None = None,
        severity: Severity | None = None,
        tried: str | None = None,
    ) -> Finding:
        """This fault, found there."""
        return Finding(
            name=self.name,
            severity=severity or self.severity,
            where=where,
            evidence=evidence,
            fix=fix or self.fix,
            numbers=dict(numbers or {}),
            tried=tried,
        )
