"""Example inputs at other sizes: what changes together, and what stays."""

from __future__ import annotations

import pytest
import torch

from rr.graph import ExampleInputs
from rr.graph.sizes import larger_at_once, other_sizes, shape_in_words, with_sizes


def shapes(inputs: ExampleInputs) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in inputs.tensors]


def test_batch_each_dimension_and_all_of_them_larger_and_smaller() -> None:
    inputs = ExampleInputs.of(torch.zeros(4, 3, 32, 24))
    first = [shapes(candidates[0])[0] for candidates in other_sizes(inputs)]
    assert first == [(7, 3, 32, 24), (1, 3, 51, 24), (1, 3, 51, 51), (1, 3, 17, 13)]
    candidates = [shapes(candidate)[0] for candidate in list(other_sizes(inputs))[1]]
    assert candidates == [(n, 3, height, 24) for height in (51, 64, 33) for n in (1, 4)]
    together = [shapes(candidate)[0][2:] for candidate in list(other_sizes(inputs))[2][::2]]
    assert together == [(51, 51), (51, 39), (64, 48), (33, 25), (32, 39), (32, 48), (32, 25)]
    assert [shape_in_words(candidate) for candidate in next(iter(other_sizes(inputs)))] == [
        "7x3x32x24",
        "1x3x32x24",
    ]


def test_what_has_the_first_tensors_size_changes_with_it_and_integers_are_repeated() -> None:
    image, mask, numbers = torch.zeros(2, 3, 8, 6), torch.ones(2, 1, 8, 6), torch.tensor([5, 6])
    inputs = ExampleInputs.of({"x": image, "mask": mask, "kinds": numbers, "scale": 2.0})
    larger = with_sizes(inputs, {0: 3, 3: 7})
    assert shapes(larger) == [(3, 3, 8, 7), (3, 1, 8, 7), (3,)]
    assert larger.kwargs["kinds"].tolist() == [5, 6, 5]
    assert larger.kwargs["scale"] == 2.0


def test_all_at_once() -> None:
    found = [shapes(inputs)[0] for inputs in larger_at_once(ExampleInputs.of(torch.zeros(1, 3, 8, 8)))]
    assert found[:3] == [(2, 3, 15, 15), (1, 3, 15, 15), (2, 3, 16, 16)]
    assert found[-1] == (2, 3, 8, 8)
    assert shapes(next(iter(larger_at_once(ExampleInputs.of(torch.zeros(6, 10)))))) == [(1, 10)]


def test_numbers_that_the_forward_is_called_with() -> None:
    inputs = ExampleInputs.of((torch.zeros(2, 10), 2.0, True, 3))
    found = [shape_in_words(candidates[0]) for candidates in other_sizes(inputs)]
    assert found == [
        "5x10 with 2.0 with True with 3",
        "1x17 with 2.0 with True with 3",
        "2x10 with 3.25 with True with 3",
        "2x10 with 2.0 with False with 4",
    ]
    assert next(inputs.args[1:] for inputs in larger_at_once(inputs)) == (3.25, True, 3)
    nothing = ExampleInputs.of((torch.zeros(2, 10), 0.0))  # half as much again would be the same
    assert list(other_sizes(nothing))[2][0].args[1] == 0.25


@pytest.mark.parametrize("multiple", [7, 14, 16, 32])
def test_other_sizes_are_no_multiples_of_what_the_examples_are(multiple: int) -> None:
    """A forward that pads to whole windows pads nothing at multiples of them."""
    for height in (multiple, 2 * multiple, 3 * multiple):
        inputs = ExampleInputs.of(torch.zeros(2, 3, height, height))
        for candidates in list(other_sizes(inputs))[1:]:
            assert any(size % multiple for size in shapes(candidates[0])[0][2:])
