"""What configs of terratorch say of a network and of what it ate, and configs that are refused."""

from __future__ import annotations

import copy

import pytest
import yaml

from models.errors import InputError
from pipelines.publishing.foreign.data import read_data
from pipelines.publishing.foreign.model import read_model
from pipelines.recipes.reading import BYTES, read_values
from tests.pipelines.publishing.foreign.conftest import BANDS, LAID_OUT, MEANS, PYRAMID, arguments, config

FIRE = "FireScarsNonGeoDataModule"
CROPS = "MultiTemporalCropClassificationDataModule"
FLOODS = "Sen1Floods11NonGeoDataModule"


def eaten(scale=None, built=BANDS, frames=1, module=None, **data):
    values = config(arguments(), **data)
    if module:
        values["data"] = {"class_path": f"terratorch.datamodules.{module}", "init_args": data}
    return read_data(values, built, frames, scale)


def test_reflectance_is_told_from_reflectance_x10000_by_the_means():
    fractions = eaten(constant_scale=0.0001)
    assert fractions.mean == pytest.approx([10_000 * mean for mean in MEANS]) and fractions.data["scale"] == 1e-4
    whole = eaten(means=[500, 800, 900, 2900, 2600, 1700], stds=[280, 350, 570, 890, 950, 920])
    assert whole.mean == (500, 800, 900, 2900, 2600, 1700) and whole.std[0] == 280 and whole.data["scale"] == 1e-4


def test_what_the_means_do_not_tell_is_asked_for():
    # Percent: a reflectance of 1 is 100 of the values, so that 3 +- 2 per cent are 300 +- 200 of reflectance x10000.
    percent = {"means": [3.0] * 6, "stds": [2.0] * 6}
    with pytest.raises(InputError, match=r"means of 3 to 3 do not tell.*--scale 1 or --scale 10000"):
        eaten(**percent)
    assert eaten(100.0, **percent).mean == (300.0,) * 6 and eaten(100.0, **percent).std == (200.0,) * 6
    with pytest.raises(InputError, match="no means and stds do not tell"):
        eaten(means=None, stds=None)
    plain = eaten(10_000.0, means=None, stds=None)
    assert plain.mean == (0.0,) * 6 and plain.std == (1.0,) * 6 and "not normalised" in plain.told
    with pytest.raises(InputError, match="do not tell"):
        eaten(means=[0.0] * 6, stds=[1.0] * 6)
    with pytest.raises(InputError, match=r"scale -1\.0"):
        eaten(-1.0)


def test_data_modules_with_statistics_of_their_own():
    # 0.033349706741586264 and 494.905781 are the blue means of terratorch's tables.
    assert eaten(module=FIRE).mean[0] == pytest.approx(333.49706741586264)
    crops = eaten(module=CROPS, frames=3)
    assert crops.mean[0] == 494.905781 and crops.first == 1 and crops.data["frames"] == 3
    assert crops.data["ignore"] == [-1, 0] and crops.data["scale"] == 1e-4
    floods = eaten(module=FLOODS, built=(), bands=["NIR_NARROW", "BLUE"])
    assert floods.mean == pytest.approx([3090.2815, 1412.956]) and floods.data["scale"] == 1e-4
    assert eaten(module=FIRE, use_metadata=True).metadata and not eaten(module=FIRE).metadata


def test_files_alike_are_named_and_no_others():
    named = eaten(img_grep="*_merged.tif", label_grep="../secret/*.tif", reduce_zero_label=True)
    assert named.data["images"] == "*_merged.tif" and "labels" not in named.data and named.first == 1
    numbers = eaten(dataset_bands=[0, 1, 2, 3, 4, 5])
    assert numbers.bands == tuple(BANDS) and "bands" not in numbers.data


DATA = {
    "another order": ({"output_bands": BANDS[::-1]}, "the same are wanted, in one order"),
    "five means": ({"means": MEANS[:5]}, "means, stds: 5 and 6 for 6 bands"),
    "a deviation of 0": ({"stds": [0.0] * 6}, "deviations above 0"),
    "no number": ({"means": [float("nan")] * 6}, "wanted numbers"),
    "means in a file": ({"means": "means.yaml"}, "means: wanted a list"),
    "normalised twice": (
        {"test_transform": [{"class_path": "albumentations.Normalize"}]},
        "Normalize is not understood",
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_data_that_contradict_are_refused(case):
    changes, message = DATA[case]
    with pytest.raises(InputError, match=message):
        eaten(**changes)


def test_unknown_data_modules_are_refused():
    with pytest.raises(InputError, match="data MyModule: not a data module that is known"):
        eaten(module="MyModule")


def test_the_older_factory_says_the_same_by_other_names():
    newer = arguments(backbone="prithvi_eo_v1_100", necks=None, decoder="FCNDecoder", backbone_num_frames=3)
    older = {key: value for key, value in newer.items() if key not in ("backbone_bands", "backbone_num_frames")}
    older |= {"bands": BANDS, "num_frames": 3, "in_channels": 6, "backbone": "prithvi_vit_100"}
    values = [config(newer), config(older)]
    values[1]["model"]["init_args"]["model_factory"] = "PrithviModelFactory"
    first, second = map(read_model, values)
    assert first.architecture == second.architecture and first.bands == second.bands and second.frames == 3
    assert second.backbone == "prithvi_eo_v1_100" and first.architecture.blocks == (0, 1, 2, 3)


def necks(*made):
    return {"necks": list(made)}


RESHAPE, SELECT = LAID_OUT[1], LAID_OUT[0]
MODELS = {
    "a backbone of others": ({"backbone": "os.system"}, "backbone 'os.system': wanted one of"),
    "a billion classes": ({"num_classes": 10**9}, "num_classes 1000000000: wanted 2 to 1000"),
    "classes by name": ({"num_classes": "two"}, "num_classes: wanted a whole number"),
    "a wide backbone": ({"backbone_embed_dim": 10**9}, "backbone_embed_dim 1000000000: wanted 0 to 8192"),
    "a large image": ({"backbone_img_size": 10**6}, "img_size 1000000: wanted 1 to 2048"),
    "no square": ({"backbone_img_size": [64, 32]}, "wanted a square"),
    "many frames": ({"backbone_num_frames": 10**6}, "num_frames"),
    "adapters": ({"peft_config": {"method": "LORA"}}, "peft_config is not understood"),
    "prompts": ({"backbone_vpt": True}, "backbone_vpt is not understood"),
    "no rescaling": ({"rescale": False}, "rescale: false is not understood"),
    "what nobody knows": ({"magic": 1}, "magic is not understood"),
    "a head's own": ({"head_magic": 1}, "head_magic is not understood"),
    "a field of no backbone": ({"backbone_magic": 1}, "backbone field magic"),
    "tokens to the decoder": (necks(SELECT), "tokens would reach the decoder"),
    "another neck": (necks(RESHAPE, {"name": "AddBottleneckLayer"}), "AddBottleneckLayer is not understood"),
    "a pyramid too early": (
        necks(PYRAMID[2], RESHAPE),
        "LearnedInterpolateToPyramidal is not understood",
    ),
    "a block that is not there": (necks({"name": "SelectIndices", "indices": [4]}, RESHAPE), "wanted some of 4 blocks"),
    "frames as one": ({"backbone_num_frames": 3, "necks": LAID_OUT}, "effective_time_dim 1, wanted 3"),
}


@pytest.mark.parametrize("case", MODELS)
def test_networks_that_are_not_understood_are_refused(case):
    changes, message = MODELS[case]
    with pytest.raises(InputError, match=message):
        read_model(config(arguments(**changes)))


def test_other_tasks_factories_and_shapes_are_refused():
    values = config(arguments())
    for section, key, value, message in (
        ("model", "class_path", "evil.Task", "model Task: not one that can be taken"),
        ("model", "class_path", None, "wanted class_path and init_args"),
        ("model", "init_args", {"model_factory": "os.system"}, "model_factory system"),
        ("model", "init_args", [1], "model.init_args"),
    ):
        changed = copy.deepcopy(values)
        changed[section][key] = value
        with pytest.raises(InputError, match=message):
            read_model(changed)
    with pytest.raises(InputError, match="class_names: 2 names, num_classes 3"):
        read_model(config(arguments(num_classes=3)))


YAML = {
    "a tag": (
        "model: !!python/object/apply:os.system ['true']",
        "the tag .*os.system is not taken",
    ),
    "anchors": ("a: &a [1]\nb: [*a, *a]", "anchors"),
    "depth": ("[" * 100, "nested deeper than"),
    "length": ("a: " + "b" * BYTES, "longer than"),
    "a list": ("- model", "wanted keys and values"),
}


@pytest.mark.parametrize("case", YAML)
def test_yaml_that_is_more_than_data_is_refused(tmp_path, case):
    text, message = YAML[case]
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_values(tmp_path / "config.yaml")


def test_a_published_config_is_understood():
    published = yaml.safe_load("""
model:
  class_path: terratorch.tasks.SemanticSegmentationTask
  init_args:
    model_args:
      backbone_pretrained: true
      backbone: prithvi_eo_v2_300
      backbone_drop_path: 0.1
      backbone_bands: [BLUE, GREEN, RED, NIR_NARROW, SWIR_1, SWIR_2]
      necks:
        - {name: SelectIndices, indices: [5, 11, 17, 23]}
        - {name: ReshapeTokensToImage}
        - {name: LearnedInterpolateToPyramidal}
      decoder: UNetDecoder
      decoder_channels: [512, 256, 128, 64]
      head_dropout: 0.1
      num_classes: 2
    loss: ce
    ignore_index: -1
    model_factory: EncoderDecoderFactory
""")
    model = read_model(published)
    assert (model.backbone, model.frames, model.tile, model.neck) == ("prithvi_eo_v2_300", 1, 224, 2)
    assert model.architecture.blocks == (5, 11, 17, 23) and model.architecture.dropout == 0.1
    assert model.architecture.arguments == {"channels": [512, 256, 128, 64]} and model.names == ("class 0", "class 1")
    assert model.ignored == ("model.loss", "model.ignore_index")
