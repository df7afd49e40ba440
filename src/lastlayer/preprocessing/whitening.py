"""Columns that are uncorrelated, and of variance 1: the lecture's last two steps of preprocessing a table.

The two before them, the zero mean and the normalization to standard deviation 1, are scikit-learn's ``StandardScaler``,
which streams, weights and inverts as the transformers here do; ``ElementwiseScaling.of(scaler)`` in ``modules.py``
makes a module of it.
"""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, OneToOneFeatureMixin

from lastlayer.checks import InputError, LastLayerWarning, check_choice
from lastlayer.preprocessing.affine import AffineTransformer, Eigenpairs, Maps, eigenpairs
from lastlayer.preprocessing.moments import Floats, Moments

KINDS = ("pca", "zca")


class Decorrelator(ClassNamePrefixFeaturesOutMixin, AffineTransformer):
    """Rotate centered rows onto the eigenvectors of their covariance matrix, so that no two columns are correlated.

    Formula: ``z = (x − mean) V`` with ``covariance = V Λ Vᵀ``; back, ``x = z Vᵀ + mean``. The columns of the result
    are in the order of their variance, which is ``eigenvalues_``. This is principal component analysis.

    Directions without variance, which constant and dependent columns and fewer rows than columns bring about, are left
    out, and the inverse still gives the input, which has nothing in them. See :class:`Whitener` for ``floor``, and for
    the warning of a column that is lost.

    Shapes: ``(n, columns)`` to ``(n, directions)``. Images are rows once they are flattened,
    ``images.reshape(len(images), -1)``. Memory: the covariance matrix, whatever the number of rows.

    Numerics: float64 inside, the dtype of the input outside if that is float32 or float64. The sign of each direction
    is such that its largest entry is positive. Directions of equal variance may be any rotation of each other.

    Args:
        floor: the share of the largest variance up to which a direction counts as empty.
        components: how many directions to use at most, those of most variance; ``None`` for all.

    Raises:
        InputError: for fewer than 2 rows in all, cells that are not finite, an option that cannot be.
        ShapeError: for other columns than in training.
        KindError: for sparse matrices and other things that are no tables of numbers.

    Example:
        >>> X = np.array([[1.0, 1.0], [3.0, 3.0], [5.0, 2.0], [7.0, 6.0]])
        >>> decorrelator = Decorrelator().fit(X)
        >>> np.cov(decorrelator.transform(X).T, bias=True).round(3) + 0.0
        array([[7.829, 0.   ],
               [0.   , 0.671]])
        >>> decorrelator.inverse_transform(decorrelator.transform(X)).round(9)
        array([[1., 1.],
               [3., 3.],
               [5., 2.],
               [7., 6.]])

    Reference: SPEC E1.
    """

    def __init__(self, *, floor: float = 1e-12, components: int | None = None) -> None:
        self.floor = floor
        self.components = components

    def _check_options(self, columns: int) -> None:
        _check_directions(self.floor, self.components, columns)

    def _maps_of(self, moments: Moments) -> Maps:
        pairs = _used(moments, self.floor, self.components)
        return Maps(pairs, moments.mean, pairs.vectors, pairs.vectors.T)


class Whitener(ClassNamePrefixFeaturesOutMixin, AffineTransformer):
    """Make columns uncorrelated and give each variance 1, so that the covariance matrix is the identity.

    Formula: with ``covariance = V Λ Vᵀ``,

    - ``"pca"``: ``z = (x − mean) V (Λ + ε)^(−1/2)``, the columns in the order of their variance before;
    - ``"zca"``: ``z = (x − mean) V (Λ + ε)^(−1/2) Vᵀ``, rotated back. Of all ways to whiten, it changes the rows
      least in mean square: each column still means what it meant, and a whitened image still looks like one.

    Back, the same with ``+1/2`` in place of ``−1/2``.

    Directions whose variance is at most ``floor`` times the largest hold nothing but rounding. Divided by its square
    root they would be noise of variance 1, so PCA leaves them out, and ZCA leaves them at zero. That is how
    constant columns, columns that depend on others and fewer rows than columns are dealt with: the result has as many
    uncorrelated directions as the data, and the inverse still gives the input, which has nothing in the other ones.

    Shapes: ``(n, columns)`` to ``(n, directions)``, at most ``components`` of them, for PCA, and ``(n, columns)`` for
    ZCA. Images are rows once they are flattened, ``images.reshape(len(images), -1)``. Memory: the covariance matrix,
    whatever the number of rows.

    Numerics: float64 inside, the dtype of the input outside if that is float32 or float64. A direction of variance
    λ beside the largest λ_max is whitened up to about ``1e-16 · λ_max / λ`` times a small number: at the default
    floor, the covariance of the result is the identity up to about 1e-3, and at a condition number of 10⁸ up to 1e-7.
    Covariances are divided by the number of rows, as in the lecture: beside scikit-learn's ``PCA(whiten=True)``, which
    divides by one less, results are larger by ``√(n / (n − 1))``. The signs of PCA's directions are such that
    the largest entry of each is positive; directions of equal variance may be any rotation of each other. ZCA has
    no such freedom.

    Special cases: a column that is lost below the floor because its unit is large beside another's is named in a
    ``LastLayerWarning``; scaled columns cure it, ``make_pipeline(StandardScaler(), Whitener())``. What the data were
    rounded to before they came here, as float32 beside a mean of 10⁴ times the spread, may lie above the floor and
    then counts as data: raise ``floor``, or set ``epsilon``.

    Args:
        kind: ``"pca"`` or ``"zca"``.
        epsilon: ε, in squared units of the input. Above 0 it holds back directions of little variance, whose noise
            whitening would enlarge, and their variance stays below 1.
        floor: the share of the largest variance up to which a direction counts as empty.
        components: how many directions to use at most, those of most variance; ``None`` for all.

    Raises:
        InputError: for fewer than 2 rows in all, cells that are not finite, an option that cannot be.
        ShapeError: for other columns than in training.
        KindError: for sparse matrices and other things that are no tables of numbers.

    Example:
        >>> X = np.array([[1.0, 1.0], [3.0, 3.0], [5.0, 2.0], [7.0, 6.0]])
        >>> whitener = Whitener("zca").fit(X)
        >>> np.cov(whitener.transform(X).T, bias=True).round(9) + 0.0
        array([[1., 0.],
               [0., 1.]])
        >>> X = np.column_stack([X, X.sum(axis=1), np.ones(4)])  # one depends on others, one is constant
        >>> whitener = Whitener("pca").fit(X)
        >>> whitener.transform(X).shape
        (4, 2)
        >>> np.allclose(whitener.inverse_transform(whitener.transform(X)), X)
        True

    Reference: SPEC E1; A. Kessy, A. Lewin, K. Strimmer, Optimal whitening and decorrelation (The American
    Statistician, 2018); A. J. Bell, T. J. Sejnowski, The "independent components" of natural scenes are edge filters
    (Vision Research, 1997) for ZCA.
    """

    def __init__(
        self, kind: str = "pca", *, epsilon: float = 0.0, floor: float = 1e-12, components: int | None = None
    ) -> None:
        self.kind = kind
        self.epsilon = epsilon
        self.floor = floor
        self.components = components

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """ZCA's columns keep their names; PCA's are called whitener0, whitener1, …"""
        mixin = OneToOneFeatureMixin if self.kind == "zca" else ClassNamePrefixFeaturesOutMixin
        names: NDArray[np.object_] = mixin.get_feature_names_out(self, input_features)
        return names

    def _check_options(self, columns: int) -> None:
        check_choice(self.kind, KINDS, what="kind")
        _check_directions(self.floor, self.components, columns)
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise InputError(f"epsilon is {self.epsilon!r}; expected a finite number of at least 0.")

    def _maps_of(self, moments: Moments) -> Maps:
        pairs = _used(moments, self.floor, self.components)
        deviation = np.sqrt(pairs.values + self.epsilon)
        there, back = pairs.vectors / deviation, (pairs.vectors * deviation).T
        if self.kind == "zca":
            there, back = there @ pairs.vectors.T, pairs.vectors @ back
        return Maps(pairs, moments.mean, there, back)


def _used(moments: Moments, floor: float, components: int | None) -> Eigenpairs:
    """The directions above the floor, so many of them at most."""
    pairs = eigenpairs(moments)
    above = int(np.sum(pairs.values > floor * pairs.values[0]))
    values, vectors = pairs.values[:above], pairs.vectors[:, :above]
    _warn_of_lost_columns(moments, np.square(vectors) @ values, floor * pairs.values[0])
    return Eigenpairs(values[:components], vectors[:, :components])


def _warn_of_lost_columns(moments: Moments, explained: Floats, floor: float) -> None:
    """Names a column that varies no more than an empty direction, and that the other directions do not explain."""
    variance = np.where(moments.constant, 0.0, moments.variance)
    lost = np.flatnonzero((variance > 0) & (variance <= floor) & (explained < 0.99 * variance))
    if lost.size:
        column, spread = lost[0], np.sqrt(variance)
        message = (
            f"{lost.size} column(s) are lost below the floor. The first is column {column} (counting from 0), with a "
            f"standard deviation of {spread[column]:.2g} beside {spread.max():.2g} elsewhere. Fix: bring the columns "
            f"to one scale first, by a StandardScaler before this in a pipeline."
        )
        warnings.warn(message, LastLayerWarning, stacklevel=5)


def _check_directions(floor: float, components: int | None, columns: int) -> None:
    if not 0 <= floor < 1:
        raise InputError(f"floor is {floor!r}; expected a share of at least 0 and less than 1.")
    if components is not None and (not isinstance(components, numbers.Integral) or not 1 <= components <= columns):
        raise InputError(
            f"components is {components!r}; expected None, or a whole number from 1 to the {columns} columns."
        )
