"""Runs a container's command as a kubelet would: as its user, on a read-only root, within its memory.

The root is this machine's own, so that the environment that runs the tests is the image. Needs root.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.deploy.files import ROOT
from tests.waiting import WAIT

_GROUPS = Path("/sys/fs/cgroup")
# $1 becomes the root; $2 is user:group, $3 the memory's group, $4 where it is seen, $5 and $6 folders that
# stay where others are hidden. All mounts end with the process.
_ENTER = """
set -eu
root=$1; user=$2; group=$3; inside=$4; shift 4
mount --bind / "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/root"
mount -t tmpfs -o mode=755 tmpfs "$root/sys"
for kept in "$1" "$2"; do
    mkdir -p "$root$kept"
    mount --bind "$kept" "$root$kept"
    mount -o remount,ro,bind "$root$kept"
done
shift 2
mount -o remount,ro,bind "$root"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mkdir -p "$root$inside"
mount --bind "$group" "$root$inside"
echo $$ > "$group/cgroup.procs"
cd "$root"
exec chroot "$root" /usr/bin/setpriv --reuid="${user%:*}" --regid="${user#*:}" --clear-groups \\
    --bounding-set=-all --inh-caps=-all --no-new-privs -- "$@"
"""


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A cgroup of version 1 or 2 with a limit of memory, bytes."""
    old = _GROUPS / "memory"
    group = Path(tempfile.mkdtemp(prefix="ebseg-pod-", dir=old if old.is_dir() else _GROUPS))
    try:
        group.chmod(0o755)  # who is limited may look
        name = "memory.limit_in_bytes" if old.is_dir() else "memory.max"
        (group / name).write_text(str(limit), encoding="ascii")
        yield group
    finally:
        end = time.monotonic() + WAIT
        while group.exists() and time.monotonic() < end:
            with contextlib.suppress(OSError):  # its last process is on its way out
                group.rmdir()
            time.sleep(0.05)


def entered(user: str, group: Path, root: Path, variables: dict[str, str], arguments: list[str]) -> list[str]:
    """The command line that enters the pod and becomes the program.

    Args:
        user: "uid:gid".
        group: of `memory_group`.
        root: an empty folder.
        variables: all that the program gets.
        arguments: the program's path and its arguments.
    """
    home = Path(sys.base_prefix)
    own = [f"{name}={value}" for name, value in variables.items()]
    inside = ["env", "-i", *own, *arguments]
    folders = [str(ROOT), str(home)]
    where = [str(root), user, str(group), str(group.parent)]
    return ["unshare", "--mount", "sh", "-c", _ENTER, "sh", *where, *folders, *inside]
