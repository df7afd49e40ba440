"""What the doctor says: findings, as text for people and as plain data for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

Severity = Literal["error", "warning", "note"]

#: From what must be mended to what is good to know.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or likely to be.

    Attributes:
        name: the fault, a key of :func:`lastlayer.diagnosis.catalog`.
        severity: ``"error"`` (learning fails or the figures mean something else), ``"warning"`` (learning is held back,
            or will be), ``"note"`` (good to know).
        where: the layer, column, tensor or step, as the user knows it: ``"layer 'body.2' (Sigmoid)"``.
        evidence: what was measured, how much, and on what data, in a sentence.
        fix: what to do, in a sentence.
        numbers: the figures in the evidence, by name.
        tried: what the fix did when it was tried on a copy; ``None`` if it was not.
    """

    name: str
    severity: Severity
    where: str
    evidence: str
    fix: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    tried: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "name": self.name,
            "severity": self.severity,
            "where": self.where,
            "evidence": self.evidence,
            "fix": self.fix,
            "numbers": {name: float(number) for name, number in self.numbers.items()},
            "tried": self.tried,
        }

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Finding:
        """The finding that :meth:`to_dict` described."""
        return cls(**description)

    def __str__(self) -> str:
        tried = f"\n    tried: {self.tried}" if self.tried else ""
        return f"{self.severity}: {self.name}, {self.where}\n    {self.evidence}\n    fix: {self.fix}{tried}"


class Findings(Sequence[Finding]):
    """Findings in order of severity; those of one severity as they were found.

    Special cases: empty if nothing was found, and then false.
    """

    def __init__(self, findings: Iterable[Finding] = ()) -> None:
        self._findings = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))

    @property
    def errors(self) -> list[Finding]:
        """What must be mended."""
        return self.of_severity("error")

    @property
    def warnings(self) -> list[Finding]:
        """What holds learning back."""
        return self.of_severity("warning")

    @property
    def names(self) -> list[str]:
        """The faults found, each once."""
        return list(dict.fromkeys(finding.name for finding in self))

    def of_severity(self, severity: Severity) -> list[Finding]:
        """Those of one severity."""
        return [finding for finding in self if finding.severity == severity]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON: how many of each severity, and every finding."""
        return {
            **{f"{severity}s": len(self.of_severity(severity)) for severity in SEVERITIES},
            "findings": [finding.to_dict() for finding in self],
        }

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Findings:
        """The findings that :meth:`to_dict` described."""
        return cls(map(Finding.from_dict, description["findings"]))

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> Findings: ...
    def __getitem__(self, index: int | slice) -> Finding | Findings:
        return Findings(self._findings[index]) if isinstance(index, slice) else self._findings[index]

    def __len__(self) -> int:
        return len(self._findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._findings)

    def __add__(self, other: Iterable[Finding]) -> Findings:
        return Findings([*self, *other])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Findings) and self._findings == other._findings

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Findings({self._findings!r})"

    def __str__(self) -> str:
        return "\n".join(map(str, self)) if self else "Nothing found."
