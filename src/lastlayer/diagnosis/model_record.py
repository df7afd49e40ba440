"""What the record of a saved model tells of its training: its curves, and its figures beside simpler models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lastlayer.diagnosis.finding import Finding, Findings
from lastlayer.diagnosis.run_questions import judge_run
from lastlayer.diagnosis.simple_predictors import WORSE_THAN_CONSTANT, WORSE_THAN_LINEAR


def judge_model_record(record: Mapping[str, Any]) -> Findings:
    """What is wrong with how a model came about.

    Args:
        record: of a :class:`lastlayer.model.Model`: ``"run"``, the record of a recorder, or else ``"training"``, the
            curves; and ``"figures"``.

    Example:
        >>> figures = {"network": {"nll": 1.2}, "constant": {"nll": 1.1}, "linear": {"nll": 0.9}}
        >>> judge_model_record({"figures": figures, "judged_on": "held-out rows"}).names
        ['worse_than_constant']
    """
    findings = list(_beside_simpler(record))
    run = record.get("run") or record.get("training")
    told = {finding.name for finding in findings}
    return Findings([*findings, *(finding for finding in (judge_run(run) if run else []) if finding.name not in told)])


def _beside_simpler(record: Mapping[str, Any]) -> Iterator[Finding]:
    """The figures have no standard error, so what may be chance is no more than a note."""
    likelihood = {name: figures.get("nll") for name, figures in record.get("figures", {}).items()}
    network, judged_on = likelihood.get("network"), str(record.get("judged_on", "")).partition(":")[0]
    if network is None:
        return
    for name, fault, severity in (("constant", WORSE_THAN_CONSTANT, "warning"), ("linear", WORSE_THAN_LINEAR, "note")):
        other = likelihood.get(name)
        if other is not None and other < network:
            yield fault.found(
                "the model",
                f"its negative log-likelihood on {judged_on} is {network:.4g}; the {name} model has {other:.4g}.",
                numbers={"network": float(network), name: float(other)},
                severity=severity,  # type: ignore[arg-type]
            )
            return
