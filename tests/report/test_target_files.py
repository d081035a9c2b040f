"""Targets as data: those that ship, and files of a user's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlff_exp.cli.report import report_main
from mlff_exp.config.errors import ConfigError
from mlff_exp.report.content import report_content
from mlff_exp.report.target_files import USUAL_TARGETS, load_targets
from mlff_exp.report.targets import judge_targets
from tests.helpers.here import CONF
from tests.helpers.sweeps import SWEEP, timed

MINE = """\
lists:
  - title: Mine
    targets:
      - {name: a call / ms, promised: at most 1 ms, metric: latency_median_ms, max: 1.0,
         where: {engine: cuda_graph, precision: fp32, batch_size: 16}}
"""


def test_a_file_of_ones_own_is_judged_and_shown(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    (listed,) = load_targets([str(tmp_path / "mine.yaml")])
    (judged,) = judge_targets(SWEEP, listed)
    assert judged.measured is not None
    assert (judged.measured.number.value, judged.held) == (0.25, True)
    promises = report_content(SWEEP, [listed]).promises
    assert list(promises) == ["Mine"]
    assert promises["Mine"][0].cells[:4] == ("a call / ms", "at most 1 ms", "0.25", "yes")


def test_those_that_ship_are_judged_where_nothing_else_is_said() -> None:
    assert set(USUAL_TARGETS) == {path.stem for path in (CONF / "targets").glob("*.yaml")}
    titles = [listed.title for listed in load_targets()]
    assert titles[0] == "The plan"
    assert [title for title in titles if title in report_content(SWEEP).promises] == titles[:2]
    assert report_content(SWEEP, []).promises == {}


def test_selectors_of_the_gpu_and_the_model_select() -> None:
    run = timed("compile", "fp32", 1, 2.0)
    _, ours, _ = load_targets()
    assert ours.about.selects(run)
    for gpu, model in (("A100", "student"), ("H100", "mine.safetensors")):
        environment = {"gpu": gpu}
        config = {**run.config, "model": {"name": "student", "checkpoint": model}}
        changed = type(run)(config, metrics=run.metrics, environment=environment)
        assert not ours.about.selects(changed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lists: 3", "lists=3 is not a list"),
        ("nothing: []", "unknown keys: nothing"),
        ("- 1", "it holds no mapping with the key lists"),
        ("5", "it holds no mapping with the key lists"),
        ("a: &a [*a]", "stands for more than 50,000 values"),
        ("a: " + "[" * 101 + "]" * 101, "nested in more than 100 levels"),
        ("root:x:0:0:root:/root:/bin/sh: 1", "unknown keys: root:x:0:0:root:/roo"),
        ("{", "is no file of targets"),
        (MINE.replace("max: 1.0", "max: soon"), "max='soon' is not float"),
        (MINE.replace("max: 1.0", "max: .nan"), "max=nan is not finite"),
        (MINE.replace(", max: 1.0", ""), "needs one limit: min or max"),
        (MINE.replace("max: 1.0", "max: 1.0, min: 0.5"), "needs one limit: min or max"),
        (MINE.replace("latency_median_ms", "latency"), "metric=latency is not one of: step_us, "),
        (MINE.replace("engine:", "engin:"), "unknown keys: engin"),
        (MINE.replace("batch_size: 16", "batch_size: [many]"), "batch_size='many' is not int"),
        (MINE.replace("max: 1.0", "max: 1.0, choose: any"), "is not one of best, worst, first, largest_batch"),
    ],
)
def test_what_is_no_file_of_targets_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        load_targets([str(tmp_path / "mine.yaml")])
    assert "mine.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_that_is_none_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "0").mkdir()
    SWEEP[0].save(tmp_path / "0")
    monkeypatch.setattr("sys.argv", ["mlff-exp-report", str(tmp_path), "--targets", "plan,hers"])
    with pytest.raises(SystemExit) as ended:
        report_main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == "mlff-exp-report: targets: 'hers' is neither one of ours, plan nor a file\n"
    assert not (tmp_path / "report.html").exists()


def test_no_code_of_the_report_knows_what_the_targets_are_about() -> None:
    for path in (CONF.parent / "mlff_exp" / "report").glob("*.py"):
        if path.stem == "plots":  # whose axes say student and teacher
            continue
        found = re.findall(r"benzene|H100|\bstudent\b", path.read_text(), flags=re.IGNORECASE)
        assert not found, f"{path.name}: {found}"
