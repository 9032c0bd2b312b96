"""What the commands share."""

import argparse

DATA_HELP = """what you have: a converted dataset; class folders, also under train/ val/ test/; files named
cat.0.jpg; a CSV, TSV or Parquet manifest; a .tar or .zip of these; WebDataset tars; MNIST idx files; CIFAR batches;
Hugging Face image Parquet (folder or hf://user/name); or digits, mnist, fashion-mnist, cifar10, cifar100, imagenette"""

TTA_HELP = """test-time augmentation: mean of the probabilities of an image and its mirror image, at twice the time;
it gained 2 points of accuracy on a small part of CIFAR-10 and 1 on dogs vs. cats"""


def command(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of one command."""
    return argparse.ArgumentParser(
        prog=f"sagitta {name}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def positive(text: str) -> int:
    """Parse a number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, at least 1")
    return int(text)


def byte_size(text: str) -> int:
    """Parse a number of bytes, such as 256M."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    if not number.isdigit() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give bytes, or such as 256M or 1G")
    return int(number) * unit


def config_error(message: str) -> Exception:
    """Return a ConfigError; imported late, since its module brings numpy and pyarrow."""
    from sagitta.errors import ConfigError

    return ConfigError(message)
