"""The page about runs, and the doctor on real ones."""

import json
import re
import shutil

import pytest
from small_run import command, run

from electra_jax import cli
from electra_jax.doctor import diagnose
from electra_jax.reference_curves import read_curves, tokens_at
from electra_jax.report import write_report
from electra_jax.run_record import read_run


def test_a_page_holds_all_there_is_of_a_run_and_nothing_of_elsewhere(undisturbed, tmp_path, capsys):
    hostile = tmp_path / "<script>alert(1)"
    hostile.mkdir()
    metrics = {"accuracy": 81.25}
    results = {
        "task": "rte",
        "median": metrics | {"f1": None},
        "mean": metrics | {"f1": None},
        "standard_deviation": {"accuracy": 1.5, "f1": None},
        "trials": [{"metrics": metrics}, {"metrics": {"accuracy": None}}],
    }
    (hostile / "results.json").write_text(json.dumps(results))
    page, curves = tmp_path / "page.html", tmp_path / "curves"
    arguments = [str(undisturbed), str(hostile), "--output", str(page), "--write-csv", str(curves)]
    assert cli.main(["report", *arguments]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    text = page.read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text
    assert not re.search(r'(src|href)="(?!#)', text)
    assert text.count("<svg") == 2 and "masked-language-model loss" in text
    assert "81.25 ± 1.50" in text and "81.25, ?" in text and "<td>?</td>" in text
    assert "step 60" in text and "[CLS]" in text and "Diagnosis" in text

    (file,) = curves.glob("*.csv")
    ((name, rows),) = read_curves(curves).items()
    assert name == file.stem and rows[-1]["split"] == "eval" and rows[-1]["step"] == 60
    assert rows[0]["tokens"] == rows[0]["step"] * 8 * 16
    write_report([undisturbed], page, against=[curves])
    assert f"Grey: {name}." in page.read_text()
    write_report([undisturbed], page, against=["reference"])
    assert "Grey: small_wikipedia-electra" in page.read_text()
    assert list(read_curves("reference:small")) == list(read_curves("reference"))
    exact = "small_wikipedia-electra"  # others begin so
    assert list(read_curves(f"reference:{exact}")) == [exact]
    for words in (
        [str(undisturbed), "--output", str(page), "--against", "reference:no"],
        [str(tmp_path / "nothing"), "--output", str(page)],
        [str(undisturbed), "--output", str(page), "--against", str(tmp_path / "no.csv")],
        [str(undisturbed), str(undisturbed), "--output", str(page)],
        [str(undisturbed), "--output", str(tmp_path / "no" / "page.html")],
    ):
        assert cli.main(["report", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_tokens_are_counted_through_phases():
    config = {"data": {"seq_len": 16, "phases": [[10, 32, 4]]}, "train": {"batch_size": 8}}
    assert tokens_at(config, 10) == 1280 and tokens_at(config, 12) == 1280 + 2 * 128


def test_runs_that_lack_the_first_panel_are_named(undisturbed, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(undisturbed, tmp_path / name, ignore=shutil.ignore_patterns("checkpoints"))
        metrics = tmp_path / name / "metrics.jsonl"
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
        for row in rows:
            del row["mlm_loss"]
        metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_report([tmp_path / "one", tmp_path / "two"], tmp_path / "page.html")
    legend = re.findall(r"<text[^>]*>(one|two)</text>", (tmp_path / "page.html").read_text())
    assert legend == ["one", "two"] * 2  # by steps and by tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("learning rate too low", {"optimizer__learning_rate": 1e-7}),
        ("learning rate too high", {"optimizer__learning_rate": 1.0}),
        ("discriminator at the majority class", {"objective__discriminator_weight": 0.0}),
    ],
)
def test_a_run_that_was_made_to_fail_is_told_so(corpus_path, tmp_path, name, fields):
    fields = {"train__num_train_steps": 600, "optimizer__warmup_steps": 20} | fields
    result = run(command(corpus_path, tmp_path / "run", **fields))
    assert result.returncode == 0, result.stderr
    assert name in [finding.name for finding in diagnose(read_run(tmp_path / "run"))]
