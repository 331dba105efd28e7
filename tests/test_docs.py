import ast
import contextlib
import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import typing
from itertools import chain, pairwise
from pathlib import Path

import pytest
from pydicom.datadict import dictionary_description, keyword_for_tag
from pydicom.pixels import get_decoder
from pydicom.uid import AllTransferSyntaxes

from mim.config import Config, EvaluateConfig, FinetuneConfig, PretrainConfig, list_settings, parse_door_arguments
from mim.config.select_features import SelectFeaturesConfig
from mim.data import dicom_file, dicom_header
from mim.data.dicom_header import FIELDS
from mim.data.manifest import COLUMNS
from mim.data.radiograph import Reason
from mim.evaluation.figures import FIGURES

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "data" / "README.md"])
DOORS: dict[str, type[Config]] = {
    "train.py": PretrainConfig,
    "finetune.py": FinetuneConfig,
    "evaluate.py": EvaluateConfig,
}
SETTINGS = {setting.key for schema in (*DOORS.values(), SelectFeaturesConfig) for setting in list_settings(schema)}
BLOCKS = {key.partition(".")[0] for key in SETTINGS if "." in key}
NOT_SETTINGS = {"encoder.backbone", "encoder.json", "encoder.safetensors", "segmentation.csv"}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def fences(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def shell_lines() -> list[tuple[str, list[str]]]:
    """Every command in a block of shell, as words, with the page it is on."""
    lines = []
    for page in PAGES:
        text = "\n".join(fences(page, "sh")).replace("\\\n", " ")
        lines += [(name_of(page), shlex.split(line, comments=True)) for line in text.splitlines() if line.strip()]
    return lines


def door_lines() -> list[tuple[str, str, tuple[str, ...]]]:
    """(page, script, arguments) of every call of one of the three scripts that is written out."""
    found = []
    for page, words in shell_lines():
        for place, word in enumerate(words):
            arguments = tuple(words[place + 1 :])
            if word in DOORS and "..." not in arguments and "||" not in arguments:
                found.append((page, word, arguments))
    return found


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-") for heading in headings}


def test_the_page_of_settings_is_up_to_date() -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "generate_configuration.py"))
    written = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    assert generator["page"]() == written, "run: python docs/generate_configuration.py"
    assert all(f"| `{key}` |" in written for key in SETTINGS)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        linked = (page.parent / place).resolve() if place else page
        assert linked.exists(), f"{name_of(page)}: {target}"
        assert not anchor or anchor in anchors(linked), f"{name_of(page)}: {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        targets = (target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)))
        waiting += [(page.parent / target).resolve() for target in targets if target and ":" not in target]
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} <= reached


@pytest.mark.parametrize(("page", "script", "arguments"), door_lines())
def test_every_command_in_the_documents_is_understood(page: str, script: str, arguments: tuple[str, ...]) -> None:
    files = [Path(word) for word in arguments if word.endswith(".yaml") and "=" not in word]
    assert all((ROOT / file).is_file() for file in files), f"{page}: {files}"
    full = [str(ROOT / word) if Path(word) in files else word for word in arguments]
    positional = ("run", "second_run") if script == "evaluate.py" else ()
    options = {"--data": "data.path"} if script == "evaluate.py" else {}
    asked = parse_door_arguments(
        DOORS[script], full, program=script, summary="", positional=positional, options=options
    )
    assert asked is not None


def test_the_readme_shows_all_three_scripts() -> None:
    assert {script for page, script, _ in door_lines() if page == "README.md"} == set(DOORS)


def test_the_tutorial_shows_the_commands_of_the_demo() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ndemo:")[2].partition("\n\n")[0]
    commands = re.findall(r"^\t\$\(BIN\)/(.*)$", recipe, re.MULTILINE)
    tutorial = (ROOT / "docs" / "getting-started.md").read_text()
    assert len(commands) >= 4
    assert [command for command in commands if f"`{command}`" not in tutorial] == []


def test_every_script_module_and_target_that_is_called_exists() -> None:
    for page, words in shell_lines():
        for word, following in pairwise(words):
            if word == "make":
                assert following in TARGETS, f"{page}: make {following}"
            elif word == "python" and following.endswith(".py"):
                assert (ROOT / following).is_file(), f"{page}: {following}"
            elif word == "-m" and following.startswith("mim"):
                assert importlib.util.find_spec(following) is not None, f"{page}: {following}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_yaml_file_setting_and_target_that_is_named_exists(page: Path) -> None:
    text = page.read_text()
    for file in re.findall(r"\bconfigs/[\w/]+\.yaml", text):
        assert (ROOT / file).is_file(), file
    named = re.findall(rf"`((?:{'|'.join(sorted(BLOCKS))})\.[a-z_.]+)(?:=[^`]*)?`", text)
    assert set(named) <= SETTINGS | NOT_SETTINGS
    assert set(re.findall(r"`make ([a-z-]+)[^`]*`", text)) <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_in_the_documents_parses_and_its_imports_are_there(page: Path) -> None:
    for block in fences(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mim"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names)


def test_every_way_to_pretrain_is_described_once() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "reference" / "methods.md").read_text(), re.MULTILINE)
    described = [name for heading in headings for name in heading.split(", ")]
    files = {file.stem for file in (ROOT / "configs" / "pretrain").glob("*.yaml")}
    assert sorted(name for name in described if name in files) == sorted(files)


def test_the_references_name_everything() -> None:
    films = (ROOT / "docs" / "reference" / "dicom.md").read_text()
    folders = (ROOT / "docs" / "reference" / "run-folder.md").read_text()
    assert [name for name in map(dictionary_description, FIELDS) if name not in films] == []
    assert [reason for reason in typing.get_args(Reason) if f"| `{reason}` |" not in films] == []
    assert [name for name in chain(COLUMNS, FIGURES) if f"`{name}`" not in folders] == []


def tags_in(section: str) -> list[str]:
    """The keywords of the DICOM tags in the first column of a table."""
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| (")]
    tags = re.findall(r"\(([0-9A-F]{4}),([0-9A-F]{4})\)", " ".join(cells))
    return [keyword_for_tag(int(group + element, 16)) for group, element in tags]


def test_the_table_of_dicom_attributes_is_what_is_parsed() -> None:
    films = (ROOT / "docs" / "reference" / "dicom.md").read_text()
    data_set, _, rest = films.partition("Beside the data set, and inside its sequences:")
    around = rest.partition("## ")[0]
    assert sorted(tags_in(data_set)) == sorted(FIELDS)
    in_sequences = ("LUTDescriptor", "LUTData", *dicom_header._FRAME_MACROS)
    assert sorted(tags_in(around)) == sorted((*dicom_file._META_FIELDS, *in_sequences))


def test_the_table_of_transfer_syntaxes_is_what_can_be_decoded() -> None:
    films = (ROOT / "docs" / "reference" / "dicom.md").read_text()
    decodable = []
    for syntax in AllTransferSyntaxes:
        with contextlib.suppress(NotImplementedError):
            if get_decoder(syntax).is_available:
                decodable.append(str(syntax))
    assert sorted(re.findall(r"^\| (1\.2\.840[0-9.]+) \|", films, re.MULTILINE)) == sorted(decodable)


def test_ci_does_what_the_readme_says_from_nothing() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    targets = re.findall(r"^make ([a-z-]+)", script.read_text(), re.MULTILINE)
    assert targets[0] == "clean", "no installed environment is used again"
    assert set(targets) <= TARGETS
    promised = set(re.findall(r"^make ([a-z-]+)", "\n".join(fences(ROOT / "README.md", "sh")), re.MULTILINE))
    assert promised <= set(targets)
    assert targets[-1] == "test", "pytest's closing line is the last"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_holds_a_path_of_one_machine(page: Path) -> None:
    assert re.findall(r"(?:/root|/home/(?!mim\b)|/Users|[A-Z]:\\)\S*", page.read_text()) == []
