"""Folders of images: small ones through the cache, large ones through workers, and every way they can be wrong."""

import builtins
import errno
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as TF

import data.images
from data import load_data
from data.images import BadImages
from data.memory import MemoryData
from data.worker import ImageFolderData
from tests.image_folders import write_random_images

CLASSES = ("ant", "bee", "cow")


def make_folder(root, size=(12, 12), mode="RGB", train=4, val=2, val_name="val"):
    """`train` and `val` images per class, of random pixels, as PNG (lossless)."""
    return write_random_images(root, {"train": train, val_name: val}, CLASSES, size, mode)


def everything(data):
    """All training batches of an epoch and the validation images."""
    batches = [
        *data.train_batches(0, batch_size=5, seed=0, device="cpu"),
        *data.val_batches(batch_size=4, device="cpu"),
    ]
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches])


def forbid_decoding(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", refuse)


def assert_same(first, second):
    for mine, theirs in zip(first, second, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("val_name", ["val", "test"])
def test_a_folder_of_small_images(tmp_path, val_name):
    data = load_data("folder", make_folder(tmp_path, val_name=val_name))
    assert isinstance(data, MemoryData)
    assert data.classes == CLASSES
    assert (data.in_channels, data.image_size, data.num_train, data.num_val) == (3, 12, 12, 6)
    (batch,) = data.val_batches(batch_size=6, device="cpu")
    assert batch.labels.tolist() == [0, 0, 1, 1, 2, 2]
    with Image.open(tmp_path / val_name / "bee" / "1.png") as image:
        torch.testing.assert_close(batch.images[3], TF.to_tensor(image) * 2 - 1, rtol=0, atol=1e-6)


def test_other_sizes_are_scaled_and_cropped_without_distortion(tmp_path):
    make_folder(tmp_path, size=(30, 20))
    data = load_data("folder", tmp_path, image_size=10)
    (batch,) = data.val_batches(batch_size=6, device="cpu")
    with Image.open(tmp_path / "val" / "ant" / "0.png") as image:
        expected = TF.center_crop(TF.resize(image, [10]), [10, 10])
    torch.testing.assert_close(batch.images[0], TF.to_tensor(expected) * 2 - 1, rtol=0, atol=1e-6)
    assert load_data("folder", tmp_path).image_size == 20


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3), ("P", 3), ("RGBA", 3)])
@pytest.mark.parametrize("image_size", [12, 65])
def test_channels_are_found(tmp_path, mode, channels, image_size):
    data = load_data("folder", make_folder(tmp_path, mode=mode, train=1, val=1), image_size=image_size, workers=0)
    assert data.in_channels == channels
    (batch,) = data.val_batches(batch_size=3, device="cpu")
    assert batch.images.shape == (3, channels, image_size, image_size)


def test_one_coloured_image_makes_the_set_coloured(tmp_path):
    make_folder(tmp_path, mode="L")
    Image.new("RGB", (12, 12), (255, 0, 0)).save(tmp_path / "val" / "cow" / "1.png")
    assert load_data("folder", tmp_path).in_channels == 3


def test_the_second_load_decodes_nothing_and_gives_the_same(tmp_path, monkeypatch):
    first = everything(load_data("folder", make_folder(tmp_path), image_size=8))
    assert [path.suffix for path in tmp_path.glob(".resrep_cache_*")] == [".npz"]  # and no unfinished file
    forbid_decoding(monkeypatch)
    assert_same(everything(load_data("folder", tmp_path, image_size=8)), first)


def test_a_changed_file_is_decoded_again(tmp_path):
    before = everything(load_data("folder", make_folder(tmp_path), image_size=8))
    changed = tmp_path / "val" / "cow" / "1.png"
    Image.new("RGB", (12, 12)).save(changed)
    os.utime(changed, ns=(1, 1))
    after = everything(load_data("folder", tmp_path, image_size=8))
    assert torch.equal(before[0][:-1], after[0][:-1])
    assert (after[0][-1] == -1).all()


def test_each_image_size_has_its_own_cache(tmp_path, monkeypatch):
    make_folder(tmp_path)
    first = {size: everything(load_data("folder", tmp_path, image_size=size)) for size in (8, 9)}
    forbid_decoding(monkeypatch)
    for size, images in first.items():
        assert_same(everything(load_data("folder", tmp_path, image_size=size)), images)


@pytest.mark.parametrize("damage", ["cut", "garbage", "flipped", "pickled", "other shape"])
def test_a_damaged_cache_is_replaced(tmp_path, monkeypatch, damage):
    first = everything(load_data("folder", make_folder(tmp_path), image_size=8))
    (cache,) = tmp_path.glob(".resrep_cache_*.npz")
    whole = cache.read_bytes()
    if damage == "pickled":
        np.savez(cache, train=np.array([{}], dtype=object), val=np.zeros(3))
    elif damage == "other shape":
        np.savez(cache, train=np.zeros((12, 3, 9, 9), np.uint8), val=np.zeros((6, 3, 9, 9), np.uint8))
    else:
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 255
        cache.write_bytes({"cut": whole[:-100], "garbage": b"no zip", "flipped": bytes(flipped)}[damage])
    assert_same(everything(load_data("folder", tmp_path, image_size=8)), first)
    forbid_decoding(monkeypatch)
    assert_same(everything(load_data("folder", tmp_path, image_size=8)), first)


@pytest.mark.parametrize("failing", ["open", "write"])
def test_a_folder_that_can_not_be_written_to(tmp_path, monkeypatch, failing):
    make_folder(tmp_path)

    def refuse(path, mode="r", **options):
        if "w" in mode:
            raise PermissionError(errno.EACCES, "read-only")
        return builtins.open(path, mode, **options)

    def full_disk(file, **arrays):
        file.write(b"begun")
        raise OSError(errno.ENOSPC, "disk full")

    if failing == "open":
        monkeypatch.setattr(data.images, "open", refuse, raising=False)
    else:
        monkeypatch.setattr(np, "savez", full_disk)
    first = everything(load_data("folder", tmp_path))
    assert not list(tmp_path.glob(".resrep_cache_*"))
    assert_same(everything(load_data("folder", tmp_path)), first)


def test_any_number_of_threads_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(data.images, "FILES_PER_JOB", 2)
    make_folder(tmp_path)
    monkeypatch.setattr(data.images, "write_cache", lambda *args: None)
    assert_same(
        everything(load_data("folder", tmp_path, workers=0)), everything(load_data("folder", tmp_path, workers=3))
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("large"), size=(90, 80))


@pytest.mark.slow
def test_large_images_come_from_workers_with_any_number_of_them(large):
    reference = load_data("folder", large, workers=0)
    assert isinstance(reference, ImageFolderData)
    assert reference.image_size == 224
    data = load_data("folder", large, image_size=65, workers=0)
    images, labels = everything(data)
    assert images.shape == (18, 3, 65, 65)
    assert images.dtype == torch.float32
    assert_same(everything(load_data("folder", large, image_size=65, workers=2)), (images, labels))
    assert_same(everything(data), (images, labels))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_takes_no_images_away(large, number):
    """Ctrl-C and SLURM's SIGTERM reach the workers too, and the last step still needs them; the second SIGTERM ends."""
    options, others = {"batch_size": 1, "seed": 0, "device": "cpu"}, multiprocessing.active_children()
    batches = load_data("folder", large, image_size=65, workers=2).train_batches(0, **options)
    found = [next(batches), next(batches)]  # one of each: both are at work
    workers = [process for process in multiprocessing.active_children() if process not in others]
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, number)
    found += batches
    other = list(load_data("folder", large, image_size=65, workers=0).train_batches(0, **options))
    for mine, theirs in zip(found, other, strict=True):
        assert torch.equal(mine.images, theirs.images)
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_a_worker_ends_at_the_second_sigterm_without_an_error(large):
    others = multiprocessing.active_children()
    batches = load_data("folder", large, image_size=65, workers=1).train_batches(0, batch_size=1, seed=0, device="cpu")
    next(batches)
    (worker,) = (process for process in multiprocessing.active_children() if process not in others)
    while worker.is_alive():
        os.kill(worker.pid, signal.SIGTERM)
        worker.join(0.05)
    assert worker.exitcode == 0


def test_large_images_of_ranks_and_resumed_epochs(large):
    data = load_data("folder", large, image_size=65, workers=0)
    options = {"batch_size": 4, "seed": 3, "device": "cpu"}
    whole = list(data.train_batches(1, **options))
    parts = [list(data.train_batches(1, **options, rank=rank, world_size=2)) for rank in range(2)]
    for batch, *ranks in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([part.images for part in ranks]), batch.images)
        assert torch.equal(torch.cat([part.labels for part in ranks]), batch.labels)
    (last,) = data.train_batches(1, **options, start_step=2)
    assert torch.equal(last.images, whole[2].images)
    other_epoch = next(data.train_batches(2, **options))
    assert not torch.equal(other_epoch.images, whole[0].images)
    assert sorted(torch.cat([batch.labels for batch in whole]).tolist()) == [0] * 4 + [1] * 4 + [2] * 4


def test_resuming_decodes_only_the_tail(large, monkeypatch):
    data = load_data("folder", large, image_size=65, workers=0)
    opened = []
    really_open = Image.open
    monkeypatch.setattr(Image, "open", lambda path, **how: opened.append(path) or really_open(path, **how))
    list(data.train_batches(0, batch_size=4, seed=0, device="cpu", start_step=2))
    assert len(opened) == 4


def test_large_images_leave_the_global_random_numbers_alone(large):
    data = load_data("folder", large, image_size=65, workers=0)
    torch.manual_seed(7)  # a state that no seed of an image leaves behind
    before = torch.get_rng_state()
    everything(data)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_large_image_has_a_crop_of_its_own(tmp_path):
    make_folder(tmp_path, train=1, val=1)
    for name in CLASSES:
        Image.linear_gradient("L").save(tmp_path / "train" / name / "0.png")  # 256x256, each row another grey
    data = load_data("folder", tmp_path, image_size=65, workers=0)
    images = [
        image
        for epoch in range(2)
        for image in next(data.train_batches(epoch, batch_size=3, seed=0, device="cpu")).images
    ]
    assert len(torch.unique(torch.stack(images), dim=0)) == 6


def test_evaluation_of_large_images_is_resize_and_center_crop(large):
    data = load_data("imagenet", large, workers=0)
    assert (data.name, data.image_size, data.in_channels) == ("imagenet", 224, 3)
    batch = next(data.val_batches(batch_size=2, device="cpu"))
    for place, image_of_batch in enumerate(batch.images):
        with Image.open(large / "val" / "ant" / f"{place}.png") as image:
            expected = TF.to_tensor(TF.center_crop(TF.resize(image, [256]), [224, 224]))
        expected = TF.normalize(expected, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        torch.testing.assert_close(image_of_batch, expected, rtol=0, atol=1e-5)


def test_hidden_files_are_no_images(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train" / "ant" / "._0.png").write_bytes(b"macOS")
    (tmp_path / "train" / ".git").mkdir()
    (tmp_path / "train" / "ant" / "readme.txt").write_text("no image")
    assert load_data("folder", tmp_path).num_train == 12


def one_line_error(message, *args, **options):
    with pytest.raises(ValueError, match=message) as raised:
        everything(load_data(*args, **options))
    assert "\n" not in str(raised.value)


def test_missing_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one_line_error("needs data_dir", "folder")
    one_line_error("no data folder 'imagenet_data'; .*`ln -s YOUR_PATH imagenet_data`", "imagenet")
    one_line_error("no data folder 'mine'", "folder", "mine")
    (tmp_path / "mine" / "val").mkdir(parents=True)
    one_line_error("no folder 'mine/train'", "folder", "mine")
    (tmp_path / "mine" / "train").mkdir()
    one_line_error("no class folders in 'mine/train'", "folder", "mine")
    (tmp_path / "mine" / "val").rmdir()
    one_line_error("neither 'mine/val' nor 'mine/test'", "folder", "mine")


def test_empty_class_folder(tmp_path):
    make_folder(tmp_path)
    for path in (tmp_path / "train" / "bee").iterdir():
        path.unlink()
    one_line_error("no images .*train/bee'", "folder", tmp_path)


def test_classes_of_train_and_val_differ(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "val" / "dog").mkdir()
    one_line_error("val' has classes that '.*train' lacks: dog;", "folder", tmp_path)
    (tmp_path / "val" / "dog").rmdir()
    for number in range(7):
        (tmp_path / "train" / f"x{number}").mkdir()
    one_line_error("train' has classes that '.*val' lacks: x0, x1, x2, x3, x4 and 2 more;", "folder", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["cut", "text"])
@pytest.mark.parametrize(("image_size", "workers"), [(12, 0), (65, 0), (65, 2)])
def test_a_broken_image_is_named(tmp_path, image_size, workers, content):
    make_folder(tmp_path)
    broken = tmp_path / "val" / "bee" / "1.png"
    broken.write_bytes(broken.read_bytes()[:150] if content == "cut" else b"not an image")
    one_line_error("broken image '.*val/bee/1.png'", "folder", tmp_path, image_size=image_size, workers=workers)


@pytest.mark.parametrize(("image_size", "workers"), [(None, 0), (65, 0), (65, 2)])
def test_all_broken_images_are_named_at_once(tmp_path, image_size, workers):
    make_folder(tmp_path)
    broken = [tmp_path / split / "ant" / "0.png" for split in ("train", "val")]  # the first says the images' size
    for path in broken:
        path.write_bytes(b"not an image")
    words = "2 broken images: '.*train/ant/0.png' .*, '.*val/ant/0.png' .*; replace or delete them"
    one_line_error(words, "folder", tmp_path, image_size=image_size, workers=workers)


def test_of_many_broken_images_some_are_named(tmp_path):
    found = {f"{number}.png": "cut" for number in range(12)}
    with pytest.raises(BadImages, match=r"12 broken images: '0.png' \(cut\), .*'9.png' \(cut\) and 2 more; replace"):
        raise BadImages(found)


def test_how_the_size_was_chosen_is_said(tmp_path):
    small, large = make_folder(tmp_path / "small", size=(14, 11)), make_folder(tmp_path / "large", size=(70, 65))
    said = "used at 3 x 11 x 11 (the smaller side of the first training image; --image-size changes that)"
    assert said in load_data("folder", small).describe()
    said = "used at 3 x 224 x 224 (as the first training image is over 64 pixels; --image-size changes that)"
    assert said in load_data("folder", large).describe()
    assert load_data("folder", small, image_size=12).describe().endswith("used at 3 x 12 x 12")


def test_sixteen_bits_are_refused(tmp_path):
    make_folder(tmp_path, mode="L")
    Image.fromarray(np.full((12, 12), 40_000, dtype=np.uint16)).save(tmp_path / "train" / "ant" / "0.png")
    one_line_error("more than 8 bits per channel", "folder", tmp_path)
