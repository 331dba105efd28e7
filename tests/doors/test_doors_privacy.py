import base64
import gzip
import io
import os
import socket
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from door_calls import ROOT, TINY, Said, succeed
from PIL import Image, PngImagePlugin
from planting import FILE_NAMES, SECRETS, plant_folder
from safetensors.torch import save_file
from searching import found_in, spoken_in

LOGIN, HOST = "login-Ramanujan", "host-Chandrasekhar"
# Where films are may stand in config.yaml, which holds the settings as they were given, and in a prepared dataset.
SETTINGS, NAMES_FILES = ("config.yaml",), ("manifest.csv", "report.json")


class Run:
    """Everything that pretraining, fine-tuning and evaluation leave behind, and what they said."""

    def __init__(self, phantom: Path, folder: Path) -> None:
        self.films, self.runs, self.cache = folder / "films", folder / "runs", folder / "prepared"
        self.films.mkdir()
        plant_folder(phantom / "labelled", self.films)
        tracked = ("tracking.tensorboard=true", "tracking.wandb=offline")
        data = (f"data.path={self.films}", f"data.cache={self.cache}")
        settings = tuple(setting for setting in TINY if not setting.startswith("tracking"))
        tuning = tuple(setting for setting in settings if not setting.startswith(("decoder", "encoder", "input")))
        labels = ("data.labels=labels.csv", "data.target=caries", f"init={self.runs / 'pretrained'}")
        self.said: list[Said] = [
            succeed("train", *settings, *tracked, *data, f"output={self.runs / 'pretrained'}"),
            succeed("finetune", *tuning, *tracked, *data, *labels, f"output={self.runs / 'finetuned'}"),
            succeed("evaluate", self.runs / "finetuned", "bootstrap=100"),
        ]

    @property
    def spoken(self) -> str:
        return "".join(each.out + each.err for each in self.said)


@pytest.fixture(scope="module")
def run(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("privacy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for variable in ("USER", "LOGNAME", "USERNAME"):
            patch.setenv(variable, LOGIN)
        patch.setenv("HOSTNAME", HOST)
        patch.setattr(socket, "gethostname", lambda: HOST)
        return Run(phantom, folder)


def test_the_run_is_whole(run: Run) -> None:
    assert list(run.runs.glob("*/wandb/offline-run-*/*.wandb"))
    names = {path.name for path in run.runs.glob("*/tensorboard/*")}
    assert names == {"events.out.tfevents.0000000000.mim"}, "no name of a machine in it"
    assert list(run.runs.glob("pretrained/pictures/*.png"))
    assert list(run.runs.glob("*/checkpoints/*.pt"))
    for name in ("report.html", "metrics.json", "predictions.csv", "splits.csv", "model.safetensors"):
        assert (run.runs / "finetuned" / name).is_file()
    (report,) = run.cache.glob("*/report.json")
    assert report.read_text().count('"reason"') >= 6, "broken files were met, and their errors written down"


def test_what_is_looked_for_is_found_where_it_stands(run: Run) -> None:
    planted = {word for _, word in found_in(run.films, SECRETS)}
    hashes = {word for word in SECRETS if len(word) == 16 and set(word) <= set("0123456789abcdef")}
    assert set(SECRETS) - planted == hashes, "all of it is in the films, but for hashes of it"


def test_nothing_of_a_header_or_a_cell_reaches_an_artefact(run: Run) -> None:
    assert found_in(run.runs, SECRETS) == []
    assert found_in(run.cache, SECRETS, skip=NAMES_FILES) == []
    assert spoken_in(run.spoken, SECRETS) == []


def test_of_the_manifest_and_the_list_of_skipped_files_only_the_names_of_files_may_tell(run: Run) -> None:
    named = {"Lovelace", "Augusta", "18151210"}  # they stand in the files' names as well
    assert {word for _, word in found_in(run.cache, SECRETS)} <= named


def test_names_of_files_and_folders_stay_in_the_prepared_dataset(run: Run) -> None:
    assert found_in(run.runs, FILE_NAMES) == []
    assert spoken_in(run.spoken, FILE_NAMES) == []
    assert {Path(path).name for path, _ in found_in(run.cache, FILE_NAMES)} <= set(NAMES_FILES)


def test_only_the_settings_say_where_films_are(run: Run) -> None:
    paths = [str(run.films), str(run.films.parent)]
    assert {Path(path).name for path, _ in found_in(run.runs, paths)} <= set(SETTINGS)
    assert {Path(path).name for path, _ in found_in(run.cache, paths)} <= {"report.json"}


def test_nothing_of_the_machine_or_its_user_is_written_down(run: Run) -> None:
    machine = [LOGIN, HOST, str(ROOT), sys.prefix, str(Path(torch.__file__).parent)]
    machine += [name for name in (os.uname().nodename,) if len(name) >= 6]
    assert found_in(run.runs, machine, skip=SETTINGS) == []
    assert found_in(run.cache, machine, skip=("report.json",)) == []


def _png(text: str, *, packed: bool) -> bytes:
    info, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text("Comment", text, zip=packed)
    Image.new("L", (4, 4)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _zip(text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", f"state {text}")
    return buffer.getvalue()


HIDING_PLACES: dict[str, Callable[[Path, str], object]] = {
    "text": lambda path, word: path.write_text(f"a line\n{word.upper()} was here"),
    "utf-16": lambda path, word: path.write_bytes(word.encode("utf-16")),
    "utf-16 big endian": lambda path, word: path.write_bytes(b"x" + word.encode("utf-16-be")),
    "latin-1": lambda path, word: path.write_bytes(f"é{word}é".encode("latin-1")),
    "url": lambda path, word: path.write_text(f"file:///films/{word.replace('^', '%5E')}"),
    "base64": lambda path, word: path.write_bytes(b"data:," + base64.b64encode(f"ab{word}".encode())),
    "base64 within letters": lambda path, word: path.write_bytes(b"abc" + base64.b64encode(word.encode() * 2)),
    "hexadecimal": lambda path, word: path.write_text(word.encode().hex()),
    "gzip": lambda path, word: path.write_bytes(gzip.compress(word.encode())),
    "event file": lambda path, word: path.write_bytes(struct.pack("<Q", 24) + word.encode() + b"\0" * 40),
    "checkpoint": lambda path, word: torch.save({"state": {"note": f"of {word}"}}, path),
    "safetensors": lambda path, word: save_file({"a": torch.zeros(2)}, path, metadata={"source": word}),
    "zip": lambda path, word: path.write_bytes(_zip(word)),
    "png text": lambda path, word: path.write_bytes(_png(word, packed=False)),
    "png packed text": lambda path, word: path.write_bytes(_png(word, packed=True)),
    "png in a report": lambda path, word: path.write_bytes(b"<img src='" + base64.b64encode(_png(word, packed=True))),
    "name of a file": lambda path, word: (path.parent / f"film of {word}.png").touch(),
    "name of a folder": lambda path, word: (path.parent / word / "empty").mkdir(parents=True),
    "link": lambda path, word: path.symlink_to(f"/films/{word}.dcm"),
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_the_search_finds_a_name_wherever_it_is_planted(place: str, tmp_path: Path) -> None:
    (tmp_path / "clean").write_bytes(bytes(range(256)) * 40)
    words = ("Lovelace^Augusta", "PATIENT-4711-XYZ", "18151210")
    assert found_in(tmp_path, words) == []
    HIDING_PLACES[place](tmp_path / "artefact", words[0])
    assert {word for _, word in found_in(tmp_path, words)} == {words[0]}


def test_a_date_is_not_found_in_the_digits_of_a_number(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("0.318430927, 11843092755")
    assert found_in(tmp_path, ["18430927"]) == []
    (tmp_path / "note.txt").write_text("on 18430927.")
    assert found_in(tmp_path, ["18430927"]) == [("note.txt", "18430927")]
