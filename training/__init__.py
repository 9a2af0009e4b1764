"""Training: a recipe, one loop with callbacks, and what it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rr.lazy import lazy_exports

if TYPE_CHECKING:
    # Recipes, as command lines
    from training.options import (
        OptionParser,
        add_continue,
        add_local_rank,
        add_options,
        default_values,
        from_options,
        from_plain,
        option_names,
        read_ahead,
        to_plain,
        typed_names,
    )
    from training.recipe import Recipe

    # One process or several
    from training.distributed import (
        World,
        barrier,
        broadcast_object,
        first_rank_first,
        init_world,
        of_first_rank,
    )

    # A run's folder: what is to be done in it, and what a run says about itself there
    from training.log import RunLog, logged_on_terminal, surroundings
    from training.run_folder import RunState, is_new_run, locked, prepare, stored_recipe

    # A run's network and its data, each for the other
    from training.network import data_for, file_attributes, network_builder

    # The loop, and where others come in
    from training.callback import Callback, TrainState
    from training.loop import TrainResult, train
    from training.observe import NonFiniteLoss, evaluate_state

    # How good, how large, how fast
    from training.evaluation import Evaluation, Paired, check_fits, evaluate, evaluate_pair
    from training.report import Comparison, Figures, compare, count_macs

    # A script's end
    from training.endings import ends_in_one_line

__getattr__, __dir__ = lazy_exports(__name__, __file__)

__all__ = [
    "Callback",
    "Comparison",
    "Evaluation",
    "Figures",
    "NonFiniteLoss",
    "OptionParser",
    "Paired",
    "Recipe",
    "RunLog",
    "RunState",
    "TrainResult",
    "TrainState",
    "World",
    "add_continue",
    "add_local_rank",
    "add_options",
    "barrier",
    "broadcast_object",
    "check_fits",
    "compare",
    "count_macs",
    "data_for",
    "default_values",
    "ends_in_one_line",
    "evaluate",
    "evaluate_pair",
    "evaluate_state",
    "file_attributes",
    "first_rank_first",
    "from_options",
    "from_plain",
    "init_world",
    "is_new_run",
    "locked",
    "logged_on_terminal",
    "network_builder",
    "of_first_rank",
    "option_names",
    "prepare",
    "read_ahead",
    "stored_recipe",
    "surroundings",
    "to_plain",
    "train",
    "typed_names",
]
