import pytest

from models.backbones.catalogue import VARIANTS, WXC_VARIANTS, variant, wxc_variant
from models.errors import InputError

# As the model cards of ibm-nasa-geospatial name them.
PUBLISHED = {
    "prithvi_eo_v1_100": ("Prithvi-EO-1.0-100M", "Prithvi_EO_V1_100M.pt"),
    "prithvi_eo_v2_tiny_tl": ("Prithvi-EO-2.0-tiny-TL", "Prithvi_EO_V2_tiny_TL.pt"),
    "prithvi_eo_v2_100_tl": ("Prithvi-EO-2.0-100M-TL", "Prithvi_EO_V2_100M_TL.pt"),
    "prithvi_eo_v2_300": ("Prithvi-EO-2.0-300M", "Prithvi_EO_V2_300M.pt"),
    "prithvi_eo_v2_300_tl": ("Prithvi-EO-2.0-300M-TL", "Prithvi_EO_V2_300M_TL.pt"),
    "prithvi_eo_v2_600": ("Prithvi-EO-2.0-600M", "Prithvi_EO_V2_600M.pt"),
    "prithvi_eo_v2_600_tl": ("Prithvi-EO-2.0-600M-TL", "Prithvi_EO_V2_600M_TL.pt"),
}


def test_repositories_and_files_are_the_published_ones():
    named = {key: (v.repo, v.file) for key, v in VARIANTS.items() if v.repo}
    assert named == {key: (f"ibm-nasa-geospatial/{repo}", file) for key, (repo, file) in PUBLISHED.items()}


def test_names_and_files_are_those_of_terratorch():
    from terratorch.models.backbones import prithvi_vit

    assert set(VARIANTS) <= set(prithvi_vit.prithvi_cfgs)
    for name, (repo, file) in PUBLISHED.items():
        weights = prithvi_vit.pretrained_weights[name]
        assert (weights["hf_hub_id"], weights["hf_hub_filename"]) == (f"ibm-nasa-geospatial/{repo}", file)


def test_an_unknown_backbone_is_refused_with_the_names():
    assert variant("prithvi_eo_v2_300") is VARIANTS["prithvi_eo_v2_300"]
    with pytest.raises(InputError) as error:
        variant("prithvi_eo_v3")
    assert all(name in str(error.value) for name in ("prithvi_eo_v3", *VARIANTS))


def test_the_weather_models_are_the_published_ones():
    named = {key: (v.repo, v.file, v.licence) for key, v in WXC_VARIANTS.items()}
    repo, licence = "ibm-nasa-geospatial/Prithvi-WxC-1.0-2300M", "CDLA-Permissive-2.0"
    assert named == {
        "prithvi_wxc_tiny": (None, None, None),
        "prithvi_wxc_2300m": (repo, "prithvi.wxc.2300m.v1.pt", licence),
        "prithvi_wxc_2300m_rollout": (f"{repo}-rollout", "prithvi.wxc.rollout.2300m.v1.pt", licence),
    }
    assert {v.licence for v in VARIANTS.values() if v.repo} == {"Apache-2.0"}
    with pytest.raises(InputError, match="one of prithvi_wxc_tiny, prithvi_wxc_2300m, prithvi_wxc_2300m_rollout"):
        wxc_variant("prithvi_eo_v2_300")
