"""The two images of the demo, made from this machine: no registry is asked for anything."""

import hashlib
import io
import re
import shutil
import tarfile
from pathlib import Path

from . import fleet
from .shell import Failure, has, run

USER = 10001
LABEL = "callhome.made-of"
# Real senders and what the scripts beside them call, with the package of each.
PROGRAMS = {
    "snmptrap": "snmp", "snmpinform": "snmp", "logger": "bsdutils", "dash": "dash",
    "sleep": "coreutils", "head": "coreutils", "touch": "coreutils", "rm": "coreutils",
    "cat": "coreutils", "od": "coreutils", "timeout": "coreutils", "tr": "coreutils",
    "ip": "iproute2", "tc": "iproute2",
}


def made_of(files):
    """What tells whether an image is still right: a digest of the files in it."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def is_there(tag, digest):
    """Whether an image of just these files is there already."""
    words = ["docker", "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}']
    done = run([*words, tag], check=False)
    return done.returncode == 0 and done.stdout.strip() == digest


def product(binary, tag, folder):
    """The image of the product: the static binary in an empty one."""
    dockerfile = fleet.DEPLOY / "container" / "Dockerfile"
    digest = made_of([binary, dockerfile])
    if is_there(tag, digest):
        return
    root = folder / "rootfs"
    shutil.rmtree(folder, ignore_errors=True)
    for empty in ("data", "run/callhome"):
        (root / empty).mkdir(parents=True)
        (root / empty).chmod(0o750)
    shutil.copy2(binary, root / "callhome")
    shutil.copy2(dockerfile, folder)
    run(["docker", "build", "--quiet", "--label", f"{LABEL}={digest}", "--tag", tag, folder],
        timeout=600)
    shutil.rmtree(folder, ignore_errors=True)


def senders(binary, tag):
    """The image of the devices: programs of this machine with the libraries they load."""
    missing = sorted({package for program, package in PROGRAMS.items() if not has(program)})
    if missing:
        raise Failure("the senders of the demo are not installed",
                      f"apt-get install {' '.join(missing)}", 69)
    scripts = sorted((fleet.FLEET / "senders").iterdir())
    digest = made_of([binary, __file__, *scripts])
    if is_there(tag, digest):
        return
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder, mode in (("run", 0o755), ("tmp", 0o1777), ("disk", 0o750), ("keys", 0o755),
                             ("keys/server", 0o750), ("keys/portal", 0o750)):
            add_folder(tar, folder, mode)
        files = {"usr/bin/callhome": Path(binary)}
        for program in PROGRAMS:
            path = Path(shutil.which(program)).resolve()
            files[f"usr/bin/{program}"] = path
            files.update({str(library).lstrip("/"): library for library in libraries(path)})
        files["bin/sh"] = files["usr/bin/dash"]
        for script in scripts:
            files[f"senders/{script.name}"] = script
        for name, path in sorted(files.items()):
            tar.add(path.resolve(), name, filter=plain)
    lines = (f"USER {USER}:{USER}", "ENV PATH=/usr/bin:/bin", f"LABEL {LABEL}={digest}")
    change = [word for line in lines for word in ("--change", line)]
    file = fleet.DEPLOY.parent / "target" / "demo-senders.tar"
    file.write_bytes(archive.getvalue())
    run(["docker", "import", *change, file, tag], timeout=300)
    file.unlink()


def libraries(program):
    """The files that the loader maps for it, the loader itself among them."""
    said = run(["ldd", program]).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", said)]


def add_folder(tar, name, mode):
    """An empty folder of the user that everything runs as."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, USER, USER
    tar.addfile(entry)


def plain(entry):
    """A file that everybody may run, of nobody in particular."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o755
    return entry
