"""One run on one, four and two processes, interrupted in between, and on two hosts: the same weights and figures."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.conftest import Command
from tests.distributed.processes import SAGITTA, Begun, begin

# A network whose results do not depend on how a batch is divided: no BatchNorm, no dropout.
FIT = (
    "fit",
    "digits",
    "--model",
    "test_convnext",
    "--image-size",
    32,
    "--epochs",
    2,
    "--ema",
    0.9,
    "--model.lr",
    0.001,
)
BATCH = 96  # over all devices


def devices(count: int) -> tuple[object, ...]:
    where = ("--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--data.threads", 1)
    return ("--devices", count, "--batch-size", BATCH // count, *where)


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return found


def compare(run: Path, other: Path) -> None:
    """Assert that two runs have the same weights within float tolerance, the same figures, and every row once."""
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=2e-6)
    results = [json.loads((each / "run.json").read_text())["result"] for each in (run, other)]
    assert results[0] == pytest.approx(results[1], abs=1e-6)
    paths = [pq.read_table(next(each.glob("tests/*/predictions.parquet")))["path"].to_pylist() for each in (run, other)]
    assert paths[0] == paths[1] and len(set(paths[0])) == len(paths[0]) == 179


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, sagitta_process: Command) -> Path:
    """A folder with the run ``alone``, of one process."""
    folder = tmp_path_factory.mktemp("worlds")
    sagitta_process(*FIT, *devices(1), "--out", "alone", cwd=folder)
    return folder


def test_begun_on_four_ended_and_gone_on_with_on_two(work: Path, sagitta_process: Command) -> None:
    begun = begin((*SAGITTA, *FIT, *devices(4), "--out", "four"), work, work / "cache")
    try:
        begun.says("epoch   1/2")
        os.kill(begun.process.pid, signal.SIGTERM)
        code, (line,) = begun.ended(60)
    finally:
        begun.end()
    assert code == 128 + signal.SIGTERM and line.endswith("sagitta fit --resume four")
    said = sagitta_process("fit", "--resume", "four", *devices(2), cwd=work)
    assert "epoch   2/2" in said and "epoch   1/2" not in said
    compare(work / "four", work / "alone")


def namespaces(names: tuple[str, str], network: str) -> Iterator[str]:
    """Yield the commands that make two hosts with a cable between them."""
    yield from (f"ip netns add {name}" for name in names)
    yield f"ip link add link0 netns {names[0]} type veth peer name link0 netns {names[1]}"
    for number, name in enumerate(names, 1):
        yield f"ip -n {name} addr add {network}.{number}/24 dev link0"
        yield from (f"ip -n {name} link set {link} up" for link in ("lo", "link0"))


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """The names of two network namespaces that reach each other as 10.77.13.1 and 10.77.13.2, and nothing else."""
    names = (f"sagitta{os.getpid()}a", f"sagitta{os.getpid()}b")
    with ExitStack() as stack:
        for name in names:
            stack.callback(subprocess.run, ["ip", "netns", "del", name], capture_output=True, check=False)
        for command in namespaces(names, "10.77.13"):
            try:
                done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            except FileNotFoundError:
                pytest.skip("no ip(8) here")
            if done.returncode:
                pytest.skip(f"network namespaces are not permitted here: {done.stderr.strip()}")
        yield names


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces")
def test_two_hosts_of_two_processes_make_one_run(work: Path, hosts: tuple[str, str]) -> None:
    """The second host begins first, and nobody names the run; then a process of it is killed in another run."""
    (folder := work / "hosts").mkdir()
    common = (*devices(4), "--devices", 2, "--trainer.num_nodes", 2)

    def begin_on(host: int, *arguments: object) -> Begun:
        variables = {"MASTER_ADDR": "10.77.13.1", "MASTER_PORT": "29513", "NODE_RANK": str(host)}
        command = ("ip", "netns", "exec", hosts[host], *SAGITTA, *arguments)
        return begin(command, folder, work / "cache", variables | {"GLOO_SOCKET_IFNAME": "link0"})

    with ExitStack() as stack:
        second, first = (begin_on(host, *FIT, *common) for host in (1, 0))
        stack.callback(second.end)
        stack.callback(first.end)
        assert first.ended(240) == (0, []) and second.ended(60) == (0, [])
    assert [path.name for path in (folder / "runs").iterdir()] == ["digits-1"]
    assert first.text().count("Run summary") == 1 and "Run summary" not in second.text()
    compare(folder / "runs" / "digits-1", work / "alone")

    with ExitStack() as stack:
        first, second = (begin_on(host, *FIT, *common, "--epochs", 300) for host in (0, 1))
        stack.callback(second.end)
        stack.callback(first.end)
        first.says("epoch   1/300")
        (victim,) = (pid for pid, rank in second.members().items() if rank == 1)
        os.kill(victim, signal.SIGKILL)
        code, (line,) = second.ended(60)
        assert code == 2 and "process 4 of 4 was ended by SIGKILL; " in line
        code, (line,) = first.ended(60)
        assert code == 2 and "another process of this run has ended" in line
        assert line.endswith("--resume runs/digits-2")


def test_a_host_that_sees_another_disk_is_named(tmp_path: Path) -> None:
    """It says what is wrong, and the first process, which waits for it, does not wait for long."""
    with ExitStack() as stack:
        hosts = []
        for host in (1, 0):
            (folder := tmp_path / str(host)).mkdir()
            variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29514", "NODE_RANK": str(host)}
            arguments = (*FIT, *devices(2), "--devices", 1, "--trainer.num_nodes", 2)
            hosts.append(begin((*SAGITTA, *arguments), folder, tmp_path / "cache", variables))
            stack.callback(hosts[-1].end)
        (code, (line,)), (first_code, (first_line,)) = (each.ended(120) for each in hosts)
    assert code == 2 and line.endswith(f": no {tmp_path}/1/runs/digits-1 here; name an --out that all see")
    assert first_code == 2 and first_line.startswith("sagitta: process 2 of 2 has ended with an error; ")
