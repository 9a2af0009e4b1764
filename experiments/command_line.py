"""The command lines of the scripts that train: what is read first, and what all of them take. Nothing needs torch."""

from __future__ import annotations

from collections.abc import Sequence

from base_model import WHERE_ELSE, check_name, model_names
from data import dataset_names
from rr.errors import InputError
from training.options import OptionParser, add_continue, add_local_rank, read_ahead


def run_parser(description: str | None) -> OptionParser:
    """A parser for a script that trains, with the names of networks and data sets in its help, and with `-c`."""
    names = f"networks (-a): {', '.join(model_names())}, {WHERE_ELSE}\ndata sets: {', '.join(dataset_names())}"
    parser = OptionParser(usage="%(prog)s -a NAME [options]", description=f"{description}\n{names}")
    add_continue(parser)
    add_local_rank(parser)
    return parser


def read_network(arguments: Sequence[str]) -> tuple[str, str | None]:
    """The network (-a) and the data set (--dataset, None where not given), which decide the options' defaults.

    A plain `--help` gets our first network.

    Raises:
        InputError: if the network is missing, or a name isn't one that `build_any` or `load_data` takes.
    """
    arch, dataset = read_ahead(arguments, "-a", "--arch"), read_ahead(arguments, "--dataset")
    if arch is None:
        if not {"-h", "--help"} & set(arguments):
            raise InputError(f"-a is required: {', '.join(model_names())}, {WHERE_ELSE}")
        arch = model_names()[0]
    check_name(arch)
    if dataset is not None and dataset not in dataset_names():
        raise InputError(f"unknown data set '{dataset}'; choose from {', '.join(dataset_names())}")
    return arch, dataset
