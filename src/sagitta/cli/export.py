"""`sagitta export`, `benchmark` and `push`: a run in another format, proven; all of them; what goes to the hub."""

from sagitta.cli.options import Command
from sagitta.terminal import show

_TO_HELP = """onnx, openvino, torch (a program of torch.export): pixels to calibrated probabilities; safetensors: the
run as a folder in which nothing runs code; hub: a folder that timm and transformers load"""
_PRECISION_HELP = """32, 16, bf16 (of torch), int8 (of onnx and openvino: calibrated on training images, refused where
it loses accuracy or is not 1.3 times as fast)"""


def export(argv: list[str]) -> None:
    """Write a run's model in another format, and prove it."""
    from sagitta.verbs import export as export_run

    parser = Command(
        "export",
        "RUN [--OPTION VALUE …]",
        "Write a run's model in another format. Images of the run's val, and odd copies of one, go through the file in "
        "a process without Sagitta; where an answer differs from the checkpoint's, nothing is written.",
    )
    parser.add_argument("run", metavar="RUN", help="run directory, or a checkpoint file")
    parser.add_argument("--to", metavar="FORMAT", default="onnx", help=f"{_TO_HELP} (onnx)")
    parser.add_argument("--precision", metavar="P", default="32", help=f"{_PRECISION_HELP} (32)")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder (RUN/export; RUN/export/FORMAT of the last two)")
    parser.add_argument("--data", metavar="DATA", help="other images to prove it on (val of the run's own)")
    a, _ = parser.parse(argv)
    show(export_run(a.run, a.to, precision=a.precision, out=a.output, data=a.data).text())


def benchmark(argv: list[str]) -> None:
    """Measure a run as every format that can be had here."""
    from sagitta.verbs import benchmark as measure

    parser = Command(
        "benchmark",
        "RUN [--OPTION VALUE …]",
        "Measure a run as every format and precision that sagitta export has: size, decisions and accuracy against the "
        "checkpoint, milliseconds an image and for 32. What cannot be had here is named with the reason; nothing is "
        "kept.",
    )
    parser.add_argument("run", metavar="RUN", help="run directory, or a checkpoint file")
    parser.add_argument("--data", metavar="DATA", help="other images to compare on (val of the run's own)")
    a, _ = parser.parse(argv)
    show(measure(a.run, data=a.data).text())


def push(argv: list[str]) -> None:
    """Send a run or a dataset to the Hugging Face hub."""
    from sagitta.verbs import push as push_files

    parser = Command(
        "push",
        "RUN|DATASET USER/NAME [--OPTION VALUE …]",
        "Send a run, exported as hub and proven first, or a converted dataset to the Hugging Face hub, with a card. "
        "Who may write is said by hf auth login, or HF_TOKEN.",
    )
    parser.add_argument("what", metavar="RUN", help="run directory, checkpoint, folder of export --to hub, or dataset")
    parser.add_argument("repository", metavar="USER/NAME", help="is made where it is not there")
    parser.add_argument("--data", metavar="DATA", help="other images to prove a run on (val of the run's own)")
    parser.add_argument("--public", action="store_true", help="anybody may see a repository that is made (private)")
    a, _ = parser.parse(argv)
    show(str(push_files(a.what, a.repository, data=a.data, public=a.public)))
