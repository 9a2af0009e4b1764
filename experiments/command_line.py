"""The command lines of the scripts that train: what is read first, and what all of them take. Nothing needs torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from base_model import WHERE_ELSE, check_name, is_file, model_names
from data import dataset_names
from experiments.call import Call
from experiments.recipes import of_this_version
from rr.errors import InputError
from rr.settings import Share, plain
from training.options import (
    CONTINUE_FLAGS,
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
from training.run_folder import stored_recipe

LEAST_NUMBER = 1000  # of MACs or parameters that a target can ask for


def run_parser(description: str | None) -> OptionParser:
    """A parser for a script that trains, with the names of networks and data sets in its help, and with `-c`."""
    names = f"networks (-a): {', '.join(model_names())}, {WHERE_ELSE}\ndata sets: {', '.join(dataset_names())}"
    parser = OptionParser(usage="%(prog)s -a NAME [options]", description=f"{description}\n{names}")
    add_continue(parser)
    add_local_rank(parser)
    return parser


def read_network(arguments: Sequence[str], folder_of: Callable[[str], str] | None = None) -> tuple[str, str | None]:
    """The network (-a) and the data set (--dataset, None where not given), which decide the options' defaults.

    A plain `--help` gets our first network; with `-c continue` the run that is there says what isn't given.

    Args:
        arguments: the command line's.
        folder_of: the folder of a network's run where the command line names none.

    Raises:
        InputError: if the network is missing, or a name isn't one that `build_any` or `load_data` takes.
    """
    arch, dataset = read_ahead(arguments, "-a", "--arch"), read_ahead(arguments, "--dataset")
    folder = read_ahead(arguments, "--output-dir") or (folder_of(arch) if folder_of and arch else None)
    if folder is not None and read_ahead(arguments, *CONTINUE_FLAGS) == "continue":
        stored = stored_recipe(folder) or {}
        dataset = dataset or stored.get("dataset")
        if arch is None and is_file(stored.get("arch", "")):  # no file but one that a person names is run
            raise InputError(f"{folder} holds a run of {stored['arch']}: give -a {stored['arch']} to run that file")
        arch = arch or stored.get("arch")
    if arch is None:
        if not {"-h", "--help"} & set(arguments):
            raise InputError(f"-a is required: {', '.join(model_names())}, {WHERE_ELSE}")
        arch = model_names()[0]
    check_name(arch)
    if dataset is not None and dataset not in dataset_names():
        raise InputError(f"unknown data set '{dataset}'; choose from {', '.join(dataset_names())}")
    return arch, dataset


def read_target(text: str) -> float | None:
    """A target as it is typed: `0.5` or `50%`, a share; `60e6`, a number; or `none`.

    Raises:
        ArgumentTypeError: for a number that only a share can have been meant by.
    """
    if text == "none":
        return None
    if text.strip().endswith("%"):
        return float(Share.read(text))
    value = float(text)
    if 1 < value < LEAST_NUMBER:
        raise argparse.ArgumentTypeError(
            f"{text} is over 1, so it is a number and not a share, and no network is that small: give a share, "
            f"{value / 100:g} or {text}%, or all of the number, 60e6"
        )
    return value


def read_share(text: str) -> float | None:
    """A share of the whole as it is typed: `0.5`, `50%`, or `none`."""
    if text == "none":
        return None
    return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)


read_share.__name__ = "share"
read_target.__name__ = "share, or number,"  # argparse names the type in its messages


def read_settings(
    parser: OptionParser,
    arguments: Sequence[str],
    *defaults: Any,
    readers: Mapping[str, Callable[[str], Any]] | None = None,
) -> tuple[tuple[Any, ...], argparse.Namespace]:
    """The settings of a run: the defaults, with what the command line changes in them.

    With `-c continue` the run that is in the folder says what isn't typed.

    Args:
        parser: gets an option for each setting.
        arguments: the command line's.
        defaults: dataclasses of settings, the recipe first.
        readers: as in `add_options`.

    Returns:
        The dataclasses, and the parser's namespace, with the names of what was typed as `typed`.

    Raises:
        InputError: for values that can't be.
        SystemExit: with code 2, for an option or a value that it doesn't know.
    """
    add_options(parser, *defaults, readers=readers)
    options = parser.parse_args(arguments)
    options.typed = typed_names(parser, arguments)
    stored = stored_recipe(options.output_dir) if options.conti_or_fs == "continue" else None
    if stored is None:
        return tuple(from_options(options, default) for default in defaults), options
    typed = options.typed
    begun = {**default_values(*defaults), **of_this_version(stored), "output_dir": options.output_dir}
    left_out = {name: value for name, value in begun.items() if name not in typed}
    if "death_steps" in typed:
        left_out.pop("masked_penalty", None)  # it follows from what is typed
    given = [{name: getattr(options, name) for name in to_plain(default) if name in typed} for default in defaults]
    try:
        return tuple(
            from_plain({**left_out, **values}, default) for values, default in zip(given, defaults, strict=True)
        ), options
    except InputError:
        names = option_names(*defaults)
        differing = [
            f"{names[name]}: there {json.dumps(begun[name])}, now {json.dumps(plain(value))}"
            for values in given
            for name, value in values.items()
            if name in begun and not isinstance(value, Share) and plain(value) != begun[name]
        ]
        if not differing:
            raise
        raise InputError(
            f"{options.output_dir} holds a run of another recipe ({'; '.join(differing)}): leave these options out to "
            "go on with it, or choose another --output-dir"
        ) from None


def call_of(options: argparse.Namespace, script: str, arguments: Sequence[str], *, is_papers: bool) -> Call:
    """How a script was called.

    Args:
        options: what `read_settings` returned.
        script: its file.
        arguments: its command line's.
        is_papers: as in `Call`.
    """
    given = (script, tuple(arguments), frozenset(options.typed))
    return Call(options.conti_or_fs, options.local_rank, *given, is_papers)


def add_file_options(parser: argparse.ArgumentParser, batch_size: int) -> Any:
    """The options of a tool that is given a file of weights: which network it holds, its data, and the machine.

    Args:
        parser: gets them.
        batch_size: images at a time, where the option isn't given.

    Returns:
        The group of the machine's options, for more of them.
    """
    networks = ", ".join(model_names())
    parser.add_argument("-a", "--arch", help=f"network (default: what the file names): {networks}, {WHERE_ELSE}")
    data = parser.add_argument_group(
        "data", "where not given: what the file was trained on, as the file and its run say"
    )
    data.add_argument("--dataset", help=", ".join(dataset_names()))
    data.add_argument("--data-dir", help="folder of the data")
    data.add_argument("--image-size", type=int, help="height and width of the images")
    data.add_argument("--workers", type=int, help="loader processes or threads (default: the data set's choice)")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--batch-size", type=int, default=batch_size, help=f"images at a time (default: {batch_size})")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    return machine
