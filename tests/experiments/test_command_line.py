"""What is read of a command line ahead of the rest: the network and the data, which decide the defaults."""

import pytest

from base_model import model_names
from experiments.command_line import read_network


def test_network_and_data_are_read_ahead_of_the_rest() -> None:
    assert read_network(["--lr", "1", "-a", "src56", "--unknown"]) == ("src56", None)
    assert read_network(["--dataset", "digits", "--arch", "timm/resnet18"]) == ("timm/resnet18", "digits")
    assert read_network(["--help"]) == (model_names()[0], None)
    for words, message in ((["-a", "three"], "no network is called 'three'"), (["--lr", "1"], "-a is required")):
        with pytest.raises(ValueError, match=message):
            read_network(words)
