from collections.abc import Callable
from pathlib import Path

import pytest
from door_calls import BRIEF, CONFIGS, losses, succeed

from mim.config import Config, EvaluateConfig, FinetuneConfig, PretrainConfig, load_config
from mim.config.select_features import SelectFeaturesConfig

SCHEMAS: dict[str, type[Config]] = {
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "evaluate": EvaluateConfig,
    "select_features": SelectFeaturesConfig,
}
FILES = sorted(CONFIGS.glob("**/*.yaml"))


# What makes a file's network small enough for two steps on a CPU; the rest of it stays as it is.
SHALLOW = ("input.image_size=[64,64]", "encoder.timm_args={depth: 1}", "decoder.depth=1")
SMALL_IMAGE = ("input.image_size=[64,64]",)
PRETRAINING = {
    "demo": ("input.image_size=[64,64]", "encoder.timm_args.depth=1"),
    "mae_vit_tiny": SHALLOW,
    "mae_vit_small": SHALLOW,
    "mae_vit_base": SHALLOW,
    "mae_vit_small_hard_patches": SHALLOW,
    "mae_vit_small_foreground": SHALLOW,
    "attmask_vit_small": SHALLOW,
    "maskfeat_vit_small": SHALLOW,
    "spectral_vit_small": SHALLOW,
    "latent_vit_small": SHALLOW,
    "crossmae_vit_small": SHALLOW,
    "simmim_vit_small": SHALLOW[:2],
    "simmim_swin_tiny": (*SMALL_IMAGE, "encoder.timm_args={depths: [1, 1, 1, 1]}"),
    "mae_hiera_tiny": (*SMALL_IMAGE, "encoder.timm_args={stages: [1, 1, 1, 1]}", "decoder.depth=1"),
    "sparse_resnet50": (*SMALL_IMAGE, "encoder.timm_args={layers: [1, 1, 1, 1]}"),
    "sparse_efficientnet_b0": SMALL_IMAGE,
    "xray_vit_tiny": SHALLOW,
    "xray_resnet10": (*SMALL_IMAGE, "encoder.timm_args={layers: [1, 1, 1, 1]}"),
    "fcmae_convnextv2_tiny": (*SMALL_IMAGE, "encoder.timm_args={depths: [1, 1, 1, 1]}"),
}
OF_STUDIES = ("study",)
OF_BOXES = ("detect_teeth", "detect_masked", "detect_caries_windows", "segment_caries")
OF_GRADES = ("classify_grades",)
FROM_SCRATCH = {
    "classify_scratch_resnet": SMALL_IMAGE,
    "threshold_resnet": SMALL_IMAGE,
    "detect_teeth": (*SMALL_IMAGE, "encoder.timm_args={layers: [1, 1, 1, 1]}"),
    "detect_masked": SMALL_IMAGE,
    "segment_caries": (*SMALL_IMAGE, "encoder.timm_args={layers: [1, 1, 1, 1]}"),
    "detect_caries_windows": (*SMALL_IMAGE, "detect.window=[64,64]", "encoder.timm_args={layers: [1, 1, 1, 1]}"),
}


def name_of(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


def files_of(stage: str) -> list[Path]:
    return [file for file in FILES if file.parent.name == stage]


@pytest.fixture
def two_steps(tmp_path: Path, cache: str) -> Callable[..., Path]:
    def train(door: str, file: Path, *settings: str) -> Path:
        folder = tmp_path / "run"
        brief = (*BRIEF, "training.max_steps=2", "training.batch_size=2", "data.long_side=512", cache)
        succeed(door, file, *brief, *settings, f"output={folder}")
        assert len(losses(folder)) == 2
        assert (folder / "encoder.safetensors").is_file()
        return folder

    return train


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_is_read_by_the_schema_of_its_folder(file: Path) -> None:
    schema = SCHEMAS[file.parent.name]
    config = load_config(schema, file, [])
    assert load_config(schema, None, []) != config or file.stem == "default"
    assert file.read_text().startswith("# "), "the first line says what it is for"


def test_each_door_has_files() -> None:
    assert {file.parent.name for file in FILES} == set(SCHEMAS)
    assert {file.stem for file in files_of("pretrain")} == set(PRETRAINING)


@pytest.mark.parametrize("file", files_of("pretrain"), ids=name_of)
def test_two_steps_of_pretraining(file: Path, phantom: Path, two_steps: Callable[..., Path]) -> None:
    folder = two_steps("train", file, *PRETRAINING[file.stem], f"data.path={phantom / 'unlabelled'}")
    assert (folder / "encoder.safetensors").is_file()


@pytest.mark.parametrize("file", files_of("finetune"), ids=name_of)
def test_two_steps_of_fine_tuning(
    file: Path,
    labelled: tuple[str, ...],
    studies: tuple[str, ...],
    boxed: tuple[str, ...],
    graded: tuple[str, ...],
    pretrained: Path,
    two_steps: Callable[..., Path],
) -> None:
    start = FROM_SCRATCH.get(file.stem, (f"init={pretrained}",))
    own = {**dict.fromkeys(OF_STUDIES, studies), **dict.fromkeys(OF_BOXES, boxed), **dict.fromkeys(OF_GRADES, graded)}
    samples = own.get(file.stem, labelled)
    folder = two_steps("finetune", file, *samples, *start)
    assert (folder / "splits.csv").is_file()


def test_the_evaluation_files_measure_a_run_and_draw_its_errors(
    labelled: tuple[str, ...], pretrained: Path, two_steps: Callable[..., Path], tmp_path: Path
) -> None:
    run = two_steps("finetune", CONFIGS / "finetune" / "demo.yaml", *labelled, f"init={pretrained}")
    for file in files_of("evaluate"):
        output = tmp_path / file.stem
        # after two steps a negative may have the highest score, and then no threshold reaches the usual specificity
        settings = (f"run={run}", f"output={output}", "specificity=0.1", "bootstrap=100", "accelerator=cpu")
        said = succeed("evaluate", file, *settings)
        assert f"report: {output / 'report.html'}" in said.out
        assert (output / "report.html").read_text().count("data:image/png;base64,") >= 4
