"""Reports: outputs, refusals, and the page in a real browser, opened from disk."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from jahp_pl.cli.report import tables_of
from jahp_pl.report.figures import MAX_IMAGES, draw_images
from jahp_pl.report.read_results import read_curves
from tests.support.browser import CHROMIUM, Page, chromium
from tests.support.commands import run
from tests.support.compressai_states import in_their_names, model_of

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "results" / "published"
FIGURES = ("rd-psnr", "rd-ms_ssim", "savings-psnr", "images-psnr", "rate-split", "channels", "times")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with two small images, a report, and results of two untrained models at three lambdas, of JPEG and of
    WebP.
    """
    import torch

    folder = tmp_path_factory.mktemp("report")
    (folder / "images").mkdir()
    for number, name in ((7, "a"), (23, "b")):
        with Image.open(ROOT / "data" / "kodak" / f"kodim{number:02}.png") as image:
            image.crop((200, 100, 200 + 192, 100 + 176)).save(folder / "images" / f"{name}.png")
    for entropy_model in ("joint", "scale_hyperprior"):
        torch.save({"state_dict": in_their_names(model_of(entropy_model))}, folder / f"{entropy_model}.pth.tar")
        assert run("import-compressai", folder / f"{entropy_model}.pth.tar", "--out", folder / entropy_model) == 0
        out = folder / "results" / f"{entropy_model}.json"
        assert run("evaluate", "--model", folder / entropy_model, "--images", folder / "images", "--out", out) == 0
        add_rates(out)
    classical = folder / "results" / "classical.json"
    assert run("classical", "--codec", "jpeg", "webp", "--images", folder / "images", "--out", classical) == 0
    assert report(folder, folder / "report") == 0
    return folder


def add_rates(path: Path) -> None:
    """Add two results beside one, at 4 and 16 times its rate, so that all three form a curve."""
    for doubling in (2, 4):
        content = json.loads(path.read_text())
        for row in (content["mean"], *content["images"]):
            row["file_bpp"] *= 2**doubling
            row["file_psnr"] += 3 * doubling
            row["file_ms_ssim"] = 1 - (1 - row["file_ms_ssim"]) / 2**doubling
        path.with_name(f"{path.stem}-{doubling}.json").write_text(json.dumps(content))


def report(folder: Path, out: Path, *more) -> int:
    models = ("--model", folder / "joint", folder / "scale_hyperprior")
    return run("report", folder / "results", "--out", out, "--images", folder / "images", *models, *more)


def test_a_report_is_a_page_a_table_and_plots(study):
    names = {path.name for path in (study / "report").iterdir()}
    assert {"report.html", "bd-rates.md"} | {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")} <= names
    table = (study / "report" / "bd-rates.md").read_text()
    assert "against Scale hyperprior" in table
    assert "cubic needs 4 points" in table
    for name in FIGURES:
        with Image.open(study / "report" / f"{name}.png") as image:
            assert min(image.size) > 200


def test_the_page_is_one_file_without_external_resources(study):
    page = (study / "report" / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert not re.search(r"@import|url\(http", page)
    assert len(page) < 6_000_000
    assert str(study) not in page


def test_every_codec_is_shown_near_the_rate_of_the_last_model(study):
    page = (study / "report" / "report.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, flags=re.DOTALL)[1])
    titles = [curve["title"] for curve in data["curves"]]
    assert titles == ["Scale hyperprior", "Joint", "JPEG 4:2:0", "WebP"]
    for comparison in data["compare"]:
        assert [titles[item["curve"]] for item in comparison["items"]] == titles
        for item in comparison["items"][1:]:
            assert 0.8 < item["bpp"] / comparison["bpp"] < 1.25


def test_titles_cannot_break_out_of_the_page(study, tmp_path):
    evil = "</script><script>document.title='broken'</script>"
    assert run("report", study / "results", "--out", tmp_path, "--title", evil) == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("</script>") == 2
    if CHROMIUM is not None:
        with chromium() as browser:
            browser.open(tmp_path / "report.html", 800)
            assert browser.run("document.title") == evil


def test_each_further_anchor_gets_a_table_of_its_own(study, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("report", study / "results", "-o", out, "--anchor", "jpeg", "--anchor", "Scale hyper") == 0
    assert "against JPEG 4:2:0" in (out / "bd-rates.md").read_text()
    assert (out / "bd-rates-scale-hyper.md").read_bytes() == (study / "report" / "bd-rates.md").read_bytes()
    assert f"table    {out / 'bd-rates-scale-hyper.md'}\n" in capsys.readouterr().out


def test_no_table_of_an_anchor_replaces_another(tmp_path):
    tables = tables_of(["JPEG 4:2:0", "jpeg-4-2-0", "?", "jpeg"], tmp_path / "bd-rates.md")
    expected = ["bd-rates-jpeg-4-2-0.md", "bd-rates-jpeg-4-2-0-3.md", "bd-rates-4.md", "bd-rates-jpeg.md"]
    assert [table.name for table in tables] == expected


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--anchor", "gif"), "anchor 'gif'"),
        (("--show", "c"), "c: no such image in the results"),
        (("--images", "nowhere"), "--images nowhere: no such image or folder"),
    ],
)
def test_what_cannot_be_reported_is_named(study, tmp_path, capsys, more, complaint):
    assert report(study, tmp_path / "out", *more) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_results_of_other_images_are_not_compared(study, tmp_path, capsys):
    assert run("report", study / "results", PUBLISHED / "jpeg420-tfc.json", "--out", tmp_path / "out") == 2
    assert "a comparison needs results of the same images" in capsys.readouterr().err


def test_decompressed_files_beside_results_stand_in_for_models(study, tmp_path, capsys):
    shutil.copytree(study / "results", tmp_path / "results")
    coded = tmp_path / "results" / "joint"
    assert run("decompress", coded, "--model", study / "joint") == 0
    arguments = ("--images", study / "images", "--out", tmp_path / "out", "--rate", "0.01")
    assert run("report", tmp_path / "results", *arguments) == 0
    assert "no pictures of Scale hyperprior;" in capsys.readouterr().out


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with chromium() as page:
        yield page


def box_of(browser: Page, selector: str) -> list[float]:
    """Return left, top, width and height of an element in the window."""
    box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
    return browser.run(f"(b => [b.left, b.top, b.width, b.height])({box})")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_draws_everything_and_fits_the_screen(browser: Page, study, width, dark, tmp_path):
    browser.open(study / "report" / "report.html", width, dark=dark)
    assert browser.complaints == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    drawn = browser.run(
        "[...document.querySelectorAll('figure')].map(f => [f.id, f.querySelectorAll('.series path.line, rect[fill], "
        "path[fill]').length, f.querySelectorAll('text.axis').length])"
    )
    assert {name for name, shapes, labels in drawn if shapes > 0 and labels > 0} == {
        *("rd-psnr", "rd-ms_ssim", "savings", "each-psnr", "each-ms_ssim", "split", "channels", "time-plot")
    }
    cut = browser.run(
        "[...document.querySelectorAll('.plot text')].map(t => t.getBoundingClientRect())"
        f".filter(b => b.left < 0 || b.right > {width}).length"
    )
    assert cut == 0
    assert browser.run("(t => t.scrollWidth - t.parentElement.clientWidth)(document.querySelector('#bd-table'))") <= 0
    small = browser.run(
        "[...document.querySelectorAll('body *')].filter(n => n.childNodes.length === 1 && n.firstChild.nodeType === 3 "
        "&& n.checkVisibility() && parseFloat(getComputedStyle(n).fontSize) < 11).length"
    )
    assert small == 0
    browser.run("document.querySelectorAll('.sides option').forEach(o => { o.text += ' of a name that goes on'; })")
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        assert len(image.convert("RGB").resize((64, 256)).getcolors(2**16)) > 300


def test_the_slider_moves_the_edge_between_the_pictures(browser: Page, study):
    browser.open(study / "report" / "report.html", 1000)
    browser.run("document.querySelector('.sheet').scrollIntoView({block: 'center'})")
    box = browser.run(
        "(b => [b.left, b.top, b.width, b.height])(document.querySelector('.sheet').getBoundingClientRect())"
    )
    x, y, middle = box[0], box[1] + box[3] / 2, box[0] + box[2] / 2
    clip = "document.querySelectorAll('.sheet img')[1].style.clipPath"
    assert browser.run(clip) == "inset(0px 50% 0px 0px)"
    browser.press(middle, y, to=(x + box[2] * 0.8, y))
    moved = float(re.search(r"inset\(0px ([\d.]+)%", browser.run(clip))[1])
    assert 15 < moved < 25
    assert browser.run("document.querySelector('.sheet .edge').style.left") == f"{100 - moved:g}%"
    decoded = "[...document.querySelectorAll('.sheet img')].every(i => i.complete && i.naturalWidth === 192)"
    assert browser.run(decoded)
    assert browser.complaints == []


def test_curves_can_be_hidden_pointed_at_and_zoomed(browser: Page, study):
    browser.open(study / "report" / "report.html", 1400)
    lines = "document.querySelectorAll('#rd-psnr .series').length"
    assert browser.run(lines) == 4
    browser.run("document.querySelector('#legend .chip').click()")
    assert browser.run(lines) == 3
    left, top, width, height = box_of(browser, "#rd-psnr .series.model .mark")
    browser.move(left + width / 2, top + height / 2)
    tip = browser.run("[...document.querySelectorAll('#tip *')].map(n => n.textContent).join('|')")
    assert re.search(r"Joint\|.*bits per pixel\|[\d.]+ dB PSNR", tip)
    ticks = "[...document.querySelectorAll('#rd-psnr text')].map(t => t.textContent).join()"
    before = browser.run(ticks)
    box = browser.run(
        "(b => [b.left, b.top, b.width, b.height])(document.querySelector('#rd-psnr svg').getBoundingClientRect())"
    )
    start = (box[0] + box[2] * 0.3, box[1] + box[3] * 0.2)
    browser.press(*start, to=(box[0] + box[2] * 0.6, box[1] + box[3] * 0.6))
    assert browser.run(ticks) != before
    browser.run("document.querySelector('#rd-psnr button').click()")
    assert browser.run(ticks) == before
    assert browser.complaints == []


def test_choosing_another_anchor_changes_table_and_savings(browser: Page, study):
    browser.open(study / "report" / "report.html", 1400)
    table = "document.querySelector('#bd-table').textContent"
    assert "Joint" in browser.run(table)
    browser.run(
        "(s => { s.selectedIndex = 1; s.dispatchEvent(new Event('change')); })(document.querySelector('#bd select'))"
    )
    assert "Joint" not in browser.run(table)
    assert "Scale hyperprior" in browser.run(table)
    assert browser.run("document.querySelectorAll('#savings .series').length") >= 1


@pytest.fixture
def odd_results(tmp_path):
    """Results of a model and images whose names have characters that a figure cannot show: `$` and invalid text."""
    content = json.loads((ROOT / "results" / "ladder" / "joint-1.json").read_text())
    row = content["images"][0]
    content["images"] = [row | {"name": name} for name in ("a$b_{$.png", "caf\udce9.png")]
    content["images"] += [row | {"name": f"{number:04}.png"} for number in range(MAX_IMAGES)]
    content["provenance"]["curve"] = "mine, $5^$ \udce9"
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(content))
    return path


def test_names_with_characters_that_a_figure_cannot_show_are_drawn(odd_results, tmp_path):
    content = json.loads(odd_results.read_text())
    odd_results.write_text(json.dumps(content | {"images": content["images"][:2]}))
    assert run("report", odd_results, "-o", tmp_path / "out", "--title", "$x^{$ \udce9") == 0
    assert "mine, $5^$" in (tmp_path / "out" / "bd-rates.md").read_text()


def test_only_the_first_of_many_images_are_drawn(odd_results):
    figure = draw_images(read_curves([odd_results]), "psnr")
    assert figure is not None
    assert len(figure.axes) == MAX_IMAGES
