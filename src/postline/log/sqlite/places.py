"""What kind of file system a file lies on, and which of them can't carry a log."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["PASSING", "SHARED", "file_system", "network_file_system"]

#: The locks and the shared memory of one machine don't reach another one there: refused.
_NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "coda",
        "9p",
        "sshfs",
        "davfs",
        "davfs2",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "beegfs",
        "orangefs",
        "pvfs2",
        "ocfs2",
        "gfs2",
        "juicefs",
        "s3fs",
        "rclone",
        "gcsfuse",
        "goofys",
        "mount-s3",
        "blobfuse2",
    }
)
#: Directories of a host inside a virtual machine: they work as long as only one of the two uses the file.
SHARED = frozenset({"virtiofs", "vboxsf", "prl_fs", "vmhgfs", "vmhgfs-fuse", "fakeowner", "osxfs", "grpcfuse"})
#: What is there is gone with the machine, or with the container.
PASSING = {
    "tmpfs": "memory, gone when the machine starts anew",
    "ramfs": "memory",
    "overlay": "a container's own layer",
}


def network_file_system(path: Path) -> str | None:
    """The kind of network file system that `path` lies on; None for a local disk or if unknown."""
    kind = file_system(path)
    return kind if kind is not None and kind in _NETWORK else None


def file_system(path: Path) -> str | None:
    """The kind of the file system that `path` lies on, as the system's table of mounts names it; None if unknown."""
    try:
        table = Path("/proc/self/mountinfo").read_text("utf-8", "replace")
    except OSError:
        return None
    real = os.path.realpath(path)
    found, length = "", -1
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        mount = left.split(" ")[4].replace("\\040", " ")
        inside = mount in ("/", real) or real.startswith(mount + "/")
        # A later mount on the same place hides the earlier one.
        if inside and len(mount) >= length:
            found, length = right.split(" ")[0], len(mount)
    return found.removeprefix("fuse.") or None
