"""The chart's pod, with its defaults, runs here as a kubelet would run it, and answers."""

import os
import re
from pathlib import Path

import httpx
import pytest

from service.bench.process import ServerProcess, free_port
from tests.deploy import pod
from tests.deploy.files import ROOT, service_pod
from tests.waiting import LONG_WAIT, WAIT


def test_the_default_pod_answers_within_its_limits(tmp_path: Path) -> None:
    """As its user, without a right, on a read-only root, with the memory and the threads of the chart."""
    if os.geteuid() != 0:
        pytest.skip("a cgroup with a limit and the ids of other users are root's alone; CI runs as root")
    spec = service_pod("defaults")
    (container,) = spec["containers"]
    limits = container["resources"]["limits"]
    memory = int(limits["memory"].removesuffix("Gi")) << 30
    context = spec["securityContext"]
    port = free_port()
    variables = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    variables |= {
        "OMP_NUM_THREADS": limits["cpu"],
        "EBSEG_PORT": str(port),
        "HOME": "/tmp",
        "PATH": "/usr/bin:/bin",
    }
    ebseg = str(ROOT / ".venv" / "bin" / "ebseg")
    (tmp_path / "root").mkdir()
    with pod.memory_group(memory) as group:
        command = pod.entered(
            f"{context['runAsUser']}:{context['runAsGroup']}",
            group,
            tmp_path / "root",
            variables,
            [ebseg, *container["args"]],
        )
        with ServerProcess(
            command, name="the pod", port=port, folder=None, start=LONG_WAIT, stop=LONG_WAIT
        ) as server:
            server.wait()
            status = Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8")
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            assert set(fields["Uid"].split()) == {"10001"}
            assert int(fields["CapEff"], 16) == 0
            assert group.name in Path(f"/proc/{server.pid}/cgroup").read_text(encoding="utf-8")
            assert not (tmp_path / "root" / "tmp").exists()  # its mounts are its own
            for kind in ("startup", "liveness", "readiness"):
                path = container[f"{kind}Probe"]["httpGet"]["path"]
                assert httpx.get(f"{server.url}{path}", timeout=WAIT).status_code == 200
            metrics = httpx.get(f"{server.url}/metrics", timeout=WAIT).text
            (limit,) = re.findall(r'(?m)^ebseg_host_bytes\{kind="limit"\} (\S+)$', metrics)
            assert 0 < float(limit) < memory  # by its own limit, not by the machine's memory
            with (ROOT / "samples" / "village.jpg").open("rb") as picture:
                answer = httpx.post(
                    f"{server.url}/v1/segment",
                    files={"image": picture},
                    data={"classes": "house, hay"},
                    timeout=LONG_WAIT,
                )
            assert answer.status_code == 200, answer.text
            assert {found["name"] for found in answer.json()["classes"]} == {"house", "hay"}
            assert server.stop() == 0
