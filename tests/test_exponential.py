"""The exponential of pointwise-relative bounds: accurate, and the same bits however it is computed."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.golden.reference import decoder
from vcinr.coding.exponential import exponentiate

EDGES = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e300, -1e300, 709.78, 709.79, -708.4, -744.4, -745.2, 5e-324]


def exponential(values) -> np.ndarray:
    out = np.array(values, np.float64)
    exponentiate(out)
    return out


@given(st.floats(-708, 709))
def test_relative_error_is_small(x):
    with localcontext() as context:
        context.prec = 50
        exact = Decimal(x).exp()
        error = abs(Decimal(float(exponential([x])[0])) - exact) / exact
    assert error < Decimal(2) ** -51


def test_overflow_underflow_and_nan():
    np.testing.assert_array_equal(exponential([np.inf, 710.0, -np.inf, -746.0, np.nan]), [np.inf, np.inf, 0, 0, 0])
    assert exponential([0.0])[0] == 1.0


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_compiled_plain_and_reference_agree_bit_for_bit():
    values = np.concatenate([np.random.default_rng(0).uniform(-760, 720, 3000), EDGES])
    plain = values.copy()
    exponentiate.py_func(plain)
    compiled = exponential(values)
    assert compiled.tobytes() == plain.tobytes() == decoder().exponential(values).tobytes()


def test_the_values_are_those_of_every_machine():
    values = np.linspace(-700, 700, 1001)
    digest = np.bitwise_xor.reduce(exponential(values).view(np.uint64) * np.arange(1, 1002, dtype=np.uint64))
    assert int(digest) == DIGEST


DIGEST = 9621386065376614297
