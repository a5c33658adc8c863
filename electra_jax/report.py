"""One self-contained HTML page about runs: curves, configs, samples, results, diagnosis."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from electra_jax.corrupted_samples import Sample, corrupted_samples
from electra_jax.curves import points
from electra_jax.doctor import diagnose
from electra_jax.errors import UserError
from electra_jax.reference_curves import read_curves, tokens_at, write_curves
from electra_jax.run_directory import read_json
from electra_jax.run_record import RunRecord, read_run
from electra_jax.same_run import differences
from electra_jax.writers import write_aside

_PANELS = {
    "mlm_loss": "masked-language-model loss",
    "encoder_loss": "loss of the encoder's language model",
    "disc_loss": "replaced-token loss",
    "disc_auc": "area under the ROC curve",
    "sampled_accuracy": "samples that are the right token",
    "grad_norm": "norm of the gradient",
}
_STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1c1c; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: 0.9rem; }
td, th { border-bottom: 1px solid #8884; padding: 0.25rem 0.8rem 0.25rem 0; text-align: left;
  vertical-align: top; overflow-wrap: break-word; }
.step { white-space: nowrap; } .wide { overflow-x: auto; }
figure { margin: 1rem 0; background: #fff; } figure svg { width: 100%; height: auto; }
.note { color: #777; font-size: 0.9rem; } .tokens { line-height: 2; }
.tokens span { border-radius: 3px; padding: 1px 2px; } .tokens b { text-decoration: underline; }
details { margin: 0.6rem 0; } pre { overflow-x: auto; font-size: 0.8rem; }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #161616; } }
"""


class _Run(NamedTuple):
    """A run of pre-training as the page needs it."""

    name: str
    record: RunRecord
    description: Mapping[str, Any]


def write_report(
    directories: Sequence[Path | str],
    output: Path | str,
    *,
    against: Sequence[Path | str] = (),
    csv_directory: Path | str | None = None,
) -> Path:
    """Writes the page.

    Args:
      directories: workdirs of `train.py` and `finetune.py`.
      output: the page; replaced as a whole where it exists.
      against: CSV files or directories of them: curves to lay under.
      csv_directory: where to write each run's curves as a CSV file; None: nowhere.

    Raises:
      UserError: for a directory that is no run, or a file that cannot be read or written.
    """
    runs, tunings = [], []
    names = _names([Path(directory) for directory in directories])
    for directory, name in zip(map(Path, directories), names, strict=True):
        if (directory / "results.json").exists():
            tunings.append((name, read_json(directory / "results.json")))
        else:
            record = read_run(directory)
            runs.append(_Run(name, record, read_json(directory / "config.json")))
    curves = {name: rows for place in against for name, rows in read_curves(place).items()}
    parts = [f"<h1>{_text(', '.join(names))}</h1>"]
    if runs:
        parts += [_curves(runs, curves), _throughput(runs), _configs(runs)]
    parts += [_tunings(tunings)] if tunings else []
    parts += [_samples(run) for run in runs]
    parts += [_diagnosis(run) for run in runs]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{_text(names[0])}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    output = Path(output)
    try:
        if csv_directory is not None:
            Path(csv_directory).mkdir(parents=True, exist_ok=True)
            for run in runs:
                path = Path(csv_directory) / f"{run.name.replace('/', '-')}.csv"
                write_curves(path, run.record.rows, run.record.config)
        write_aside(output, page)
    except OSError as error:
        raise UserError(f"output={output} cannot be written ({error.strerror})") from None
    return output


def _names(directories: Sequence[Path]) -> list[str]:
    """What tells directories apart: their last part, or as many as it takes."""
    for count in range(1, 10):
        names = ["/".join(directory.absolute().parts[-count:]) for directory in directories]
        if len(set(names)) == len(names):
            return names
    raise UserError("a run is named twice: leave one out")


def _text(value: Any) -> str:
    return html.escape(str(value))


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    lines = [f"<tr>{cells}</tr>"]
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>")
    return '<div class="wide"><table>' + "\n".join(lines) + "</table></div>"


def _curves(runs: Sequence[_Run], against: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    parts = ["<h2>Curves</h2>"]
    for axis, unit in (("step", "step"), ("tokens", "million tokens")):
        lines = {
            run.name: [
                dict(row) | {"tokens": tokens_at(run.record.config, row["step"])}
                for row in run.record.rows
            ]
            for run in runs
        }
        parts.append(f"<figure>{_picture(lines, against, axis, unit)}</figure>")
    note = "Lines: training; points: held out."
    if against:
        note += f" Grey: {', '.join(against)}."
    return "\n".join([*parts, f'<p class="note">{_text(note)}</p>'])


def _picture(lines, against, axis: str, unit: str) -> str:
    """An SVG of all panels that a run has."""
    import matplotlib
    from matplotlib.figure import Figure

    panels = [p for p in _PANELS if any(p in row for rows in lines.values() for row in rows)]
    scale = 1e-6 if axis == "tokens" else 1.0
    height = 2.7 * -(-len(panels) // 2)
    figure = Figure(figsize=(10, height), layout="constrained")
    places = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).flat
    for axes, metric in zip(places, [*panels, None], strict=False):
        if metric is None:
            axes.set_axis_off()
            continue
        everything = [(rows, "0.7", name) for name, rows in against.items()]
        everything += [(rows, f"C{i}", name) for i, (name, rows) in enumerate(lines.items())]
        for rows, colour, name in everything:
            for split, style in (("train", "-"), ("eval", "o")):
                found = points(rows, split, metric, axis=axis, scale=scale)
                if found:
                    label = name if split == "train" else None
                    axes.plot(
                        *zip(*found, strict=True),
                        style,
                        color=colour,
                        label=label,
                        markersize=3,
                        linewidth=1.2,
                    )
        axes.set_title(_PANELS[metric], fontsize=10)
        axes.set_xlabel(unit, fontsize=9)
        axes.grid(alpha=0.3)
        if metric == "grad_norm":
            axes.set_yscale("log")
    # Not every run has every panel.
    unique = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        unique |= dict(zip(labels, handles, strict=True))
    if len(unique) > 1:
        figure.legend(unique.values(), unique, loc="outside lower center", ncols=4, fontsize=8)
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def _throughput(runs: Sequence[_Run]) -> str:
    rows = []
    for run in runs:
        record = run.record
        last = record.of("train")[-1]["step"]
        speeds = record.values("tokens_per_second")
        use = record.values("model_flops_utilisation")
        rows.append(
            [
                run.name,
                f"{last:,}",
                f"{tokens_at(record.config, last):,}",
                f"{np.median(speeds):,.0f}",
                f"{np.median(use):.1%}" if len(use) else "not known",
                record.config["model"]["dtype"],
                ", ".join(f"{k} {v}" for k, v in run.description.get("environment", {}).items()),
            ]
        )
    head = ["run", "steps", "tokens", "tokens/s (median)", "of the device's peak", "dtype", "where"]
    return "<h2>Throughput</h2>" + _table(head, rows)


def _configs(runs: Sequence[_Run]) -> str:
    parts = ["<h2>Configuration</h2>"]
    first = runs[0].record.config
    changed: dict[str, list[Any]] = {}
    for number, run in enumerate(runs[1:], start=1):
        for name, (before, now) in differences(first, run.record.config).items():
            changed.setdefault(name, [before] * len(runs))[number] = now
    if len(runs) > 1:
        rows = [[name, *values] for name, values in sorted(changed.items())]
        parts.append(
            _table(["field", *(run.name for run in runs)], rows) if rows else "<p>All equal.</p>"
        )
    for run in runs:
        flat = differences({}, run.record.config)
        lines = "\n".join(f"{name} = {value!r}" for name, (_, value) in flat.items())
        parts.append(
            f"<details><summary>{_text(run.name)}</summary><pre>{_text(lines)}</pre></details>"
        )
    return "\n".join(parts)


def _tunings(tunings: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    rows = []
    for name, results in tunings:
        for metric, median in results["median"].items():
            mean, deviation = results["mean"][metric], results["standard_deviation"][metric]
            spread = "" if deviation is None else f"{_score(mean)} ± {_score(deviation)}"
            trials = ", ".join(_score(t["metrics"].get(metric)) for t in results["trials"])
            rows.append([name, results["task"], metric, _score(median), spread, trials])
    head = ["run", "task", "metric on dev", "median", "mean ± deviation", "trials"]
    return "<h2>Fine-tuning</h2>" + _table(head, rows)


def _score(value: float | None) -> str:
    """With two decimals; "?" where it was not finite."""
    return "?" if value is None else f"{value:.2f}"


def _samples(run: _Run) -> str:
    title = f"<h2>What the discriminator says: {_text(run.name)}</h2>"
    try:
        rows = corrupted_samples(run.record.path, dict(run.description))
    except UserError as error:
        return title + f'<p class="note">Nothing to show: {_text(error)}.</p>'
    note = (
        "Held-out text with the generator's samples (underlined where they differ from the text). "
        "The darker, the more probably replaced, says the discriminator of that step; point at a "
        "token for the number and for what was there."
    )
    parts = [title, f'<p class="note">{note}</p>']
    for samples in rows:
        body = [[f"step {sample.step:,}", _shaded(sample)] for sample in samples]
        lines = "".join(
            f'<tr><td class="note step">{step}</td><td class="tokens">{text}</td></tr>'
            for step, text in body
        )
        parts.append(f"<table>{lines}</table>")
    return "\n".join(parts)


def _shaded(sample: Sample) -> str:
    tokens = zip(sample.original, sample.shown, sample.probabilities, strict=True)
    parts = []
    for original, shown, probability in tokens:
        title = f"{probability:.2f}" + (f", was {original}" if shown != original else "")
        text = f"<b>{_text(shown)}</b>" if shown != original else _text(shown)
        style = f"background: rgba(214, 40, 40, {0.85 * probability:.2f})"
        parts.append(f'<span style="{style}" title="{_text(title)}">{text}</span>')
    return " ".join(parts)


def _diagnosis(run: _Run) -> str:
    findings = diagnose(run.record)
    title = f"<h2>Diagnosis: {_text(run.name)}</h2>"
    if not findings:
        return title + "<p>Nothing looks wrong.</p>"
    rows = [[f.name, f.seen, f.meaning, f.remedy] for f in findings]
    return title + _table(["", "seen", "meaning", "what to do"], rows)
