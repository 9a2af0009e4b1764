"""What every forked process (tests/forked.py) finds imported; a module to be imported there alone."""

import sklearn.datasets
import torch._dynamo
import torch.export
import torchvision
from tqdm import tqdm

import benchmarks.studies.rivals
import examples.digits
import experiments.base_training
import experiments.pruning
import experiments.testing
import rr.pruner
import tests.forked
import tests.training.tiny_run

__all__ = ["benchmarks", "examples", "experiments", "rr", "sklearn", "tests", "torch", "torchvision"]

tqdm.get_lock()  # made in a process that is killed, it would be left behind
