"""Sites with the page in web/, and a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jahp_pl.model_io.export import export
from jahp_pl.model_io.export_config import CONFIG_FILE
from tests.support.browser import Page, chromium
from tests.support.codec_models import MIXTURE, codec_of, variable_model
from tests.support.web_page import VENDOR, Site, script


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    """Sites with a variable-rate model and with single-rate mixtures, all tiny."""
    found = {}
    for name, model in (("variable", variable_model()), ("mixture", codec_of(MIXTURE).model)):
        folder = tmp_path_factory.mktemp(name)
        codec = export(model, folder / "export", {})
        if name == "mixture":  # as former versions named the entropy model
            config = folder / "export" / CONFIG_FILE
            config.write_text(config.read_text().replace('"entropy_model"', '"rung"'))
        (folder / "page").mkdir()
        script("build").build(VENDOR, folder / "page", folder / "export")
        found[name] = Site(folder / "page", codec)
    yield found
    for site in found.values():
        site.stop()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of a browser without a window."""
    with chromium() as opened:
        yield opened
