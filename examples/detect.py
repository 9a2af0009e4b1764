"""A detector pruned in its own loop, saved, loaded into the full network, exported and run.

    python -m examples.detect slim.hdf5

It finds squares, discs and crosses in small pictures. The network is YOLOv8n where the package ultralytics is installed
(`pip install ultralytics`, under the AGPL), else a small one in its way that stands below; `--network` chooses.
Only the loss and what is made of the outputs are a detector's: the pruner sees a network like any other.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, for `python examples/detect.py`

import importlib.util
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples import digits
from rr import ResRepPruner, fast_config, load_converted, save_converted

KINDS = 3  # of objects
OBJECTS = 2  # in each picture
RATE = 0.05
Scenes = tuple[Tensor, Tensor, Tensor]  # pictures [N, 3, S, S], kinds [N, 2], boxes [N, 2, 4]: corners, of the side
Found = list[tuple[Tensor, Tensor]]  # for each picture, kinds [n] and boxes [n, 4]


def scenes(number: int, side: int, seed: int) -> Scenes:
    """Pictures with noise and two objects, in two of the quarters."""
    draw = torch.Generator().manual_seed(seed)
    pictures = 0.1 * torch.rand(number, 3, side, side, generator=draw)
    kinds = torch.randint(KINDS, (number, OBJECTS), generator=draw)
    boxes = torch.empty(number, OBJECTS, 4)
    axis = torch.arange(side)
    for picture, kind, box in zip(pictures, kinds, boxes, strict=True):
        for place, quarter in enumerate(torch.randperm(4, generator=draw)[:OBJECTS].tolist()):
            size = int(torch.randint(side * 3 // 16, side * 6 // 16, (), generator=draw))
            free = side // 2 - size + 1
            x, y = (torch.randint(free, (2,), generator=draw) + side // 2 * torch.tensor(divmod(quarter, 2))).tolist()
            across, down = (axis - x - (size - 1) / 2)[None].abs(), (axis - y - (size - 1) / 2)[:, None].abs()
            inside = torch.maximum(across, down) < size / 2
            if kind[place] == 1:
                inside = across.square() + down.square() < (size / 2) ** 2
            elif kind[place] == 2:
                inside &= torch.minimum(across, down) < size / 6
            picture += inside * (0.4 + 0.6 * torch.rand(3, 1, 1, generator=draw))
            box[place] = torch.tensor([x, y, x + size, y + size]) / side
    return pictures, kinds, boxes


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """conv-BN-SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()
    )


class Split(nn.Module):
    """YOLO's block: half of the channels go through two convolutions, and all are joined, [N, C, H, W] -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter, self.inner = conv(channels, channels, 1), nn.Sequential(conv(half, half), conv(half, half))
        self.leave = conv(half * 3, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, x = self.enter(x).chunk(2, dim=1)
        return self.leave(torch.cat([kept, x, x + self.inner(x)], dim=1))


class SmallYolo(nn.Module):
    """Pictures [N, 3, S, S] -> for each cell of 4 x 4 pixels whether an object's centre is there, its box and kind."""

    side = 32

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(conv(3, 8, 3, 2), conv(8, 16), Split(16), conv(16, 32, 3, 2), Split(32))
        self.boxes = nn.Sequential(conv(32, 16), nn.Conv2d(16, 4, 1))
        self.scores = nn.Sequential(conv(32, 16), nn.Conv2d(16, 1 + KINDS, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.backbone(x)
        return self.scores(x), self.boxes(x)  # [N, 1 + kinds, S / 4, S / 4], [N, 4, S / 4, S / 4]

    def loss(self, pictures: Tensor, kinds: Tensor, boxes: Tensor) -> Tensor:
        scores, offsets = self(pictures)
        boxes = boxes * scores.shape[-1]  # in cells
        x, y = ((boxes[..., :2] + boxes[..., 2:]) / 2).long().unbind(-1)  # [N, 2], of the centres
        picture = torch.arange(len(pictures))[:, None]
        there = torch.zeros_like(scores[:, 0])
        there[picture, y, x] = 1.0
        corners = offsets[picture, :, y, x] + torch.stack([x, y, x, y], dim=-1)
        return (
            F.binary_cross_entropy_with_logits(scores[:, 0], there, 1 + 4 * there)
            + F.cross_entropy(scores[picture, 1:, y, x].flatten(0, 1), kinds.flatten())
            + F.l1_loss(corners, boxes)
        )

    @staticmethod
    def found(outputs: tuple[Tensor, Tensor]) -> Found:
        scores, offsets = outputs
        cells = scores.shape[-1]
        y, x = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
        boxes = (offsets + torch.stack([x, y, x, y])).permute(0, 2, 3, 1) / cells
        there, kinds = scores[:, 0] > 0, scores[:, 1:].argmax(1)
        return [(kinds[picture][where], boxes[picture][where]) for picture, where in enumerate(there)]


def yolov8n() -> nn.Module:
    """ultralytics' YOLOv8n, with the same two methods on it."""
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils.nms import non_max_suppression

    class Yolo(DetectionModel):
        side = 64

        def loss(self, pictures: Tensor, kinds: Tensor, boxes: Tensor) -> Tensor:
            wide = torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)
            batch = {
                "img": pictures,
                "cls": kinds.view(-1, 1).float(),
                "bboxes": wide.flatten(0, 1),
                "batch_idx": torch.arange(len(pictures)).repeat_interleave(OBJECTS).float(),
            }
            return super().loss(batch)[0].sum() / len(pictures)

        @staticmethod
        def found(outputs: tuple[Tensor, object]) -> Found:
            return [(each[:, 5].long(), each[:, :4] / Yolo.side) for each in non_max_suppression(outputs[0])]

    model = Yolo("yolov8n.yaml", nc=KINDS, verbose=False)
    model.args = get_cfg()
    model.model[-1].dynamic = True  # or it keeps the grid of the last batch, and is exported for batches of that size
    return model


def batches(data: Scenes, epoch: int, batch_size: int = 32) -> Iterator[Scenes]:
    """Whole batches, in an order that depends on the epoch alone."""
    order = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(epoch))
    for part in order.split(batch_size):
        yield tuple(item[part] for item in data)


@torch.no_grad()
def accuracy(model: nn.Module, data: Scenes, found: object) -> float:
    """Objects whose kind and half of whose box is right, over all objects and what is found but isn't there."""
    pictures, kinds, boxes = data
    right = wrong = 0
    for (said, where), kind, box in zip(found(model(pictures)), kinds, boxes, strict=True):
        low, high = torch.maximum(where[:, None, :2], box[:, :2]), torch.minimum(where[:, None, 2:], box[:, 2:])
        both = (high - low).clamp(min=0).prod(-1)
        each = [(corners[..., 2:] - corners[..., :2]).clamp(min=0).prod(-1) for corners in (where[:, None], box)]
        hits = (both / (each[0] + each[1] - both + 1e-9) > 0.5) & (said[:, None] == kind)  # [n, 2]
        right += int(hits.any(0).sum())
        wrong += int((~hits.any(1)).sum())
    return right / (kinds.numel() + wrong)


parser = digits.options(__doc__, epochs=10)
parser.add_argument("file", type=Path, help="the file to write; the exported network goes beside it, as .pt2")
parser.add_argument("--network", choices=("small", "yolov8n"), help="default: yolov8n where ultralytics is installed")
parser.add_argument("--pictures", type=int, default=512, help="to train on")
options = parser.parse_args()
network = options.network or ("yolov8n" if importlib.util.find_spec("ultralytics") else "small")
build = {"small": SmallYolo, "yolov8n": yolov8n}[network]

torch.manual_seed(0)
model = build()
train, test = scenes(options.pictures, model.side, seed=1), scenes(200, model.side, seed=2)
steps = options.epochs * -(-options.pictures // 32)


def train_on(optimizer: torch.optim.Optimizer, pruner: ResRepPruner | None = None) -> None:
    """The project's own loop, before there is a pruner and with it."""
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(options.epochs):
        model.train()
        for pictures, kinds, boxes in batches(train, epoch):
            loss = model.loss(pictures, kinds, boxes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            if pruner and pruner.narrow_is_due:
                pruner.narrow()
        print(f"epoch {epoch}: loss {loss.item():.4f}")


train_on(torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=1e-4))
before = accuracy(model.eval(), test, model.found)

pruner = ResRepPruner(model, train[0][:2], fast_config(flops_target=0.5).for_run(steps, lr=RATE))
optimizer = torch.optim.SGD(pruner.param_groups(lr=RATE, momentum=0.9, weight_decay=1e-4))
pruner.attach(optimizer)
train_on(optimizer, pruner)
slim = pruner.convert()
save_converted(options.file, slim)

loaded = load_converted(options.file, build())  # into the full network, which becomes as narrow as the file
trained = accuracy(model.eval(), test, model.found)
digits.show(pruner.report, before, trained, accuracy(loaded, test, model.found))

exported = torch.export.export(loaded, (test[0],), dynamic_shapes=({0: torch.export.Dim("batch")},))
torch.export.save(exported, options.file.with_suffix(".pt2"))
run = torch.export.load(options.file.with_suffix(".pt2")).module()
few = tuple(item[:50] for item in test)
print(
    f"exported: {accuracy(run, few, model.found):.2%} of 50 pictures; loaded: {accuracy(loaded, few, model.found):.2%}"
)
