"""Files that can be asked: what is done to the images, and which files are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_model import build_model
from rr import InputError, NetworkCard
from rr.export import exported_program
from rr.export.runtimes import write_program
from rr.export.serving import Served, load_served
from rr.weights.networks import note_widths
from rr.weights.safetensors_files import save_safetensors

CARD = NetworkCard(
    architecture="lenet5bn", mean=(0.5,), std=(0.25,), in_channels=1, image_size=28, widths=(20, 50, 500)
)


def test_images_are_normalised_as_the_card_says_and_shares_add_up_to_1() -> None:
    seen: list[Tensor] = []

    def run(images: Tensor) -> list[Tensor]:
        seen.append(images)
        return [torch.tensor([[0.0, 1.0, 2.0]])]

    images = torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0, 0.0]).view(1, 2, 3, 1)
    shares = Served(run, NetworkCard(mean=(0.5, 0.1), std=(0.25, 0.5))).probabilities(images)
    torch.testing.assert_close(seen[0].flatten(), torch.tensor([-1.2, -0.4, 0.4, 1.4, 1.8, -0.2]))
    torch.testing.assert_close(shares, torch.tensor([[1.0, torch.e, torch.e**2]]) / (1 + torch.e + torch.e**2))


def test_a_file_without_normalisation_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = note_widths(build_model("lenet5bn", folded=True).eval(), [20, 50, 500])
    images = torch.rand(2, 1, 28, 28)
    save_safetensors(tmp_path / "a.safetensors", model.state_dict(), CARD)
    expected = model((images - 0.5) / 0.25).softmax(1).detach()
    torch.testing.assert_close(load_served(tmp_path / "a.safetensors").probabilities(images), expected)
    save_safetensors(tmp_path / "b.safetensors", model.state_dict(), replace(CARD, mean=(), std=()))
    with pytest.raises(InputError, match="doesn't say how images are normalised"):
        load_served(tmp_path / "b.safetensors")
    (tmp_path / "a.hdf5").write_text("")
    with pytest.raises(InputError, match=r"must end in one of \.safetensors, \.pt2, \.onnx"):
        load_served(tmp_path / "a.hdf5")
    with pytest.raises(InputError, match=r"none\.onnx"):
        load_served(tmp_path / "none.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_a_flipped_bit_in_a_weight_is_damage(form: str, tmp_path: Path) -> None:
    """torch and the runtimes of ONNX compare nothing: the file predicted other classes without a word."""
    torch.manual_seed(0)
    model = build_model("lenet5bn", folded=True).eval()
    path = tmp_path / f"a.{form}"
    write_program(path, form, exported_program(model, torch.zeros(2, 1, 28, 28))[0], CARD)
    load_served(path)
    contents = bytearray(path.read_bytes())
    contents[contents.index(model.conv2.conv.weight.detach().numpy().tobytes()[:64]) + 3] ^= 0x40
    path.write_bytes(contents)
    with pytest.raises(InputError, match=rf"a\.{form} is damaged"):
        load_served(path)
