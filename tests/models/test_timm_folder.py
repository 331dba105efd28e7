import json

import pytest
import timm
import torch
from families import each_family
from safetensors.torch import load_file
from timm.models import get_model_args

from mim.models import create_encoder, export_encoder
from mim.models.weights import main


def exported(tmp_path, name, size, args, in_chans=1):
    torch.manual_seed(0)
    encoder = create_encoder(name, size, in_chans=in_chans, **args)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.05)  # as after training: nothing stands at its start
    run = tmp_path / "run"
    export_encoder(run, encoder, encoder.backbone.state_dict(), mean=0.4, std=0.2)
    return encoder.eval(), run


def same_features(encoder, plain, in_chans=1):
    image = torch.rand(2, in_chans, *encoder.image_size)
    everything = torch.ones(2, *encoder.grid(), dtype=torch.bool)
    with torch.no_grad():
        expected = plain.eval()(image)
        assert torch.equal(encoder(image).pooled, expected)
        torch.testing.assert_close(encoder(image, everything).pooled, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "size", "args"), each_family())
def test_the_weights_load_strict_into_timm_and_features_agree_exactly(tmp_path, name, size, args):
    encoder, run = exported(tmp_path, name, size, args)
    plain = timm.create_model(name, **get_model_args(encoder.backbone))
    keys = plain.load_state_dict(load_file(run / "encoder.safetensors"), strict=True)
    assert not keys.missing_keys + keys.unexpected_keys
    same_features(encoder, plain)


@pytest.mark.parametrize("in_chans", [1, 3])
@pytest.mark.parametrize(("name", "size", "args"), each_family())
def test_timm_loads_the_folder_by_itself(tmp_path, capsys, name, size, args, in_chans):
    encoder, run = exported(tmp_path, name, size, args, in_chans)
    folder = tmp_path / "hub" / name
    assert main(["export", str(run), str(folder)]) == 0
    assert f"local-dir:{folder}" in capsys.readouterr().out
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True)
    same_features(encoder, plain, in_chans)
    meets = timm.data.resolve_model_data_config(plain)
    assert tuple(meets["input_size"]) == (in_chans, *size)
    assert tuple(meets["mean"]) == (0.4,) * in_chans
    assert tuple(meets["std"]) == (0.2,) * in_chans


def test_the_card_says_what_is_known_and_nothing_of_patients(tmp_path):
    _, run = exported(tmp_path, "vit_tiny_patch16_224", (32, 48), {"depth": 1})
    (run / "seen.csv").write_text("patient_id,sha256,content,salt_check\np1,aa,c,s\np2,bb,c,s\n")
    settings = "data: {path: /home/mim/films}\nmasking: {ratio: 0.75, list: /home/mim/x}\ndecoder: {width: 64}\n"
    (run / "config.yaml").write_text(settings)
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for told in ("vit_tiny_patch16_224", '{"depth": 1}', "32 x 48", "2 films", "ratio: 0.75", "width: 64", "`drop`"):
        assert told in card
    assert "/home" not in card
    assert "p1" not in card
    described = json.loads((tmp_path / "out" / "config.json").read_text())
    assert described["architecture"] == "vit_tiny_patch16_224"
    assert not {"tag", "license", "origin_url", "hf_hub_id", "url"} & described["pretrained_cfg"].keys()
    assert str(tmp_path) not in json.dumps(described)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_bad_input_of_the_command_is_one_line(tmp_path, capsys):
    _, run = exported(tmp_path, "vit_tiny_patch16_224", (32, 48), {"depth": 1})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("mine")
    for arguments, message in (
        ((tmp_path / "nothing", tmp_path / "out"), "no encoder.json"),
        ((run, tmp_path / "full"), "is there already"),
        ((run, run / "encoder.json"), "is there already"),
    ):
        assert main(["export", *map(str, arguments)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert message in said
        assert said.count("\n") == 1
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["kept.txt"]
    (run / "encoder.safetensors").write_bytes(b"broken")
    assert main(["export", str(run), str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_help_lists_the_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "export" in capsys.readouterr().out
