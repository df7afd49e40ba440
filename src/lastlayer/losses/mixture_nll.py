"""The negative log-likelihood of a mixture: what a mixture density network is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.checks import InputError, ShapeError, check_choice, shape_text
from lastlayer.evaluation import Formula, evaluate
from lastlayer.facts import REAL, LossFacts
from lastlayer.losses.location_scale import (
    GAUSSIAN,
    LAPLACE,
    LOGISTIC,
    MINIMUM_SCALE,
    STUDENT_T,
    Family,
    StudentTFamily,
    check_event_target,
    raw_from_scale,
    scale_derivative,
    scale_from_raw,
)
from lastlayer.losses.loss import Loss
from lastlayer.losses.options import POSITIVE, check_option

FAMILIES: dict[str, Family] = {family.name: family for family in (GAUSSIAN, LAPLACE, STUDENT_T, LOGISTIC)}


def _example(
    n: int, *, dtype: torch.dtype = torch.float32, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    # Two groups of targets, three components: shares, locations, raw scales.
    target = torch.randn(n, dtype=dtype, generator=generator)
    target = target + 3 * torch.sign(torch.randn(n, dtype=dtype, generator=generator))
    size = torch.tensor([1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 1.0, 1.0, 1.0], dtype=dtype)
    return size * torch.randn(n, 9, dtype=dtype, generator=generator), target


def mixture_parameters(raw: Tensor, minimum_scale: float = MINIMUM_SCALE) -> tuple[Tensor, Tensor, Tensor]:
    """Shares, locations and scales ``(..., M)`` each, from a raw output ``(..., 3M)``.

    Example:
        >>> mixture_parameters(torch.tensor([0.0, 0.0, -2.0, 2.0, -1.0, -1.0]))
        (tensor([0.5000, 0.5000]), tensor([-2.,  2.]), tensor([0.3143, 0.3143]))
    """
    logits, location, raw_scale = raw.chunk(3, dim=-1)
    return torch.softmax(logits, dim=-1), location, scale_from_raw(raw_scale, minimum_scale)


@dataclass(frozen=True)
class MixtureNLLFormula(Formula):
    """``−logsumexp_k(log π_k − h(z_k) − log σ_k)`` with ``z_k = (y − μ_k)/σ_k``."""

    components: int | None = None
    family: str = "gaussian"
    minimum_scale: float = MINIMUM_SCALE
    degrees_of_freedom: float | None = None
    event_dims = 1
    facts = LossFacts(
        name="mixture_nll",
        title="mixture negative log-likelihood (mixture density network)",
        target=REAL,
        raw=REAL,
        link="softmax, identity, softplus",
        formula="−log Σ_k π_k g((y − μ_k)/σ_k)/σ_k, π = softmax(a), μ = s, σ = softplus(r) + ε, g Gaussian, Laplace, "
        "Student's t or logistic",
        gradient="π − ρ in a, ρ times the component's own gradient in s and r; ρ the responsibilities",
        minimum="that of one component of the least scale, with all locations at y",
        optimal_constant="no closed form; a start near the marginal fit, its components at that fit's quantiles",
        convex=False,
        smooth=True,
        likelihood="mixture of Gaussians, Laplaces, Student's t or logistics",
        use_when="for one input several distinct values are likely, and their mean is not",
        avoid_when="one value with a spread says it all: gaussian_nll does not depend on where its components start",
        reference="SPEC A7, B14; C. M. Bishop, Mixture density networks (1994)",
        example=_example,
        exact_constant=False,
    )

    def __post_init__(self) -> None:
        check_choice(self.family, tuple(FAMILIES), what="mixture_nll: family")
        check_option(self.minimum_scale, POSITIVE, what="mixture_nll: minimum_scale")
        if self.components is not None and self.components < 1:
            raise InputError(f"mixture_nll: components is {self.components}; expected a whole number from 1 on.")
        if self.degrees_of_freedom is not None:
            check_option(self.degrees_of_freedom, POSITIVE, what="mixture_nll: degrees_of_freedom")
            if self.family != "student_t":
                raise InputError(
                    f"mixture_nll: degrees_of_freedom is {self.degrees_of_freedom} and family {self.family!r}; "
                    f"expected them with 'student_t' alone."
                )

    @property
    def density(self) -> Family:
        """The density of every component."""
        if self.degrees_of_freedom is not None:
            return StudentTFamily(self.degrees_of_freedom)
        return FAMILIES[self.family]

    def conform(self, raw: Tensor, target: Tensor) -> Tensor:
        last = raw.shape[-1] if raw.dim() else 0
        if last == 0 or last % 3 or (self.components is not None and last != 3 * self.components):
            expected = "3·components" if self.components is None else f"{3 * self.components}"
            raise ShapeError(
                f"mixture_nll: raw has shape {shape_text(raw)}, target {shape_text(target)}; expected raw of shape "
                f"(..., {expected}), the logits of the shares, then the locations, then the raw scales, and target "
                f"(...)."
            )
        check_event_target(raw, target, loss="mixture_nll")
        return target.to(raw.dtype)

    def value(self, raw: Tensor, target: Tensor) -> Tensor:
        _, _, z, scale, log_share = self._components(raw, target)
        return -torch.logsumexp(self._log_joint(z, scale, log_share), dim=-1)

    def gradient(self, raw: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(raw, target)[1]

    def value_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the components' joint densities; their softmax is the responsibilities."""
        family, raw_scale, z, scale, log_share = self._components(raw, target)
        joint = self._log_joint(z, scale, log_share)
        responsibility = torch.softmax(joint, dim=-1)
        slope = family.derivative(z)
        per_scale = responsibility / scale
        gradient = torch.cat(
            [
                log_share.exp() - responsibility,
                -slope * per_scale,
                (1.0 - z * slope) * per_scale * scale_derivative(raw_scale),
            ],
            dim=-1,
        )
        return -torch.logsumexp(joint, dim=-1), gradient

    def _components(self, raw: Tensor, target: Tensor) -> tuple[Family, Tensor, Tensor, Tensor, Tensor]:
        """The family; every component's raw scale, standardized error and scale; the logarithms of the shares."""
        logits, location, raw_scale = raw.chunk(3, dim=-1)
        scale = scale_from_raw(raw_scale, self.minimum_scale)
        z = (target.unsqueeze(-1) - location) / scale
        return self.density, raw_scale, z, scale, torch.log_softmax(logits, dim=-1)

    def _log_joint(self, z: Tensor, scale: Tensor, log_share: Tensor) -> Tensor:
        return log_share - self.density.negative_log_density(z) - scale.log()

    def optimal_constant(self, target: Tensor, sample_weight: Tensor) -> Tensor:
        """A start, not the optimum: the marginal fit of one component, cut into equal shares.

        The locations lie at that fit's quantiles, and the scale is such that the mixture's variance is the fit's. With
        one component that is the fit itself.
        """
        if self.components is None:
            raise InputError("mixture_nll: the constant to start from needs to know how many components; pass them.")
        family = self.density
        location, scale = family.fit(target, sample_weight)
        share = (torch.arange(self.components, dtype=target.dtype, device=target.device) + 0.5) / self.components
        z = family.quantile(share)
        narrowed = scale * (1.0 - z.square().mean() / family.variance).sqrt()
        raw_scale = raw_from_scale(narrowed, self.minimum_scale).unsqueeze(-1).expand(*location.shape, len(share))
        locations = location.unsqueeze(-1) + scale.unsqueeze(-1) * z
        return torch.cat([torch.zeros_like(locations), locations, raw_scale], dim=-1)


def mixture_nll(
    raw: Tensor,
    target: Tensor,
    *,
    components: int | None = None,
    family: str = "gaussian",
    minimum_scale: float = MINIMUM_SCALE,
    degrees_of_freedom: float | None = None,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Negative log-likelihood of a mixture of M components: the loss of a mixture density network.

    Domain: targets and raw outputs are real numbers.

    Link: raw output (a, s, r) of M numbers each: shares ``π = softmax(a)``, locations ``μ = s``, scales
    ``σ = softplus(r) + ε`` with ε the ``minimum_scale``.

    Formula: ``−log Σ_k π_k g(z_k)/σ_k`` with ``z_k = (y − μ_k)/σ_k`` and g the standard density of the ``family``:
    ``"gaussian"``, σ the standard deviation; ``"laplace"``, σ the mean absolute deviation; ``"student_t"`` with the
    ``degrees_of_freedom``, 4 unless given; or ``"logistic"``, whose standard deviation is ``σ π/√3``.

    Gradient: with the responsibilities ``ρ_k = π_k g(z_k)/σ_k / Σ_j π_j g(z_j)/σ_j``: ``π − ρ`` in a; ρ times the
    gradient of one component alone (:func:`gaussian_nll`, :func:`laplace_nll`, :func:`student_t_nll`) in s and r.

    Shapes: raw ``(..., 3M)``, M of its last axis unless ``components`` says so too; target and per-sample value
    ``(...)``. Units: nats, for a density in units of the target. ``minimum_scale`` is in units of the target as well:
    its default of 0.001 is meant for a target of unit spread.

    Numerics: in logarithms throughout: however far away the target, some component answers for it. In float16 a
    gradient beyond ±65504 is held there.

    Special cases: with one component gaussian_nll, laplace_nll or student_t_nll. Components may change places
    without changing the loss. No best constant in closed form: the formula gives a start.

    Raises:
        ShapeError: if raw does not end in a multiple of 3 (or in 3·components), or the target is not raw's shape
            without that axis.
        InputError: if the family is not one of the four, or ``degrees_of_freedom`` are given for another than
            ``"student_t"``.
        DomainError: if ``minimum_scale`` or ``degrees_of_freedom`` is not a positive number.

    Example:
        >>> raw = torch.tensor([[0.0, 0.0, -2.0, 2.0, -1.0, -1.0]])
        >>> mixture_nll(raw, torch.tensor([2.0]))
        tensor(0.4546)

    Reference: SPEC A7, B14; C. M. Bishop, Mixture density networks, Aston University NCRG/94/004 (1994).
    """
    return evaluate(
        MixtureNLLFormula(components, family, minimum_scale, degrees_of_freedom),
        raw,
        target,
        sample_weight=sample_weight,
        reduction=reduction,
        normalizer=normalizer,
    )


class MixtureNLL(Loss):
    """Module form of :func:`mixture_nll`."""

    def __init__(
        self,
        *,
        components: int | None = None,
        family: str = "gaussian",
        minimum_scale: float = MINIMUM_SCALE,
        degrees_of_freedom: float | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        checked = MixtureNLLFormula(components, family, minimum_scale, degrees_of_freedom)
        self.components, self.family, self.minimum_scale = checked.components, checked.family, checked.minimum_scale
        self.degrees_of_freedom = checked.degrees_of_freedom

    @property
    def formula(self) -> MixtureNLLFormula:
        """The mathematics, with this module's options."""
        return MixtureNLLFormula(self.components, self.family, self.minimum_scale, self.degrees_of_freedom)
