"""Every check that scikit-learn has for an estimator."""

from __future__ import annotations

from typing import Any

from sklearn.utils.estimator_checks import parametrize_with_checks

from lastlayer import Classifier, Regressor

# scikit-learn marks its own stochastic learners (SGDClassifier, …) so for the same reason.
STOCHASTIC = {
    "check_sample_weight_equivalence_on_dense_data": (
        "the check compares to 1e-7; repeated rows change the order of float32 sums, the mini-batches and the split. "
        "Weights equal repetition in the loss and its gradient: tests/test_losses.py."
    ),
}


@parametrize_with_checks(
    [Classifier(hidden=(32,), max_epochs=30, bins=4), Regressor(hidden=(32,), max_epochs=30, bins=4)],
    expected_failed_checks=lambda estimator: STOCHASTIC,
)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)
