"""Traced networks that several test files read, traced once."""

import pytest

from tests.rr.networks import Networks


@pytest.fixture(scope="session")
def traced() -> Networks:
    """`traced["sres50"]` is the network, example inputs and its graph."""
    return Networks()
