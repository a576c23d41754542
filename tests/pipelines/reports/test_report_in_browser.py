"""The reports of runs of every kind as a reader sees them: narrow and wide, light and dark."""

from __future__ import annotations

import pytest

from tests.browser import browse, measured, needs_browser

WIDTHS = (400, 1400)


@pytest.fixture(scope="module")
def seen(run, scene_run, value_run, rain_run, fine_run, tmp_path_factory):
    """What a browser makes of each report, by run, width of the window, and whether the reader asks for dark pages."""
    pages = [folder / "report.html" for folder in (run, scene_run, value_run, rain_run, fine_run)]
    folder = tmp_path_factory.mktemp("browser")
    found = {}
    for dark in (False, True):
        found |= {(m["page"], m["window"], dark): m for m in measured(pages, folder, widths=WIDTHS, dark=dark)}
    return found


@needs_browser
def test_pages_fit_their_window_and_fetch_nothing(seen):
    assert len(seen) == 5 * len(WIDTHS) * 2
    for (page, window, _), found in seen.items():
        assert found["width"] <= window, page
        assert (found["wide"], found["fetched"]) == ([], []), page


@needs_browser
def test_every_picture_is_there_in_its_own_proportions(seen):
    for found in seen.values():
        assert found["images"] >= 5
        assert (found["empty"], found["stretched"]) == ([], [])


@needs_browser
def test_pages_and_their_charts_follow_the_reader_s_light_or_dark(seen):
    for (_, _, dark), found in seen.items():
        assert (found["paper"] < 0.02) if dark else (found["paper"] > 0.9)
        assert found["dark"] and set(found["dark"]) == {dark}


@needs_browser
def test_every_text_stands_out_from_what_is_behind_it(seen):
    for key, found in seen.items():
        assert found["faint"][0] >= 4.5, (key, found["faint"])  # WCAG 2.2, 1.4.3


@needs_browser
def test_the_measure_finds_what_it_looks_for(tmp_path):
    """A page that is wide, faint, fetches and has a broken picture, stretched another."""
    dot = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw=="
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "report.html").write_text(
        '<!DOCTYPE html><body style="background:#fff"><p style="color:#999;width:900px">faint</p>'
        f'<img alt="gone" src="data:image/png;base64,AAAA" width=9 height=9>'
        f'<img alt="long" src="{dot}" width=9 height=3>'
        '<img alt="far" src="http://127.0.0.1:9/x.png" width=9 height=9>'
    )
    (found,) = measured([tmp_path / "bad" / "report.html"], tmp_path, widths=[400], dark=False)
    assert found["width"] > 400 and found["wide"] == ["P faint"]
    assert found["faint"][0] == pytest.approx(2.85, abs=0.01)  # #999 on white
    assert found["empty"] == ["gone", "far"] and found["stretched"] == ["long"]
    assert found["fetched"] == ["http://127.0.0.1:9/x.png"]


@needs_browser
def test_a_page_alone_is_drawn(run, tmp_path):
    from matplotlib.image import imread

    browse(run / "report.html", f"--screenshot={tmp_path / 'page.png'}", "--window-size=400,900", folder=tmp_path)
    assert imread(tmp_path / "page.png")[..., :3].std() > 0.05
