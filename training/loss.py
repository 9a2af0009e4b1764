"""The loss of one forward pass, whatever a classifier returns while it is trained."""

import torch
import torch.nn.functional as F
from torchvision.models import GoogLeNetOutputs, InceptionOutputs

from rr.errors import InputError

# The share of each auxiliary classifier's loss: that of the GoogLeNet paper (section 5), and that of PyTorch's
# fine-tuning tutorial for Inception-v3.
_AUX_SHARES = {GoogLeNetOutputs: 0.3, InceptionOutputs: 0.4}


def logits_and_loss(
    output: object, labels: torch.Tensor, label_smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The network's logits [n, classes] in float32 or wider, and the mean cross-entropy over the examples.

    Args:
        output: logits, or what torchvision's GoogLeNet and Inception-v3 return in training, whose auxiliary
            classifiers' losses are added with a weight.
        labels: [n].
        label_smoothing: part of the target spread over all classes.

    Raises:
        InputError: for any other output.
    """
    logits, aux, share = _parts(output)

    def loss_of(scores: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(widened(scores), labels, label_smoothing=label_smoothing)

    loss = loss_of(logits)
    for scores in aux:
        loss = loss + share * loss_of(scores)
    return widened(logits), loss


def distilled(
    loss: torch.Tensor, logits: torch.Tensor, taught: torch.Tensor, share: float, temperature: float
) -> torch.Tensor:
    """(1 - a) loss + a T^2 KL(softmax(taught / T) | softmax(logits / T)), the divergence a mean over the examples.

    Hinton et al. (2015), section 2: T^2 keeps the teacher's part of the gradient on one scale whatever the temperature.
    In float32 or wider.

    Args:
        loss: the mean loss of the labels.
        logits: the student's, [n, classes].
        taught: the teacher's, [n, classes].
        share: a, from 0 to 1.
        temperature: T.
    """
    student, teacher = (F.log_softmax(widened(scores) / temperature, dim=1) for scores in (logits, taught))
    divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return (1 - share) * loss + share * temperature**2 * divergence


def _parts(output: object) -> tuple[torch.Tensor, list[torch.Tensor], float]:
    """The logits, the auxiliary classifiers' logits and the weight of their losses."""
    if isinstance(output, torch.Tensor):
        return output, [], 0.0
    share = _AUX_SHARES.get(type(output))
    if share is None:
        raise InputError(
            f"in training the network returns a {type(output).__name__}: return the logits alone, or torchvision's "
            "GoogLeNetOutputs or InceptionOutputs"
        )
    logits, *aux = output
    return logits, [scores for scores in aux if scores is not None], share


def widened(scores: torch.Tensor) -> torch.Tensor:
    """The numbers, in float32 where autocast left them in less."""
    return scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores
