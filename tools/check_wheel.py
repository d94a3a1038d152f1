"""Build the package as users get it, and try it where nothing else is: python tools/check_wheel.py [--keep FOLDER]

The source archive is built from the tree and the wheel from that archive, into `dist/`. The wheel goes into a fresh
virtual environment outside the tree, with the versions of constraints.txt. There the demo is run at toy length, an
image is predicted with the result, a report is drawn, data are checked and settings completed: whatever the package
needs of its own files is used. It takes a few minutes, most of them for the installation.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
TOY = ["steps=3", "crop_size=64", "batch_size=2", "data.labeled=2", "data.unlabeled=2", "data.val=2",
       "guard.truth_images=2"]  # fmt: skip
"""Settings by which the demo takes seconds."""


def build() -> tuple[Path, Path]:
    """Build the source archive and the wheel, and return them."""
    shutil.rmtree(DIST, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT)], check=True)  # noqa: S603
    (archive,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    return archive, wheel


def package_files() -> set[str]:
    """Return the files of the package in the tree, as git knows them."""
    listed = subprocess.run(["git", "ls-files", "des4"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607
    return set(listed.stdout.split())


def check_contents(archive: Path, wheel: Path) -> None:
    """End with a message where a file of the package is missing in either, or a test is in the wheel."""
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if ".dist-info/" not in name}
    with tarfile.open(archive) as file:
        packed = {name.partition("/")[2] for name in file.getnames()}
    for what, missing in {
        f"{wheel.name} lacks": package_files() - inside,
        f"{archive.name} lacks": package_files() - packed,
        f"{wheel.name} holds what is no file of the package": inside - package_files(),
    }.items():
        if missing:
            sys.exit(f"{what}: {', '.join(sorted(missing))}")


def try_out(wheel: Path, folder: Path) -> None:
    """Install the wheel into a fresh environment, and use it in a folder."""
    bin_ = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    venv.create(folder / "venv", with_pip=True)
    work = folder / "work"
    work.mkdir()
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*command: str, **more: str) -> str:
        print(f"$ {' '.join(command)}", flush=True)
        program = [str(bin_ / command[0]), *command[1:]]
        done = subprocess.run(program, cwd=work, env={**clean, **more}, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}\nexit code {done.returncode}")
        return done.stdout

    run("pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), f"{wheel}[pretrained]")
    where = run("python", "-c", "import des4; print(des4.__file__)").strip()
    if not Path(where).is_relative_to(folder):
        sys.exit(f"des4 was imported from {where}, not from the fresh environment")
    run("des4", "--help")
    run("des4", "methods")
    run("des4", "demo", *TOY)
    run("des4", "predict", "runs/demo/des4", "runs/demo/comparison.png", "--out", "predictions")
    run("des4", "report", "runs/demo/supervised")
    run("des4", "compare", "runs/demo/des4", "runs/demo/supervised", "--html", "compare.html")
    (work / "data" / "images").mkdir(parents=True)
    (work / "data" / "masks").mkdir()
    (label,) = (work / "predictions").rglob("comparison.png")
    for name in ("a.png", "b.png", "c.png"):
        shutil.copy(work / "runs/demo/comparison.png", work / "data" / "images" / name)
        shutil.copy(label, work / "data" / "masks" / name)
    run("des4", "data", "check", "data", "data.allow_leak=true", "--html", "check.html")  # one picture, three times
    offered = run("des4", _DES4_COMPLETE="complete_bash", COMP_WORDS="des4 train method=uni", COMP_CWORD="2")
    if "method=unimatch" not in offered:
        sys.exit(f"the shell is offered {offered!r}")


def main() -> None:
    """Build, look inside, try out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="an empty folder, which is left; default: none is")
    keep = parser.parse_args().keep
    archive, wheel = build()
    check_contents(archive, wheel)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        try_out(wheel, keep.resolve())
    else:
        with TemporaryDirectory() as folder:
            try_out(wheel, Path(folder))
    print(f"good: {archive.relative_to(ROOT)} and {wheel.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
