"""What units are ranked by: against the loss without them, under scaling, masking and restarts."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rr import ResRepPruner, paper_config
from rr.selection.importance import DECAY, TaylorScores
from tests.rr.networks import Net, conv, head
from tests.rr.pruners import IMAGES, LENIENT, batch, loss_of, observe, optimizer_of, step, stream_pruner, tiny_pruner


def taylor_stream(**settings: object) -> ResRepPruner:
    """Units made by several layers, in float64."""
    torch.manual_seed(0)
    model = copy.deepcopy(stream_pruner().model).double()
    config = paper_config(**LENIENT, layers="all", score="taylor", **settings)
    return ResRepPruner(model, IMAGES.double(), config)


def taylor_tiny(**settings: object) -> ResRepPruner:
    return tiny_pruner(score="taylor", **settings)


def random_rows(pruner: ResRepPruner, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            weight = compactor.pwc.weight
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator).to(weight))


def row_products(pruner: ResRepPruner, loss: torch.Tensor) -> np.ndarray:
    """[num_units]: the sum over a unit's rows of <dL/dq, q>, by autograd."""
    products = np.zeros(pruner.graph.num_units)
    weights = [pruner.compactors[site.host].pwc.weight for site in pruner.sites]
    for site, weight, gradient in zip(pruner.sites, weights, torch.autograd.grad(loss, weights), strict=True):
        np.add.at(products, site.units, (weight.double() * gradient.double()).detach().flatten(1).sum(1).numpy())
    return products


@pytest.mark.slow
@pytest.mark.parametrize("make", [taylor_stream, lambda: as_double(taylor_tiny)])
def test_a_score_is_the_loss_of_losing_the_unit_to_first_order(make: Callable[[], ResRepPruner]) -> None:
    """(L(q) - L((1 - e) q)) / e tends to it, the error to zero with e."""
    pruner = make()
    random_rows(pruner)
    observe(pruner)
    before, scores = loss_of(pruner).item(), pruner.candidate_scores()
    assert (scores > 0).all()
    for unit, score in zip(pruner.candidates, scores, strict=True):
        errors = []
        for part in (1e-3, 1e-4):
            kept = copy.deepcopy(pruner.model.state_dict())
            with torch.no_grad():
                for site in pruner.sites:
                    pruner.compactors[site.host].pwc.weight[torch.from_numpy(site.units == unit)] *= 1 - part
            errors.append(abs(abs(before - loss_of(pruner).item()) / part - score))
            pruner.model.load_state_dict(kept)
        assert errors[1] < 1e-3 * max(scores)
        assert errors[1] < 0.2 * errors[0] + 1e-8


def as_double(make: Callable[[], ResRepPruner]) -> ResRepPruner:
    model = copy.deepcopy(make().model).double()
    return ResRepPruner(model, IMAGES.double(), make().config)


def test_scores_are_the_root_of_a_corrected_running_mean_of_squares() -> None:
    pruner = taylor_tiny()
    random_rows(pruner)
    mean = np.zeros(pruner.graph.num_units)
    for count, seed in enumerate(range(5), start=1):
        mean = DECAY * mean + (1 - DECAY) * row_products(pruner, loss_of(pruner, seed)) ** 2
        observe(pruner, seed)
        expected = np.sqrt(mean / (1 - DECAY**count))[pruner.candidates]
        np.testing.assert_allclose(pruner.candidate_scores(), expected, rtol=1e-4)


def overwriting() -> ResRepPruner:
    """An activation that writes over the compactor's output."""
    torch.manual_seed(0)
    model = Net(lambda net, x: head(net, F.hardswish(net.a(x), inplace=True)), a=conv(1, 5), fc=nn.Linear(5, 3))
    return ResRepPruner(model, IMAGES, paper_config(**LENIENT, score="taylor", by_image=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: taylor_stream(by_image=True),
        lambda: taylor_tiny(by_image=True),
        lambda: taylor_tiny(by_image=True, compactors="diagonal"),
        overwriting,
    ],
)
def test_scores_by_image_are_of_the_squares_of_each_images_gradient(make: Callable[[], ResRepPruner]) -> None:
    pruner = make()
    random_rows(pruner)
    model, (images, labels) = pruner.model.eval(), batch(0)  # BN ties no image to another
    images = images.to(next(model.parameters()))

    def loss(chosen: slice, network: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(network(images[chosen]), labels[chosen], reduction="sum") / len(images)

    squares = np.zeros(pruner.graph.num_units)
    for image in range(len(images)):
        squares += row_products(pruner, loss(slice(image, image + 1), model)) ** 2
    expected = np.sqrt(squares)[pruner.candidates]
    whole, halves = [slice(None)], [slice(0, 3), slice(3, None)]
    for passes, compiled in ((whole, False), (halves, False), (whole, True)):
        other = make()
        other.model.load_state_dict(model.state_dict())
        other.model.eval()
        network = torch.compile(other.model, backend="aot_eager") if compiled else other.model
        for chosen in passes:
            loss(chosen, network).backward()
        other.adjust_gradients()
        np.testing.assert_allclose(other.candidate_scores(), expected, rtol=1e-4)


@pytest.mark.parametrize("scale", [1024.0, 2.0**24])
def test_scores_are_in_true_units_under_a_gradient_scaler(scale: float) -> None:
    pruner, scaled = taylor_tiny(), taylor_tiny()
    for seed in range(3):
        observe(pruner, seed)
        observe(scaled, seed, scale)
    np.testing.assert_allclose(scaled.candidate_scores(), pruner.candidate_scores(), rtol=1e-5)


def test_a_step_with_infinite_gradients_leaves_the_scores_alone() -> None:
    pruner = taylor_tiny()
    observe(pruner)
    before = pruner.candidate_scores()
    for bad in (float("inf"), float("nan")):
        for compactor in pruner.compactors.values():
            compactor.pwc.weight.grad = torch.zeros_like(compactor.pwc.weight)
        pruner.compactors["1"].pwc.weight.grad[2] = bad
        pruner.adjust_gradients()
        assert (pruner.candidate_scores() == before).all()


def test_rows_that_see_other_numbers_of_images_are_squared_apart() -> None:
    products = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0]]), torch.tensor([[6.0], [7.0]])]
    scores = TaylorScores(2, torch.zeros(1))
    scores.observe(products, torch.full((4,), 2.0), torch.tensor([0, 1, 1, 1]), torch.ones(4))
    expected = [1 + 9, (2 + 6) ** 2 + (4 + 7) ** 2 + 25]  # the second row and the last add, image by image
    np.testing.assert_allclose(scores.scores(np.full(2, 2.0)) ** 2, expected)


def test_before_the_first_step_scores_are_the_norms() -> None:
    pruner = taylor_tiny()
    random_rows(pruner)
    assert (pruner.candidate_scores() == pruner.candidate_norms()).all()


def test_a_masked_unit_falls_with_its_norm_and_is_not_called_back_by_the_loss() -> None:
    scores, units = TaylorScores(3, torch.zeros(1)), torch.tensor([0, 1, 2])
    norms = torch.ones(3)

    def seen(slopes: list[float], masks: list[float]) -> np.ndarray:
        scores.observe([torch.tensor([slopes])], norms, units, torch.tensor(masks))
        return scores.scores(np.array([1.0, 1.0, 0.5]))

    for _ in range(50):
        assert seen([1, 2, 2], [1, 1, 1]) == pytest.approx([1, 2, 1])
    for _ in range(50):  # the loss asks for the last two ever more
        after = seen([1, 8, 8], [1, 1, 0])
    assert after[1] > 4
    assert after[[0, 2]] == pytest.approx([1, 1])
    for _ in range(200):  # all slopes fall: those of masked units with them
        after = seen([0.1, 0.1, 0.1], [1, 1, 0])
    assert after[2] < 0.5
    assert scores.scores(np.array([1.0, 1.0, 0.0]))[2] == 0


def test_a_state_stays_what_it_was_while_training_goes_on() -> None:
    """The scores change in place: neither a state that was taken nor one that was loaded may follow them."""
    pruner, other = taylor_tiny(), taylor_tiny()
    observe(pruner)
    state = pruner.state_dict()
    taken = state["taylor"]["squares"].clone()
    other.load_state_dict(state)
    for seed in (1, 2):
        observe(pruner, seed)
        observe(other, seed)
    assert torch.equal(state["taylor"]["squares"], taken)
    assert (other.candidate_scores() == pruner.candidate_scores()).all()
    assert not torch.equal(other.state_dict()["taylor"]["squares"], taken)


def test_units_that_died_are_forgotten_before_those_that_the_loss_needs_least() -> None:
    pruner = taylor_tiny(rows_per_update=2)
    for seed in range(3):
        observe(pruner, seed)
    highest = np.argsort(pruner.candidate_scores())[-2:]
    with torch.no_grad():
        for site in pruner.sites:
            pruner.compactors[site.host].pwc.weight[np.isin(site.units, pruner.candidates[highest])] = 0
    pruner.update_masks()
    assert sorted(np.flatnonzero(~pruner.unmasked.alive)) == sorted(pruner.candidates[highest])


def test_masks_follow_the_scores() -> None:
    pruner = taylor_tiny(rows_per_update=3, min_width=0)
    random_rows(pruner)
    observe(pruner)
    assert (np.argsort(pruner.candidate_scores()) != np.argsort(pruner.candidate_norms())).any()
    lowest = pruner.candidates[np.argsort(pruner.candidate_scores())[:3]]
    pruner.update_masks()
    assert sorted(np.flatnonzero(~pruner.unmasked.alive)) == sorted(lowest)


@pytest.mark.slow
@pytest.mark.parametrize("narrow", ["no", "rows"])
def test_an_interrupted_run_is_the_uninterrupted_one(narrow: str) -> None:
    settings = {"mask_interval": 2, "rows_per_update": 2, "score": "taylor", "proximal": True, "penalty": 0.0}
    settings |= {"masked_penalty": 1.0, "per_mac": True, "compactor_momentum": 0.5, "narrow": narrow}

    taken = []

    def run(pruner: ResRepPruner, optimizer: torch.optim.Optimizer, seeds: range) -> list[float]:
        losses = []
        for seed in seeds:
            losses.append(step(pruner, optimizer, seed))
            if narrow == "rows" and pruner.masks_are_due():
                taken.append(pruner.narrow())
        return losses

    whole = tiny_pruner(**settings)
    losses = run(whole, optimizer_of(whole), range(40))
    assert sum(taken) > 0 or narrow == "no"
    first = tiny_pruner(**settings)
    optimizer = optimizer_of(first)
    run(first, optimizer, range(27))
    saved = copy.deepcopy((first.state_dict(), first.model.state_dict(), optimizer.state_dict()))
    run(first, optimizer, range(27, 30))  # what was saved stays what it was
    second = tiny_pruner(**settings)
    optimizer = optimizer_of(second)
    second.load_state_dict(saved[0])
    second.model.load_state_dict(saved[1])
    optimizer.load_state_dict(saved[2])
    assert run(second, optimizer, range(27, 40)) == losses[27:]
    assert (second.candidate_scores() == whole.candidate_scores()).all()
    assert (second.unmasked.alive == whole.unmasked.alive).all()
    assert not whole.unmasked.alive.all()
    assert len(whole.state_dict()["taylor"]["squares"]) == whole.graph.num_units


def test_a_state_without_scores_loads() -> None:
    pruner = taylor_tiny()
    pruner.load_state_dict({"steps": 7})
    assert pruner.steps == 7
    assert (pruner.candidate_scores() == pruner.candidate_norms()).all()


@pytest.mark.slow
def test_taken_out_units_are_below_all_others() -> None:
    pruner = taylor_tiny(narrow="rows", per_mac=True)
    observe(pruner)
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            compactor.pwc.weight[:2] = 0
            compactor.mask[0] = 0
    assert pruner.narrow() == 2
    observe(pruner)
    scores, removed = pruner.candidate_scores(), pruner.live.remaining.removed[pruner.candidates]
    assert removed.sum() == 2
    assert scores[removed].max() < scores[~removed].min() == 0
    assert (pruner.live.unit_norms()[pruner.candidates][removed] == 0).all()
