"""The MLflow UI as its users see it, in a headless Chromium on `make ui`.

Set MLFF_EXP_SCREENSHOTS to a directory to keep what was seen.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from mlff_exp.config.config import Tracking
from mlff_exp.report.report import write_report
from mlff_exp.tracking.recovery import open_store
from mlff_exp.tracking.sweeps import sweep_run
from mlff_exp.tracking.upload import log_run
from tests.helpers.server import free_port
from tests.helpers.sweeps import SWEEP, timed

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 30

pytestmark = pytest.mark.xdist_group("ui")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if chromium is None or driver is None:
        pytest.skip("Chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=2600,1400",
    ):
        options.add_argument(word)
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, fresh_database: Path) -> tuple[Path, str, list[str]]:
    """A store with a sweep in it, the id of the parent and those of the timed runs."""
    root = tmp_path_factory.mktemp("ui")
    (root / "mlruns").mkdir()
    shutil.copy(fresh_database, root / "mlruns")
    store = open_store(Tracking(directory=str(root / "mlruns")))
    assert store is not None
    runs = []
    compiled = timed("compile", "fp32", 16, 2.0)
    compiled = replace(compiled, config={**compiled.config, "engine": {"name": "compile", "mode": "reduce-overhead"}})
    (root / "sweep").mkdir()
    with sweep_run(store, "phase1", root / "sweep") as parent:
        for number, result in enumerate([compiled, *SWEEP]):
            directory = root / "sweep" / str(number)
            directory.mkdir()
            figure, axes = plt.subplots()
            axes.plot([0, 1])
            figure.savefig(directory / "latency.png")
            plt.close(figure)
            config = {**result.config, "sweep": {"gate_decision": "GO"}}
            replace(result, config=config, artifacts=["latency.png"]).save(directory)
            run = log_run(store, directory, parent)
            if result.config["task"]["name"] == "inference":
                runs.append(run)
        write_report(root / "sweep", "phase1")
    assert parent is not None
    return root / "mlruns", parent, runs


@pytest.fixture(scope="module")
def address(sweep: tuple[Path, str, list[str]]) -> Iterator[str]:
    """The address of the UI that `make ui` opens on the store."""
    port = free_port()
    words = [f"BIN={Path(sys.executable).parent}", f"PORT={port}", f"MLRUNS={sweep[0]}"]
    command = ["make", "--old-file=install", "ui", *words]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/#"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def see(browser: Any, address: str, name: str, *words: str) -> str:
    """Open a page and wait until all words are on it, loading it again now and then; returns its text."""
    for attempt in (1, 2, 3):
        browser.get("about:blank")  # else nothing is loaded where only what follows the # is another
        browser.get(address)
        with contextlib.suppress(*([AssertionError] if attempt < 3 else [])):
            return wait_for(browser, name, *words)
    raise AssertionError


def wait_for(browser: Any, name: str, *words: str) -> str:
    end, text = time.monotonic() + PATIENCE_S, ""
    while time.monotonic() < end:
        text = browser.find_element("tag name", "body").text
        if all(word in text for word in words):
            break
        time.sleep(0.2)
    if "MLFF_EXP_SCREENSHOTS" in os.environ:
        time.sleep(1)
        browser.save_screenshot(str(Path(os.environ["MLFF_EXP_SCREENSHOTS"]) / f"{name}.png"))
    assert [word for word in words if word not in text] == [], text
    return text


def test_runs_are_below_their_sweep_with_the_headline_metrics(
    browser: Any, address: str, sweep: tuple[Path, str, list[str]]
) -> None:
    columns = ["latency_median_ms", "speedup_vs_baseline", "engine.name", "batch_size"]
    text = see(browser, f"{address}/experiments/1/runs?viewStateShareKey=headline", "runs", "phase1", *columns)
    assert "cuda_graph · fp32" not in text
    browser.find_element("css selector", ".ag-row [col-id*='Run Name'] button").click()
    wait_for(browser, "runs", "inference · benzene · cuda_graph · fp32 · B1", "nve · benzene · cuda_graph · fp32")


def test_runs_are_compared_in_parallel_coordinates(
    browser: Any, address: str, sweep: tuple[Path, str, list[str]]
) -> None:
    see(browser, f"{address}/experiments/1/runs?viewStateShareKey=headline", "runs", "phase1", "latency_median_ms")
    browser.find_element("css selector", ".ag-row [col-id*='Run Name'] button").click()
    wait_for(browser, "unfolded", "nve · benzene · cuda_graph · fp32")
    row = "//*[contains(concat(' ', @class, ' '), ' ag-row ')][.//a[starts-with(normalize-space(), 'inference')]]"
    for box in browser.find_elements("xpath", f"{row}//*[contains(@class, 'ag-selection-checkbox')]"):
        box.click()
    browser.find_element("xpath", "//button[normalize-space()='Compare']").click()
    wait_for(browser, "compare", "Parallel Coordinates Plot", f"Comparing {len(sweep[2])}", "precision.name")
    # The plot has the first three parameters that differ; the test replaces the engine's name by the precision.
    parameters = browser.find_element("css selector", "[class*='select-multiple']")
    parameters.find_element("xpath", ".//span[text()='engine.name']/following-sibling::span").click()
    parameters.find_element("tag name", "input").send_keys("precision.name\n")
    axes = {"batch_size", "engine.mode", "precision.name", "latency_median_ms"}
    end, found = time.monotonic() + PATIENCE_S, set[str]()
    while found != axes and time.monotonic() < end:
        time.sleep(0.2)
        found = axes & {text.text for text in browser.find_elements("css selector", ".parcoords text")}
    wait_for(browser, "compare-precision", "latency_median_ms")
    assert found == axes


def test_plots_and_notes_of_a_run_are_shown(browser: Any, address: str, sweep: tuple[Path, str, list[str]]) -> None:
    run = f"{address}/experiments/1/runs/{sweep[2][-1]}"
    see(browser, run, "run", "cuda_graph · fp16_autocast · B16", "benzene (", "Parent run", "gate.decision")
    assert browser.find_elements("xpath", "//th[normalize-space()='metric']"), "the note's table is no table"
    see(browser, f"{run}/artifacts/latency.png", "artifact", "result.json", "latency.png")
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        images = browser.find_elements("css selector", "img[src*='latency.png'], img[src^='blob:']")
        if any(int(image.get_property("naturalWidth")) > 300 for image in images):
            return
        time.sleep(0.2)
    raise AssertionError("the plot is not shown")


def test_the_report_opens_on_the_parent(browser: Any, address: str, sweep: tuple[Path, str, list[str]]) -> None:
    see(browser, f"{address}/experiments/1/runs/{sweep[1]}/artifacts/report.html", "report", "report.html", "report.md")
    end = time.monotonic() + PATIENCE_S
    while not browser.find_elements("tag name", "iframe") and time.monotonic() < end:
        time.sleep(0.2)
    browser.switch_to.frame(browser.find_element("tag name", "iframe"))
    text = wait_for(browser, "report", "The plan", "compiled, single structure, against eager", "40.0× [38.0, 42.0]")
    assert "Where it ran" in text
    browser.switch_to.default_content()


@pytest.mark.parametrize("width", [1600, 390])
def test_the_report_fits_desktop_and_phone(browser: Any, sweep: tuple[Path, str, list[str]], width: int) -> None:
    # The size of a window would not do: none is as narrow as a phone.
    screen = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 1000}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    see(browser, (sweep[0].parent / "sweep" / "report.html").as_uri(), f"report-{width}", "The plan", "Runs")
    scroll = browser.execute_script("return [document.body.scrollWidth, window.innerWidth]")
    figures = browser.execute_script("return Array.from(document.images, image => image.width / image.naturalWidth)")
    run = browser.find_elements("css selector", "table")[-2].find_element("css selector", "tbody td")
    browser.execute_script("arguments[0].closest('div').scrollLeft = 9999", run)
    left = run.rect["x"]
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert scroll[0] <= scroll[1] == width, "the page is wider than the screen; only tables and figures may scroll"
    assert min(figures) > 0.5, "the words in a figure are too small to read"
    assert left >= 0, "whose numbers these are is out of sight"
