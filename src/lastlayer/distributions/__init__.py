"""What a head predicts: distributions of one number each, all asked the same questions.

``distribution`` says what can be asked. Every family has a file; ``affine`` is a continuous one in other units,
``mixture`` several at once, and ``highest_density`` the shortest intervals of any. ``special_functions`` are SciPy's on
tensors, with gradients; ``sampling`` are standard draws. ``counts``, ``support``, ``last_axis`` and ``once`` hold what
several families share.
"""

from lastlayer.distributions.affine import Affine
from lastlayer.distributions.bernoulli import Bernoulli
from lastlayer.distributions.beta import Beta
from lastlayer.distributions.categorical import Categorical
from lastlayer.distributions.distribution import Distribution
from lastlayer.distributions.gamma import Gamma
from lastlayer.distributions.gaussian import Gaussian
from lastlayer.distributions.highest_density import highest_density
from lastlayer.distributions.laplace import Laplace
from lastlayer.distributions.log_normal import LogNormal
from lastlayer.distributions.logistic import Logistic
from lastlayer.distributions.mixture import Mixture
from lastlayer.distributions.negative_binomial import NegativeBinomial
from lastlayer.distributions.poisson import Poisson
from lastlayer.distributions.quantile_knots import QuantileKnots
from lastlayer.distributions.student_t import StudentT

__all__ = [
    "Affine",
    "Bernoulli",
    "Beta",
    "Categorical",
    "Distribution",
    "Gamma",
    "Gaussian",
    "Laplace",
    "LogNormal",
    "Logistic",
    "Mixture",
    "NegativeBinomial",
    "Poisson",
    "QuantileKnots",
    "StudentT",
    "highest_density",
]
