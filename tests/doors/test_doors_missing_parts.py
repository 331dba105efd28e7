import json
from pathlib import Path

import pytest
from door_calls import BRIEF, CONFIGS, call, succeed

FAITHFULNESS = CONFIGS / "evaluate" / "faithfulness.yaml"
FEW = (
    "missingness.films=4",
    "missingness.shape_films=4",
    "missingness.removed=[0.5]",
    "missingness.order=[random, salient_last]",
    "faithfulness.enabled=false",
    "missingness.superpixels=12",
    "explanations.films=3",
    "explanations.samples=12",
    "explanations.superpixels=8",
    "explanations.steps=4",
    "explanations.points=5",
    "explanations.pictures=2",
    "bootstrap=100",
    "accelerator=cpu",
    "worst=1",
)


@pytest.fixture(scope="module")
def finetuned(
    labelled: tuple[str, ...], pretrained: Path, cache: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A ViT behind a learned masker, and a ResNet behind a threshold."""
    folder = tmp_path_factory.mktemp("finetuned")
    boxes = "data.boxes=lesions.coco.json"
    succeed("finetune", *BRIEF, *labelled, boxes, f"init={pretrained}", f"output={folder / 'vit'}")
    cnn = ("encoder={name: resnet10t, patch_size: 16}", "input.image_size=[64,64]", "masker.kind=threshold")
    succeed("finetune", *BRIEF, *labelled, boxes, *cnn, "masker.threshold=otsu", f"output={folder / 'cnn'}")
    return {"vit": folder / "vit", "cnn": folder / "cnn"}


@pytest.mark.parametrize(
    ("network", "hidings", "explanations"),
    [
        (
            "vit",
            {"drop", "grey", "black", "mean", "blur"},
            {"masker", "occlusion", "lime", "integrated gradients", "attention rollout", "random order"},
        ),
        (
            "cnn",
            {"sparse", "layer", "grey", "black", "mean", "blur"},
            {"masker", "occlusion", "lime", "integrated gradients", "random order"},
        ),
    ],
)
def test_all_that_can_be_asked_of_a_masked_classifier_is_measured_and_drawn(
    finetuned: dict[str, Path], network: str, hidings: set[str], explanations: set[str], tmp_path: Path
) -> None:
    said = succeed("evaluate", FAITHFULNESS, finetuned[network], *FEW, f"output={tmp_path}")
    blocks = json.loads((tmp_path / "metrics.json").read_text())["blocks"]
    removals = blocks["missingness"]["removals"]
    assert {one["hiding"] for one in removals} == hidings
    assert {(one["unit"], one["order"]) for one in removals} >= {("patch", "random"), ("superpixel", "salient_last")}
    assert all(one["unchanged"][0] == 1 and one["removed"] == [0.0, 0.5] for one in removals)
    outlines = blocks["mask_shape"]["outlines"]
    assert {(one["outline"], one["hiding"]) for one in outlines} == {
        (outline, hiding) for outline in ("lesion", "masker") for hiding in hidings
    }
    explained = blocks["explanations"]["explanations"]
    assert set(explained) == explanations
    assert all(len(one["deletion_curve"]) == 5 for one in explained.values())
    ends = {one["deletion_curve"][0] for one in explained.values()}
    assert max(ends) - min(ends) < 1e-6, "before anything is hidden they are all the same"
    page = (tmp_path / "report.html").read_text()
    for name in ("missingness", "mask_shape", "explanations"):
        assert f'id="block-{name}"' in page
    assert page.count('<svg class="plot"') >= 5
    assert "predictions unchanged while patches are removed at random" in said.out
    assert "pointing" in said.out


def test_an_evaluation_asks_nothing_of_it_unless_told_and_gives_the_same_figures_again(
    finetuned: dict[str, Path], tmp_path: Path
) -> None:
    plain = ("bootstrap=100", "accelerator=cpu")
    succeed("evaluate", finetuned["cnn"], *plain, f"output={tmp_path / 'plain'}")
    blocks = json.loads((tmp_path / "plain" / "metrics.json").read_text())["blocks"]
    assert {"missingness", "mask_shape", "explanations"}.isdisjoint(blocks)
    some = (*FEW, "missingness.films=0", "explanations.pictures=0", "missingness.hiding=[layer, black]")
    for name in ("one", "two"):
        succeed("evaluate", finetuned["cnn"], *some, f"output={tmp_path / name}")
    first, second = ((tmp_path / name / "metrics.json").read_bytes() for name in ("one", "two"))
    assert first == second
    assert set(json.loads(first)["blocks"]) - set(blocks) == {"mask_shape", "explanations"}


def test_a_way_of_hiding_that_is_not_known_is_named(finetuned: dict[str, Path]) -> None:
    error = call("evaluate", finetuned["cnn"], "missingness.hiding=[layers]").error()
    assert "missingness.hiding" in error
    assert "layer" in error
