"""The names of data sets. Nothing here needs torch."""

TORCHVISION_SETS = ("cifar10", "cifar100", "mnist", "fashion_mnist")
FOLDER_SETS = ("imagenet", "folder")
GENERATED_SETS = ("digits", "synthetic")


def dataset_names() -> tuple[str, ...]:
    """The names that `load_data` takes."""
    return (*TORCHVISION_SETS, *FOLDER_SETS, *GENERATED_SETS)
