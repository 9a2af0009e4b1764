"""The README's table comes from the run files, and from nothing else."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "results_table.py"


def test_the_readme_says_what_the_files_say() -> None:
    run = subprocess.run([sys.executable, str(TOOL), "--check"], capture_output=True, text=True)
    assert run.returncode == 0, "run `python tools/results_table.py`"


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "tools" / "results_table.py").write_text(TOOL.read_text())
    (tmp_path / "README.md").write_text((ROOT / "README.md").read_text())
    for path in (ROOT / "results").glob("*.json"):
        result = json.loads(path.read_text())
        if "comparison" in result:
            result["comparison"]["pruned"]["val"]["top1"] += 1
        (tmp_path / "results" / path.name).write_text(json.dumps(result))
    command = [sys.executable, str(tmp_path / "tools" / "results_table.py")]
    assert subprocess.run([*command, "--check"]).returncode == 1
    assert subprocess.run(command).returncode == 0
    assert subprocess.run([*command, "--check"]).returncode == 0


def test_result_files_name_what_made_them() -> None:
    files = list((ROOT / "results").glob("*.json"))
    assert files
    for path in files:
        text = path.read_text()
        for word in ("commit", "versions", "hardware"):
            assert f'"{word}"' in text, f"{path.name} lacks {word}"
