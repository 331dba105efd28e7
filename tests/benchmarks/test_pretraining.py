"""The parts of benchmarks/pretraining.py on which its fairness rests."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mim.errors import MimError
from mim.models import Encoder, create_encoder

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def films(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return pytest.importorskip("pretraining_films")


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return pytest.importorskip("pretraining_peers")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return pytest.importorskip("pretraining_report")


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return create_encoder("vit_tiny_patch16_224", (48, 48), 1, depth=2).eval()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_a_peer_learnt_means_the_same_in_our_encoder(peers: ModuleType, encoder: Encoder) -> None:
    """Every weight is moved away from where both begin, so that none can be left behind unseen."""
    pytest.importorskip("transformers")
    image = torch.randn(2, 1, 48, 48)
    peer = peers.TransformersMAE(encoder, peers.LIGHT).eval()
    shake(peer)
    encoder.backbone.load_state_dict(peer.encoder_state())
    peer.model.vit.config.mask_ratio = 0.0
    with torch.no_grad():
        theirs = peer.model.vit(image, noise=torch.arange(9.0).expand(2, -1)).last_hidden_state[:, 1:]
        torch.testing.assert_close(encoder(image).tokens, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_the_other_peer_learnt_means_the_same(peers: ModuleType, encoder: Encoder) -> None:
    pytest.importorskip("lightly")
    image = torch.randn(2, 1, 48, 48)
    peer = peers.LightlyMAE(encoder, peers.LIGHT).eval()
    shake(peer)
    encoder.backbone.load_state_dict(peer.encoder_state())
    with torch.no_grad():
        theirs = peer.backbone.encode(images=image)[:, 1:]
        torch.testing.assert_close(encoder(image).tokens, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("name", "package"), [("vitmae", "transformers"), ("lightly", "lightly")])
def test_a_peer_learns_for_the_time_it_is_given(peers: ModuleType, encoder: Encoder, name: str, package: str) -> None:
    pytest.importorskip(package)
    peer = peers.PEERS[name](encoder)
    before = {key: value.clone() for key, value in peer.encoder_state().items()}
    ticks = iter(range(100))
    batches = iter(lambda: torch.randn(2, 1, 48, 48), None)
    steps, loss = peers.train_peer(peer, batches, seconds=4.0, lr=1e-3, clock=lambda: float(next(ticks)))
    after = peer.encoder_state()
    assert steps == 3, "seconds 1, 2 and 3 of 4"
    assert np.isfinite(loss)
    fixed = {key for key in before if torch.equal(before[key], after[key])}
    assert fixed == {"pos_embed"}, "positions are fixed in both, all else is trained"


def shake(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def test_labels_are_drawn_by_whole_patients(films: ModuleType) -> None:
    patients = np.random.default_rng(0).integers(40, size=100).tolist()
    all_films = films.Labelled(list(range(100)), [0, 1] * 50, patients)
    drawn = films.draw_patients(all_films, 30, seed=0)
    assert 25 <= len(drawn.index) <= 30
    assert drawn == films.draw_patients(all_films, 30, seed=0)
    assert drawn != films.draw_patients(all_films, 30, seed=1)
    left = {whose for number, whose in enumerate(patients) if number not in drawn.index}
    assert left.isdisjoint(drawn.patient)
    assert drawn.label == [all_films.label[number] for number in drawn.index]


def one_run(scores: np.ndarray, label: np.ndarray, patients: np.ndarray) -> dict[str, object]:
    return {"label": label.tolist(), "patient": patients.tolist(), "scores": {"linear": scores.tolist()}}


def test_an_interval_excludes_zero_where_an_arm_is_better_and_holds_it_where_it_is_not(tables: ModuleType) -> None:
    generator = np.random.default_rng(0)
    label, patients = generator.integers(2, size=300), generator.integers(150, size=300)
    good, chance = label + generator.normal(size=300), generator.normal(size=300)
    ours = {"seed-0": one_run(good, label, patients), "seed-1": one_run(good + 0.1 * chance, label, patients)}
    theirs = {trial: one_run(chance, label, patients) for trial in ours}
    better = tables.difference(theirs, ours, "linear")
    assert better.low > 0
    same = tables.difference(ours, ours, "linear")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert tables.difference({"seed-2": theirs["seed-0"]}, ours, "linear") is None


def test_without_films_it_says_where_they_should_be(
    films: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIM_SHARED_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(MimError, match="set MIM_SHARED_DATA"):
        films.find_shared_data()


def test_a_table_is_made_of_what_is_finished(
    tables: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    label, patients = generator.integers(2, size=60), np.arange(60)
    for arm, shift in (("mim", 2.0), ("vitmae", 0.0)):
        scores = {method: (shift * label + generator.normal(size=60)).tolist() for method in tables.METHODS}
        content = {**one_run(label, label, patients), "scores": scores, "arm": arm, "trial": "seed-0"}
        content |= {"question": "what", "machine": "here", "pretrain_seconds": 1.0, "pretrain_films": 64}
        path = tmp_path / "chest" / "seed-0" / f"{arm}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    (tmp_path / "chest" / "seed-0" / "imagenet.json").write_text(
        json.dumps({"arm": "imagenet", "absent": "no weights"})
    )
    tables.report(tmp_path)
    said = capsys.readouterr().out
    assert "| imagenet | 0 | no weights |" in said
    compared = json.loads((tmp_path / "compare.json").read_text())["chest"]
    assert compared["differences"]["mim - vitmae"]["linear"]["value"] > 0
    assert compared["absent"] == {"imagenet": "no weights"}


def test_decoders_are_held_against_each_other_and_not_against_what_met_other_films(tables: ModuleType) -> None:
    arms = ["mim", "lightly", "mim-light-decoder", "mim-published-decoder"]
    assert tables.compared(arms) == [("mim", "lightly"), ("mim-light-decoder", "mim-published-decoder")]
    assert tables.compared(arms[:3]) == [("mim", "lightly")]
