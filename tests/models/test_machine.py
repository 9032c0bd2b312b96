"""Threads and images at a time: what the process may use, and what the user has decided."""

import os
import subprocess
import sys

import torch

from sagitta.models.machine import inference_batch

_LIMITED = "import torch; from sagitta.models import limit_threads; limit_threads(); print(torch.get_num_threads())"


def threads(code: str, **environment: str) -> int:
    """Return torch's threads after code in a process of its own, without the variables that decide them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept | environment
    )
    return int(done.stdout)


def test_torch_has_no_more_threads_than_cores_that_the_process_may_use() -> None:
    one = f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}}); {_LIMITED}"
    more = f"import torch; torch.set_num_threads(2); {one}"
    assert threads(one) == threads(more) == 1
    assert threads(more, OMP_NUM_THREADS="1") == 2  # the user has decided, and the code after that


def test_few_pixels_take_one_thread_unless_the_user_has_decided() -> None:
    code = (
        "import torch; from sagitta.models import threads_for; torch.set_num_threads(2); n = torch.get_num_threads\n"
        "with threads_for({pixels}): inside = n()\nprint(10 * inside + n())"
    )
    assert threads(code.format(pixels=64 * 8 * 8)) == 12  # one inside, two behind
    assert threads(code.format(pixels=16 * 224 * 224)) == 22
    assert threads(code.format(pixels=64 * 8 * 8), OMP_NUM_THREADS="2") == 22


def test_a_cpu_takes_few_images_at_a_time() -> None:
    assert 1 <= inference_batch(torch.device("cpu")) <= 64 <= inference_batch(torch.device("cuda"))
