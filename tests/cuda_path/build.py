"""Build the pretended CUDA device for the CUDA build of torch that this Python finds.

    python tests/cuda_path/build.py FOLDER      leaves FOLDER/libshim.so and FOLDER/stubs

`shim.cpp` has what matters. All else that torch's libraries ask of CUDA's becomes functions that
return 0. The stubs stand in for libraries that torch is linked with, so that none of them needs to
be installed.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CUDA = re.compile(r"(cu|__cu|nccl|nvrtc|nvshmem)")
LIBRARIES = re.compile(r"lib(cu|nccl|nvrtc|nvshmem)")
USERS = "torch_cuda c10_cuda torch_python torch_cuda_linalg torch_nvshmem caffe2_nvrtc torch_global_deps".split()
# Libraries whose stub is not empty: its source, and what of them torch asks for.
SOURCES = {"libcuda": ("driver.c", "cu[A-Z]"), "libnvrtc": ("nvrtc.c", "nvrtc")}


def main(folder: Path) -> None:
    torch = Path(importlib.util.find_spec("torch").submodule_search_locations[0])
    users = [path for name in USERS if (path := torch / f"lib/lib{name}.so").is_file()]
    stubs = folder / "stubs"
    stubs.mkdir(parents=True, exist_ok=True)
    for name, versions in needed(users).items():
        stub(stubs / name, versions, source_of(name, users))
    include = [f"-I{HERE / 'include'}", f"-I{headers(torch)}"]
    compiled = folder / "shim.o"
    gcc("-std=c++17", "-O1", *include, "-c", HERE / "shim.cpp", "-o", compiled)
    driver = folder / "driver.o"  # in here too: torch looks for these before it has the stub
    gcc("-x", "c", "-c", HERE / "driver.c", "-o", driver)
    rest = undefined(users, CUDA) - defined(compiled) - defined(driver)
    (folder / "rest.c").write_text("\n".join(map(returns_0, sorted(rest))) + "\n")
    gcc("-x", "c", "-c", folder / "rest.c", "-o", folder / "rest.o")
    made = folder / "libshim.new"
    gcc("-shared", compiled, driver, folder / "rest.o", "-lstdc++", "-lpthread", "-o", made)
    made.rename(folder / "libshim.so")  # last: whoever finds it finds all


def source_of(name: str, users: list[Path]) -> str:
    """Return what a stub has in it: of most libraries nothing, for the shim has it all."""
    file, like = SOURCES.get(name.split(".")[0], ("", ""))
    if not file:
        return ""
    source = (HERE / file).read_text()
    asked = undefined(users, re.compile(like))
    rest = [symbol for symbol in asked if f" {symbol}(" not in source]
    return "\n".join([source, *map(returns_0, rest), ""])


def headers(torch: Path) -> Path:
    """Return the folder of CUDA's own headers, which come with torch's CUDA build."""
    for found in torch.parent.glob("nvidia/*/include/cuda_runtime_api.h"):
        return found.parent
    sys.exit("no cuda_runtime_api.h beside torch: install nvidia-cuda-runtime")


def needed(users: list[Path]) -> dict[str, set[str]]:
    """Return the libraries of CUDA that torch's libraries are linked with, and which versions they ask them for."""
    found: dict[str, set[str]] = {}
    for user in users:
        name, versioned = "", False
        for line in output("objdump", "-p", user):
            words = line.split()
            if words[:1] == ["NEEDED"] and LIBRARIES.match(words[1]):
                found.setdefault(words[1], set())
            if line.strip().startswith("required from "):
                name, versioned = words[2].rstrip(":"), True
            elif versioned and len(words) == 4 and name in found:
                found[name].add(words[3])
    return found


def stub(path: Path, versions: set[str], text: str) -> None:
    source, script = Path(f"{path}.c"), Path(f"{path}.map")
    source.write_text(text)
    script.write_text("".join(f"{version} {{ }};\n" for version in sorted(versions)))
    options = [f"-Wl,--version-script={script}"] if versions and not text else []
    gcc("-shared", f"-Wl,-soname,{path.name}", *options, "-x", "c", source, "-o", path)


def undefined(users: list[Path], like: re.Pattern) -> set[str]:
    names = [
        line.split()[-1].split("@")[0]
        for user in users
        for line in output("nm", "-D", "--undefined-only", user)
    ]
    return {name for name in names if like.match(name)}


def defined(path: Path) -> set[str]:
    return {line.split()[-1] for line in output("nm", "--defined-only", path)}


def returns_0(name: str) -> str:
    return f"long {name}() {{ return 0; }}"


def output(*command: str | Path) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def gcc(*arguments: str | Path) -> None:
    subprocess.run(["g++", "-w", "-fPIC", *arguments], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
