"""A run's report anew, or runs side by side.

    python tools/report.py resrep_models/src20_train
    python tools/report.py src20_train resrep_models/src20_train --output both.html

One HTML file that opens from disk and needs no network. Needs matplotlib and Jinja2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from the checkout without PYTHONPATH

from training.endings import ends_in_one_line
from training.options import OptionParser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    parser = OptionParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder")
    default = "report.html in the folder, comparison.html in the first of several"
    parser.add_argument("--output", metavar="FILE", help=f"the file to write (default: {default})")
    with ends_in_one_line():
        options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
        from experiments.run_report import write_report

        print(write_report(options.runs, options.output))


if __name__ == "__main__":
    main()
