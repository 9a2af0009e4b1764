"""A script that is killed at a moment of its own (crash_moments.py). crash.py calls this.

    python benchmarks/killed_at.py MOMENT SCRIPT OPTIONS...

MOMENT is a `Moment` as JSON. The script runs in this process; number 0 kills nothing, and counts what there is.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from the checkout without PYTHONPATH

from benchmarks.crash_moments import FILE_EVENT, Moment, Watch


def main(arguments: Sequence[str]) -> None:
    """Run the script that these name."""
    moment = Moment(**json.loads(arguments[0]))
    watch = Watch(moment)
    sys.argv = list(arguments[1:])
    sys.addaudithook(watch.audit)
    sys.setprofile(watch.profile)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        sys.setprofile(None)
        if moment.counts is not None:
            Path(moment.counts).write_text(json.dumps({FILE_EVENT: watch.events, **watch.seconds}))


if __name__ == "__main__":
    main(sys.argv[1:])
