"""Sets in memory: digits, synthetic, and the sets of torchvision with stand-ins for their files."""

from http.client import IncompleteRead
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits
from torchvision.transforms import functional as TF

from data import SyntheticSize, dataset_names, load_data

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def synthetic():
    return load_data("synthetic", synthetic_size=SyntheticSize(train=150, val=37, classes=4))


def images_of(batches):
    return torch.cat([batch.images for batch in batches])


def test_batches_have_the_promised_shapes(synthetic):
    assert (synthetic.num_train, synthetic.num_val, synthetic.num_classes) == (150, 37, 4)
    batches = list(synthetic.train_batches(0, batch_size=64, seed=0, device=CPU))
    assert len(batches) == synthetic.steps_per_epoch(64) == 3
    for batch in batches:
        assert batch.images.shape == (50, 3, 32, 32)
        assert batch.images.dtype == torch.float32
        assert batch.labels.dtype == torch.int64
        assert batch.global_size == len(batch.labels) == 50


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_ranks_together_make_the_batch_of_one_process(synthetic, world_size):
    options = {"batch_size": 12, "seed": 5, "device": CPU}
    ranks = [synthetic.train_batches(1, **options, rank=rank, world_size=world_size) for rank in range(world_size)]
    for whole, *parts in zip(synthetic.train_batches(1, **options), *ranks, strict=True):
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
        assert {part.global_size for part in parts} == {len(whole.images)}


def test_resuming_gives_the_tail_bit_for_bit(synthetic):
    whole = list(synthetic.train_batches(2, batch_size=16, seed=0, device=CPU))
    tail = list(synthetic.train_batches(2, batch_size=16, seed=0, device=CPU, start_step=6))
    assert len(tail) == len(whole) - 6
    assert torch.equal(images_of(tail), images_of(whole[6:]))


def test_epochs_and_seeds_differ_and_repeat(synthetic):
    def epoch(number, seed):
        return images_of(synthetic.train_batches(number, batch_size=50, seed=seed, device=CPU))

    assert torch.equal(epoch(0, 0), epoch(0, 0))
    assert not torch.equal(epoch(0, 0), epoch(1, 0))
    assert not torch.equal(epoch(0, 0), epoch(0, 1))


def test_each_place_of_an_epoch_has_moves_of_its_own(monkeypatch):
    pixels = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(1, 32, 32, 3) // 13
    monkeypatch.setattr(
        torchvision.datasets, "CIFAR10", fake_set(pixels.astype(np.uint8).repeat(300, axis=0), [0] * 300, ["cat"])
    )
    data = load_data("cifar10")
    epochs = [list(data.train_batches(epoch, batch_size=20, seed=0, device=CPU)) for epoch in range(2)]
    # 162 different moves; 20 draws hit about 19 of them, 300 draws about 137.
    assert len(torch.unique(epochs[0][0].images, dim=0)) > 14
    assert len(torch.unique(images_of(epochs[0]), dim=0)) > 110
    assert not torch.equal(epochs[0][0].images, epochs[1][0].images)


def test_batches_leave_the_global_random_numbers_alone(synthetic):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(synthetic.train_batches(0, batch_size=50, seed=0, device=CPU))
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def test_validation_over_ranks_has_every_image_once(synthetic):
    whole = images_of(synthetic.val_batches(batch_size=37, device=CPU))
    parts = [list(synthetic.val_batches(batch_size=8, device=CPU, rank=rank, world_size=3)) for rank in range(3)]
    assert [len(batches) for batches in parts] == [2, 2, 1]
    dealt = [parts[step % 3][step // 3] for step in range(5)]
    assert torch.equal(images_of(dealt), whole)


@pytest.mark.slow
def test_synthetic_images_can_be_learnt():
    data = load_data("synthetic")
    train = next(data.train_batches(0, batch_size=data.num_train, seed=0, device=CPU))  # augmented
    means = torch.stack([train.images[train.labels == label].mean(0) for label in range(data.num_classes)])
    val = next(data.val_batches(batch_size=data.num_val, device=CPU))
    nearest = torch.cdist(val.images.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == val.labels).float().mean() > 0.9
    assert torch.equal(
        images_of(load_data("synthetic").val_batches(batch_size=100, device=CPU)),
        images_of(data.val_batches(batch_size=100, device=CPU)),
    )


def test_synthetic_size_and_image_size():
    data = load_data("synthetic", image_size=48, synthetic_size=SyntheticSize(train=5, val=3, classes=2, channels=1))
    assert (data.in_channels, data.image_size) == (1, 48)
    assert next(data.train_batches(0, batch_size=5, seed=0, device=CPU)).images.shape == (5, 1, 48, 48)
    with pytest.raises(ValueError, match="at least 1"):
        SyntheticSize(train=0)


def test_the_split_of_the_digits_is_stratified_fixed_and_complete():
    data = load_data("digits")
    assert (data.in_channels, data.image_size, data.num_classes) == (1, 32, 10)
    val = next(data.val_batches(batch_size=data.num_val, device=CPU))
    source = load_digits()
    for digit in range(10):
        share = (val.labels == digit).sum() / (source.target == digit).sum()
        assert 0.19 < share < 0.21
    # Which ones: the third, eighth, ... of each class. Compared as 8x8 images, which scaling up keeps apart.
    rank_in_class = np.array([(source.target[:place] == digit).sum() for place, digit in enumerate(source.target)])
    expected = torch.from_numpy(source.images[rank_in_class % 5 == 2]).float() / 8 - 1
    small = torch.nn.functional.avg_pool2d(val.images[:, 0], 4)
    nearest = torch.cdist(expected.flatten(1), small.flatten(1)).argmin(1)
    assert torch.equal(nearest, torch.arange(data.num_val))
    assert data.num_train + data.num_val == len(source.target)


def fake_set(images, labels, classes, calls=None):
    """A class in place of one of torchvision's: the training set is the images, the test set their first two."""

    class Fake:
        def __init__(self, root, train, download):
            if calls is not None:
                calls.append((root, train, download))
            stop = None if train else 2
            self.data, self.targets, self.classes = images[:stop], labels[:stop], classes

    return Fake


def test_cifar10_is_normalised_as_torchvision_would(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    calls = []
    classes = ["cat", "dog", "ship"]
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fake_set(pixels, [0, 1, 2, 0, 1, 2], classes, calls))
    data = load_data("cifar10")
    assert calls == [("cifar10_data", True, False), ("cifar10_data", False, False)]  # nothing to download
    assert data.classes == ("cat", "dog", "ship")
    assert (data.in_channels, data.image_size, data.num_train, data.num_val) == (3, 32, 6, 2)
    (batch,) = data.val_batches(batch_size=8, device="cpu")
    for image, source in zip(batch.images, pixels, strict=False):
        expected = TF.normalize(TF.to_tensor(source), [0.5] * 3, [0.5] * 3)
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-6)
    (batch,) = data.train_batches(0, batch_size=8, seed=0, device="cpu")
    assert sorted(batch.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert (batch.images == -1).any()  # the padding is black before normalisation


@pytest.mark.parametrize(("name", "class_name"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_has_one_channel_and_can_be_resized(monkeypatch, name, class_name):
    pixels = torch.randint(0, 256, (5, 28, 28), dtype=torch.uint8)
    fake = fake_set(pixels, torch.tensor([0, 1, 0, 1, 0]), ["zero", "one"])
    monkeypatch.setattr(torchvision.datasets, class_name, fake)
    data = load_data(name)
    assert (data.in_channels, data.image_size) == (1, 28)
    (batch,) = data.val_batches(batch_size=8, device=CPU)
    restored = (batch.images * data.std[0] + data.mean[0]) * 255
    torch.testing.assert_close(restored, pixels[:2, None].float())
    large = load_data(name, image_size=32)
    assert next(large.train_batches(0, batch_size=5, seed=0, device=CPU)).images.shape == (5, 1, 32, 32)


def test_cifar10_of_another_size(monkeypatch):
    pixels = np.full((4, 32, 32, 3), 128, dtype=np.uint8)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fake_set(pixels, [0, 1, 0, 1], ["cat", "dog"]))
    (batch,) = load_data("cifar10", image_size=64).val_batches(batch_size=4, device=CPU)
    assert batch.images.shape == (2, 3, 64, 64)
    torch.testing.assert_close(batch.images, torch.full_like(batch.images, 128 / 127.5 - 1))


def test_missing_files_are_downloaded(monkeypatch, tmp_path):
    pixels = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    calls = []
    present = fake_set(pixels, [0, 1, 0, 1], ["cat", "dog"], calls)

    def read(root, train, download):
        if not calls and not download:
            raise RuntimeError("Dataset not found or corrupted.")
        return present(root, train, download)

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", read)
    assert load_data("cifar100", data_dir=tmp_path).num_train == 4
    assert calls == [(str(tmp_path), True, True), (str(tmp_path), False, False)]


@pytest.mark.parametrize(
    "reason",
    [URLError("no network"), RuntimeError("checksum\nwrong"), PermissionError("read-only"), IncompleteRead(b"")],
)
def test_a_failed_download_says_where_to_put_the_files(monkeypatch, tmp_path, reason):
    def read(root, train, download):
        if not download:
            raise RuntimeError("Dataset not found or corrupted.")
        (tmp_path / root / "part").mkdir(parents=True, exist_ok=True)
        raise reason

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", read)
    with pytest.raises(ValueError, match=r"cifar-10-batches-py.*ln -s YOUR_PATH cifar10_data") as raised:
        load_data("cifar10")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "cifar10_data").exists()  # so that the link can be made
    (tmp_path / "cifar10_data").mkdir()
    with pytest.raises(ValueError, match="can't download"):
        load_data("cifar10")
    assert (tmp_path / "cifar10_data").exists()  # the user's own


def test_wrong_names_and_values():
    with pytest.raises(ValueError, match="unknown data set 'cifar11'; choose from cifar10, cifar100, mnist"):
        load_data("cifar11")
    with pytest.raises(ValueError, match="image_size is 0"):
        load_data("digits", image_size=0)
    with pytest.raises(ValueError, match="workers is -1"):
        load_data("digits", workers=-1)
    assert {"cifar10", "cifar100", "mnist", "fashion_mnist", "imagenet", "folder", "digits", "synthetic"} == set(
        dataset_names()
    )
