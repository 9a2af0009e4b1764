"""Training: a recipe, one loop with callbacks, and what it writes.

Public:
    Recipe, base_recipe, resrep_recipe, fast_recipe: what a run does; file_attributes: what its weight files say of it.
    add_options, from_options, read_ahead, to_plain, default_values: recipes as command lines.
    World, init_world, add_local_rank, first_rank_first, broadcast_object, barrier: one process or several.
    add_continue, prepare, RunState, is_new_run: what is to be done in a run's folder.
    read_network, data_for, network_builder: a run's network and its data, each for the other.
    RunLog: log.txt, metrics.jsonl, run.json, TensorBoard; surroundings: versions, commit, hardware.
    train, TrainResult, NonFiniteLoss; Callback, TrainState: the loop, and where others come in.
    evaluate, Evaluation, evaluate_pair, Paired, check_fits: how good; compare, count_macs: how large and fast.
    exit_on_bad_input: one line and exit code 2 for a person's mistake.
"""

from training.bad_input import exit_on_bad_input
from training.callback import Callback, TrainState
from training.distributed import World, add_local_rank, barrier, broadcast_object, first_rank_first, init_world
from training.evaluation import Evaluation, Paired, check_fits, evaluate, evaluate_pair
from training.log import RunLog, surroundings
from training.loop import TrainResult, train
from training.network import data_for, network_builder, read_network
from training.observe import NonFiniteLoss
from training.options import add_options, default_values, from_options, read_ahead, to_plain
from training.recipe import Recipe, base_recipe, fast_recipe, file_attributes, resrep_recipe
from training.report import Comparison, Figures, compare, count_macs
from training.run_folder import RunState, add_continue, is_new_run, prepare

__all__ = [
    "Callback",
    "Comparison",
    "Evaluation",
    "Figures",
    "NonFiniteLoss",
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
    "base_recipe",
    "broadcast_object",
    "check_fits",
    "compare",
    "count_macs",
    "data_for",
    "default_values",
    "evaluate",
    "evaluate_pair",
    "exit_on_bad_input",
    "fast_recipe",
    "file_attributes",
    "first_rank_first",
    "from_options",
    "init_world",
    "is_new_run",
    "network_builder",
    "prepare",
    "read_ahead",
    "read_network",
    "resrep_recipe",
    "surroundings",
    "to_plain",
    "train",
]
