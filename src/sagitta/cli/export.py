"""`sagitta export`: a run in another format, proven."""

from sagitta.cli.options import Command
from sagitta.cli.preloading import preload
from sagitta.terminal import show

_TO_HELP = """onnx, openvino, torch (a program of torch.export): pixels to calibrated probabilities; safetensors: the
run as a folder in which nothing runs code; hub: a folder that timm and transformers load"""


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
    parser.add_argument("-o", "--output", metavar="DIR", help="folder (RUN/export; RUN/export/FORMAT of the last two)")
    parser.add_argument("--data", metavar="DATA", help="other images to prove it on (val of the run's own)")
    a, _ = parser.parse(argv)
    preload()
    show(export_run(a.run, a.to, out=a.output, data=a.data).text())
