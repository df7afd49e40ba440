"""Elementary functions of one float32, without branches, calls or tables: a loop over them becomes vector code.

Each is within two and a half units in the last place, as PyTorch's sigmoid is; most are within two. The polynomials
are least-squares fits with iterated weights (close to minimax) to the functions on the reduced interval, in double
precision; their largest relative error is below 6e-9, a tenth of float32's rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

inline = njit(forceinline=True, error_model="numpy", fastmath={"contract", "nsz"})

ZERO, HALF, ONE, TWO = (np.float32(number) for number in (0.0, 0.5, 1.0, 2.0))
_LOG2_E = np.float32(1.4426950408889634)
# log 2 in two parts, the first with zeros at the end, so that a whole multiple of it is exact.
_LOG_2_HIGH, _LOG_2_LOW = np.float32(0.693145751953125), np.float32(1.4286068203094173e-06)
_SQRT_HALF = np.float32(0.7071067811865476)
_SQRT_TWO = np.float32(1.4142135623730951)
_EXP_NORMAL, _ROUNDS = np.float32(-87.0), np.float32(12582912.0)
_EXP_LEAST, _EXP_MOST = np.float32(-104.0), np.float32(91.0)
# (exp(r) − 1 − r) / r² for |r| ≤ ½ log 2, and (log(1 + f) − f + f²/2) / f³ for √½ ≤ 1 + f ≤ √2; lowest power first.
_E0, _E1, _E2, _E3, _E4 = (
    np.float32(number)
    for number in (0.5, 0.16666512191295624, 0.0416661873459816, 0.008369598537683487, 0.0013951718574389815)
)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7 = (
    np.float32(number)
    for number in (
        0.3333333134651184,
        -0.2500081956386566,
        0.20001226663589478,
        -0.16623356938362122,
        0.14201758801937103,
        -0.13160185515880585,
        0.12761570513248444,
        -0.0763448178768158,
    )
)


def _reinterpreted(source: Any, result: Any, as_llvm: Any) -> Any:
    """The bits of a number of one type, read as another: no instruction at all."""

    @intrinsic
    def reinterpret(typing: Any, number: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], as_llvm)

        return result(source), emit

    return reinterpret


float_of_bits = _reinterpreted(types.int32, types.float32, ir.FloatType())
bits_of_float = _reinterpreted(types.float32, types.int32, ir.IntType(32))


_STIRLING_FROM, _THREE = np.float32(8.0), np.float32(3.0)
# log Γ(2 + t) / t for 0 ≤ t ≤ 1, fitted likewise (relative error below 3e-10), and Stirling's series.
_G0, _G1, _G2, _G3, _G4, _G5, _G6, _G7, _G8 = (
    np.float32(number)
    for number in (
        0.42278432846069336,
        0.32246702909469604,
        -0.06735184043645859,
        0.02057565376162529,
        -0.007356425281614065,
        0.002796575427055359,
        -0.0010083694942295551,
        0.00028200194356031716,
        -4.176672882749699e-05,
    )
)
_HALF_LOG_2_PI, _S1, _S3, _S5 = (np.float32(number) for number in (0.9189385332046727, 1 / 12, -1 / 360, 1 / 1260))


@inline
def minimum(a: Any, b: Any) -> Any:
    """The lesser; NaN of the first operand stays."""
    return b if b < a else a


@inline
def maximum(a: Any, b: Any) -> Any:
    """The greater; NaN of the first operand stays."""
    return b if b > a else a


@inline
def lerp(start: Any, end: Any, share: Any) -> Any:
    """From start to end, exact at both, as ``torch.lerp`` has it."""
    return start + share * (end - start) if share < HALF else end - (end - start) * (ONE - share)


@inline
def sign(x: Any) -> Any:
    """−1, 0 or 1; NaN stays."""
    return ONE if x > ZERO else (-ONE if x < ZERO else x * ZERO)


@inline
def copysign(size: Any, x: Any) -> Any:
    return abs(size) if x >= ZERO else -abs(size)


@inline
def sqrt(x: Any) -> Any:
    return np.sqrt(x)


@inline
def _power_of_two(exponent: Any) -> Any:
    """2 to a whole number from −126 to 127."""
    return float_of_bits((exponent + np.int32(127)) << np.int32(23))


@inline
def _reduce(x: Any) -> Any:
    """x = n log 2 + r with |r| ≤ ½ log 2: n, r and exp(r) − 1."""
    n = np.floor(x * _LOG2_E + HALF)
    r = (x - n * _LOG_2_HIGH) - n * _LOG_2_LOW
    tail = (((_E4 * r + _E3) * r + _E2) * r + _E1) * r + _E0
    return np.int32(n), r + r * r * tail


@inline
def exp(x: Any) -> Any:
    n, less_one = _reduce(minimum(maximum(x, _EXP_LEAST), _EXP_MOST))
    # In two steps, so that the ends of the range, infinity and the numbers below 1e-38, come out too.
    half = n >> np.int32(1)
    return ((ONE + less_one) * _power_of_two(half)) * _power_of_two(n - half)


@inline
def exp_below_zero(x: Any) -> Any:
    """For x ≤ 0 in fewer instructions; what is below 1e-38 is that."""
    # Adding 1.5·2²³ rounds to a whole number, which then stands in the lowest bits.
    x = maximum(x, _EXP_NORMAL)
    shifted = x * _LOG2_E + _ROUNDS
    n = shifted - _ROUNDS
    r = (x - n * _LOG_2_HIGH) - n * _LOG_2_LOW
    tail = (((_E4 * r + _E3) * r + _E2) * r + _E1) * r + _E0
    power = float_of_bits((bits_of_float(shifted) + np.int32(127)) << np.int32(23))
    return power + power * (r + r * r * tail)


@inline
def expm1(x: Any) -> Any:
    return TWO * _half_expm1(x)


@inline
def _half_expm1(x: Any) -> Any:
    """(exp(x) − 1) / 2, which is finite wherever sinh is."""
    n, less_one = _reduce(minimum(maximum(x, _EXP_LEAST), _EXP_MOST))
    half = n >> np.int32(1)
    power, rest = _power_of_two(half), n - half
    return (power * less_one + (power - _power_of_two(-rest))) * _power_of_two(rest - np.int32(1))


@inline
def log(x: Any) -> Any:
    """−∞ at 0, NaN below."""
    small = x < np.float32(1.1754944e-38)
    scaled = x * np.float32(8388608.0) if small else x
    bits = bits_of_float(scaled)
    exponent = np.float32((bits >> np.int32(23)) - np.int32(126))
    exponent = exponent - np.float32(23.0) if small else exponent
    mantissa = float_of_bits((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000))
    low = mantissa < _SQRT_HALF
    exponent = exponent - ONE if low else exponent
    f = (mantissa + mantissa if low else mantissa) - ONE
    tail = ((((((_L7 * f + _L6) * f + _L5) * f + _L4) * f + _L3) * f + _L2) * f + _L1) * f + _L0
    square = f * f
    result = (f + (exponent * _LOG_2_LOW + (f * square * tail - HALF * square))) + exponent * _LOG_2_HIGH
    result = x if x == np.float32(np.inf) else result
    result = -np.float32(np.inf) if x == ZERO else result
    return result if x >= ZERO else np.float32(np.nan)


@inline
def log1p(x: Any) -> Any:
    # What 1 + x rounds away is made good to first order.
    whole = ONE + x
    result = log(whole)
    rest = (x - (whole - ONE)) / whole
    return result + rest if ZERO < whole < np.float32(np.inf) else result


@inline
def log1p_of_share(x: Any) -> Any:
    """For 0 ≤ x ≤ 1, where nothing can be tiny, infinite or negative."""
    whole = ONE + x
    high = whole > _SQRT_TWO
    f = (HALF * whole if high else whole) - ONE
    tail = ((((((_L7 * f + _L6) * f + _L5) * f + _L4) * f + _L3) * f + _L2) * f + _L1) * f + _L0
    square = f * f
    lost = (x - (whole - ONE)) / whole
    result = f + ((lost + (_LOG_2_LOW if high else ZERO)) + (f * square * tail - HALF * square))
    return result + (_LOG_2_HIGH if high else ZERO)


@inline
def sigmoid(x: Any) -> Any:
    small = exp(-abs(x))
    return (ONE if x >= ZERO else small) / (ONE + small)


@inline
def log_sigmoid(x: Any) -> Any:
    return minimum(x, ZERO) - log1p_of_share(exp(-abs(x)))


@inline
def softplus(x: Any) -> Any:
    return maximum(x, ZERO) + log1p_of_share(exp(-abs(x)))


@inline
def tanh(x: Any) -> Any:
    less_one = expm1(TWO * abs(x))
    # From 1/3 on as 1 − 2/(e²ˣ + 1), where what the quotient rounds away is small beside 1.
    near = less_one < ONE
    part = (less_one if near else TWO) / (TWO + less_one)
    size = part if near else ONE - part
    return size if x >= ZERO else -size


@inline
def sinh(x: Any) -> Any:
    rising = _half_expm1(abs(x))
    size = rising + HALF * (rising / (rising + HALF)) if rising < np.float32(np.inf) else rising
    return size if x >= ZERO else -size


@inline
def cosh(x: Any) -> Any:
    rising = _half_expm1(abs(x)) + HALF
    return rising + np.float32(0.25) / rising


@inline
def lgamma(x: Any) -> Any:
    """The logarithm of the gamma function, for x > 0; exact at 1 and 2."""
    far = x >= _STIRLING_FROM
    # Down to [2, 3) by Γ(x) = (x − 1) Γ(x − 1), or up to it; the factors have one logarithm together.
    near = x
    factor = ONE
    for _ in range(6):
        down = near >= _THREE
        near = near - ONE if down else near
        factor = factor * near if down else factor
    for _ in range(2):
        up = near < TWO
        factor = factor / near if up else factor
        near = near + ONE if up else near
    t = near - TWO
    series = (((((((_G8 * t + _G7) * t + _G6) * t + _G5) * t + _G4) * t + _G3) * t + _G2) * t + _G1) * t + _G0
    logarithm = log(x if far else factor)
    share = ONE / x
    correction = share * (_S1 + share * share * (_S3 + share * share * _S5))
    stirling = (x - HALF) * logarithm - x + (_HALF_LOG_2_PI + correction)
    return stirling if far else t * series + logarithm


@inline
def float_of_bfloat16(bits: Any) -> Any:
    """The 16 bits of a bfloat16 are the upper half of a float32."""
    return float_of_bits(np.int32(bits) << np.int32(16))


@inline
def bfloat16_of_float(number: Any) -> Any:
    """To the nearest, ties to even; NaN stays NaN."""
    bits = bits_of_float(number)
    rounded = (bits + np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))) >> np.int32(16)
    return np.int16(rounded) if number == number else np.int16(0x7FC0)


@inline
def unchanged(number: Any) -> Any:
    return number


@inline
def to_float(number: Any) -> Any:
    return np.float32(number)
