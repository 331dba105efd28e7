import json
import re
import shlex
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECK_SCRIPT = ROOT / "docker" / "check_in_chroot.sh"


def parse(text: str) -> list[tuple[str, str]]:
    """(instruction, rest) of every instruction: comments dropped, continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


INSTRUCTIONS = parse((ROOT / "Dockerfile").read_text())


def every(name: str) -> list[str]:
    return [rest for instruction, rest in INSTRUCTIONS if instruction == name]


def copied() -> dict[str, str]:
    """Source -> destination of every COPY."""
    pairs = {}
    for rest in every("COPY"):
        *sources, destination = shlex.split(rest)
        pairs.update({source.rstrip("/"): destination for source in sources})
    return pairs


def environment() -> dict[str, str]:
    return dict(word.split("=", 1) for rest in every("ENV") for word in shlex.split(rest))


def let_in(path: str) -> bool:
    """Whether .dockerignore leaves this path of the first level in the build; the last rule that matches wins."""
    answer = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.strip().rstrip("/")
        if not rule or rule.startswith("#"):
            continue
        if fnmatchcase(path, rule.removeprefix("!").removeprefix("**/")):
            answer = rule.startswith("!")
    return answer


def position(part: str) -> int:
    return next(i for i, (name, rest) in enumerate(INSTRUCTIONS) if name == "RUN" and part in rest)


def test_base_image_is_one_exact_cuda_tag_and_can_be_changed() -> None:
    assert INSTRUCTIONS[0][0] == "ARG"
    name, image = INSTRUCTIONS[0][1].split("=", 1)
    assert re.fullmatch(r"docker\.io/nvidia/cuda:\d+\.\d+\.\d+-(base|runtime)-ubuntu24\.04", image)
    assert every("FROM") == [f"${{{name}}}"]
    assert "latest" not in (ROOT / "Dockerfile").read_text()


def test_base_image_and_the_locked_wheels_are_of_the_same_cuda() -> None:
    locked = re.search(r"^cuda-toolkit==(\d+\.\d+)\.", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    base = re.search(r"nvidia/cuda:(\d+\.\d+)\.", INSTRUCTIONS[0][1])
    assert locked is not None
    assert base is not None
    assert base[1] == locked[1]


@pytest.mark.parametrize("source", sorted(copied()))
def test_what_is_copied_exists_and_is_let_into_the_build(source: str) -> None:
    assert (ROOT / source).exists(), f"COPY {source}: not in the repository"
    assert let_in(source), f"COPY {source}: left out by .dockerignore"


@pytest.mark.parametrize("private", ["data", "runs", ".git", ".venv", "wandb", ".env", "film.dcm"])
def test_films_runs_and_history_stay_out_of_the_build(private: str) -> None:
    assert not let_in(private)


def test_the_three_doors_and_the_configs_are_at_hand() -> None:
    where = copied()
    assert {where[door] for door in ("train.py", "finetune.py", "evaluate.py")} == {"./"}
    assert where["configs"] == "configs/"
    assert every("WORKDIR")[-1] == "/workspace"
    door = INSTRUCTIONS.index(("WORKDIR", "/workspace"))
    assert all(name != "WORKDIR" for name, _ in INSTRUCTIONS[door + 1 :])


def test_the_hashed_runtime_lock_is_installed_before_the_source_is_copied() -> None:
    lock = position("requirements.lock")
    assert "--require-hashes" in INSTRUCTIONS[lock][1]
    assert not any("requirements-dev" in rest for _, rest in INSTRUCTIONS)
    source = next(i for i, (name, rest) in enumerate(INSTRUCTIONS) if name == "COPY" and "mim/ " in rest)
    mim = position("--no-deps")
    assert lock < source < mim < INSTRUCTIONS.index(("WORKDIR", "/workspace"))


def test_mim_is_installed_with_the_locked_setuptools_and_nothing_else() -> None:
    assert {"--no-deps", "--no-build-isolation"} <= set(INSTRUCTIONS[position("--no-deps")][1].split())
    locked = re.search(r"^setuptools==(\d+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert int(locked[1]) >= 77
    installs = [part for rest in every("RUN") for part in rest.split("&&") if "pip install" in part]
    assert [part for part in installs if not {"--require-hashes", "--no-deps"} & set(part.split())] == []


def test_no_cache_of_apt_or_pip_stays_in_a_layer() -> None:
    for body in every("RUN"):
        if "apt-get" in body:
            assert "--no-install-recommends" in body
            assert body.rstrip().endswith("rm -rf /var/lib/apt/lists/*")
        assert body.count("pip install") == body.count("--no-cache-dir")


def test_it_does_not_run_as_root() -> None:
    users = every("USER")
    assert users == ["10001:10001"]
    after = INSTRUCTIONS[INSTRUCTIONS.index(("USER", users[0])) + 1 :]
    assert not {"RUN", "COPY", "ADD"} & {name for name, _ in after}


def test_folders_of_any_user_are_writable() -> None:
    body = INSTRUCTIONS[position("--mode=1777")][1].split()
    assert {environment()["HOME"], "/workspace/data", "/workspace/runs"} <= set(body)


def test_signals_reach_python() -> None:
    entrypoint, command = json.loads(every("ENTRYPOINT")[0]), json.loads(every("CMD")[0])
    assert entrypoint == ["/usr/bin/tini", "--"]
    assert command[:2] == ["python", "train.py"]
    assert "tini" in INSTRUCTIONS[position("apt-get")][1].split()
    assert every("STOPSIGNAL") == []


def test_nothing_is_sent_and_nothing_is_secret() -> None:
    assert environment()["WANDB_MODE"] == "offline"
    assert environment()["NO_ALBUMENTATIONS_UPDATE"] == "1"
    names = [*environment(), *(rest.split("=")[0] for rest in every("ARG"))]
    assert [name for name in names if re.search("TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY", name)] == []
    assert every("EXPOSE") == []
    assert every("ADD") == []


def test_it_says_its_licence_and_that_it_has_no_health_check() -> None:
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in every("LABEL")[0]
    assert every("HEALTHCHECK") == ["NONE"]


def test_the_guide_names_the_same_base_and_the_same_user() -> None:
    guide = (ROOT / "docs" / "how-to" / "docker.md").read_text()
    assert INSTRUCTIONS[0][1].split("docker.io/")[1] in guide
    assert every("USER")[0] in guide
    assert ":latest" not in guide


def test_the_check_script_understands_every_instruction() -> None:
    labels = re.findall(r"^ {8}([A-Z]+(?: \| [A-Z]+)*)\) ", CHECK_SCRIPT.read_text(), re.MULTILINE)
    understood = {word for label in labels for word in label.split(" | ")}
    assert {name for name, _ in INSTRUCTIONS[1:]} <= understood


def test_the_check_script_is_sound_shell() -> None:
    result = subprocess.run(["bash", "-n", str(CHECK_SCRIPT)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
