"""Training: a recipe, one loop with callbacks, and what it writes.

Public:
    Recipe, base_recipe, resrep_recipe: what a run does.
    add_options, from_options, parse_choice, to_plain: recipes as command lines.
    World, init_world, add_local_rank, first_rank_first, broadcast_object, barrier: one process or several.
    add_continue, prepare, RunState: what is to be done in a run's folder.
    RunLog: log.txt, metrics.jsonl, run.json, TensorBoard.
    train, TrainResult, NonFiniteLoss; Callback, TrainState: the loop, and where others come in.
    evaluate, Evaluation, check_fits; compare, count_macs: how good, and how large and fast.
    plain_param_groups, exit_on_bad_input.
"""

from training.bad_input import exit_on_bad_input
from training.callback import Callback, TrainState
from training.distributed import World, add_local_rank, barrier, broadcast_object, first_rank_first, init_world
from training.evaluation import Evaluation, check_fits, evaluate
from training.log import RunLog
from training.loop import NonFiniteLoss, TrainResult, train
from training.optimizer import plain_param_groups
from training.options import add_options, from_options, parse_choice, to_plain
from training.recipe import Recipe, base_recipe, resrep_recipe
from training.report import Comparison, Figures, compare, count_macs
from training.run_folder import RunState, add_continue, prepare

__all__ = [
    "Callback",
    "Comparison",
    "Evaluation",
    "Figures",
    "NonFiniteLoss",
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
    "evaluate",
    "exit_on_bad_input",
    "first_rank_first",
    "from_options",
    "init_world",
    "parse_choice",
    "plain_param_groups",
    "prepare",
    "resrep_recipe",
    "to_plain",
    "train",
]
