"""Step: train networks that differ in one thing under several seeds, and set their scores side by side."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from scipy import stats

from condswin.checksums import checksums
from condswin.code import closure
from condswin.config.names import TaskName
from condswin.config.reading import validated
from condswin.config.root import Config
from condswin.config.task import Study, StudyVariant, VariantConfig
from condswin.devices import device
from condswin.errors import BadFileError, ConfigError, OutputError
from condswin.evaluation.run import evaluate_split
from condswin.files import atomic_file, fingerprint, read_json, write_json
from condswin.manifest import Manifest
from condswin.networks.blocks import parameter_count
from condswin.networks.costs import count_flops, latencies
from condswin.networks.models import create_model
from condswin.networks.saving import PRETRAINING
from condswin.networks.transfer import transfer
from condswin.outputs import open_output, refuse_equal
from condswin.plain import cell
from condswin.tasks.facts import Facts, Row
from condswin.tasks.judging import Judging
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.tasks.prediction import Prediction
from condswin.tasks.preparation import Preparation
from condswin.tasks.source import Source
from condswin.training import decisive, fit
from condswin.training.checkpoints import training_folder
from condswin.training.ownership import owned
from condswin.validity import Key, make_key

TABLE = "ablation.md"
RESULTS = "ablation.json"
#: What has its place beside the predictions of other cases, or a column in the table.
TAKEN = ("test", "checkpoints")


def ablate(
    config: Config,
    task_name: TaskName,
    study: Study,
    *,
    prepared: Path,
    also: list[Path],
    seeds: int,
    out: Path,
    latency: int = 0,
    overwrite: bool = False,
) -> str:
    """Trains every network of a study with every seed and scores it on the test split and on other cases.

    What is done already is not done again: a stopped ablation goes on, and more seeds may be asked for later.

    Args:
        config: Parameters; `train` of the task's section holds for all networks, but for what the study says.
        task_name: Which task.
        study: The networks, and how their trainings differ.
        prepared: Output of the prepare step.
        also: Folders of raw files, prepared as test cases are, that no network was trained on.
        seeds: How many seeds, counted from the parameters' one.
        out: Folder for checkpoints, predictions, `ablation.json` and `ablation.md`.
        latency: Measurements per network of the time that one slice of the test split takes; 0 for none.
        overwrite: Write into a folder that holds other files too.

    Returns:
        Tables as Markdown: a row per network, mean and standard deviation over seeds; with several seeds, differences
        from the first network with intervals.

    Raises:
        ConfigError: A training's settings are impossible, or it would start from a network that the study says nothing
            of.
        OutputError: Two networks or folders have one name, a folder has one of ours, or writing to `out` would hurt
            something.
    """
    refuse_equal({Path(name): [_slug(name)] for name in study.variants})
    refuse_equal({folder: [folder.name] for folder in also})
    for folder in also:
        if folder.name in TAKEN:
            raise OutputError(
                f"{folder}: the name {folder.name} is taken by ablate itself; give a folder of another name"
            )
    manifest = Manifest.read(prepared, task_name)
    manifest.verify(prepared)
    manifest.require_parameters(config.task(task_name).prepared_with(), prepared)
    facts = load(Facts, task_name, config)
    if config.task(task_name).train.initial is not None:
        raise ConfigError(f"{task_name}.train.initial: a study says itself what starts from where (`pretrained: true`)")
    configs = {name: _configured(config, task_name, name, variant) for name, variant in study.variants.items()}
    learning = {name: load(Learning, task_name, config) for name, config in configs.items()}
    networks = {name: _build(learning[name], variant) for name, variant in study.variants.items()}
    slices = {name: _slice(learning[name], prepared, study.variants[name]) for name in networks}
    costs = {
        name: {"parameters": parameter_count(network), "gflops": count_flops(network, slices[name]).total / 1e9}
        for name, network in networks.items()
    }
    if latency:
        on, runs = device(config.task(task_name).train.device), {}
        for name, network in networks.items():
            runs[name] = network.to(on), slices[name].to(on)
        for name, seconds in latencies(runs, rounds=latency).items():
            costs[name]["milliseconds"] = 1e3 * seconds
    output = open_output(out, step="ablate", inputs=[prepared, *also], overwrite=overwrite)
    output.claim([RESULTS, TABLE])
    others = {folder.name: _content(config, task_name, folder) for folder in also}
    contents = {"data": manifest.fingerprint(), **{f"also/{name}": content for name, content in others.items()}}
    test_sets = {"test": prepared}
    for folder in also:
        test_sets[folder.name] = _prepare(config, task_name, folder, others[folder.name], out)
    results: list[dict[str, Any]] = []
    for seed in range(config.seed, config.seed + seeds):
        for name, settings in study.variants.items():
            initial = partial(_pretrained, config, task_name, settings, seed, prepared, contents["data"], out)
            results.append(
                _run(configs[name], task_name, name, settings, seed, prepared, test_sets, contents, out, initial)
            )
            write_json(out / RESULTS, {"costs": costs, "results": results})
    table = _table(facts, costs, list(test_sets), results)
    with atomic_file(out / TABLE) as temporary:
        temporary.write_text(table)
    output.finish([RESULTS, TABLE])
    return table


def _configured(config: Config, task_name: TaskName, name: str, settings: StudyVariant) -> Config:
    """The parameters with a network's own settings of the training.

    Raises:
        ConfigError: One is unknown or impossible.
    """
    section = config.task(task_name)
    values = {**section.train.model_dump(mode="json"), **settings.train}
    train = validated(type(section.train), values, origin=f"variants.{name}.train")
    return config.model_copy(update={task_name: section.model_copy(update={"train": train})})


def _build(learning: Learning, variant: VariantConfig) -> torch.nn.Module:
    in_channels, out_channels = learning.channels(variant.network)
    return create_model(
        variant.network, preset=variant.preset, in_channels=in_channels, out_channels=out_channels, **variant.overrides
    )


def _slice(learning: Learning, prepared: Path, settings: VariantConfig) -> torch.Tensor:
    """A batch of one slice of the test split, of which operations and milliseconds are told."""
    return learning.dataset(prepared, "test", settings.network, training=False)[0]["image"][None]


def _slug(name: str) -> str:
    return name.replace(" ", "-").replace("/", "-")


def _content(config: Config, task_name: TaskName, source: Path) -> str:
    """Fingerprint of the cases of a folder of raw files."""
    known = checksums(source)
    cases = load(Source, task_name, config).find_cases(source).cases
    contents = {case.name: {role: known.sha256(path) for role, path in case.files.items()} for case in cases}
    known.save()
    return fingerprint(contents)


def _prepare(config: Config, task_name: TaskName, source: Path, content: str, out: Path) -> Path:
    """Prepares the cases of a folder of raw files; what other content, parameters or code left lies elsewhere."""
    origin = [content, config.task(task_name).prepared_with(), closure("prepare", task_name)]
    folder = out / "also" / f"{source.name}-{fingerprint(origin)[:16]}"
    preparation, judging = load(Preparation, task_name, config), load(Judging, task_name, config)
    for case in load(Source, task_name, config).find_cases(source).cases:
        if case.name not in judging.case_files(folder / "test"):
            preparation.prepare_case(case.name, case.files, "test", folder / "test")
    return folder


def _run(
    config: Config,
    task_name: TaskName,
    name: str,
    settings: StudyVariant,
    seed: int,
    prepared: Path,
    test_sets: Mapping[str, Path],
    contents: Mapping[str, str],
    out: Path,
    initial: Callable[[], torch.nn.Module],
) -> dict[str, Any]:
    train = config.task(task_name).train
    facts, learning = load(Facts, task_name, config), load(Learning, task_name, config)
    judging, prediction = load(Judging, task_name, config), load(Prediction, task_name, config).alone()
    parameters = {
        "network": settings.model_dump(mode="json"),
        "train": decisive(train),
        "prepare": config.task(task_name).prepared_with(),
        "predict": prediction.parameters(),
        "seed": seed,
        **({PRETRAINING: _pretraining(learning)} if settings.pretrained else {}),
    }
    key = make_key("ablate", task_name, parameters=parameters, inputs=contents)
    folder = out / f"{_slug(name)}-{seed}"
    done = _known(folder, key, test_sets)
    if done is not None:
        return done
    weights = initial().state_dict() if settings.pretrained else {}
    pl.seed_everything(seed, workers=True, verbose=False)
    network = _build(learning, settings)
    if weights:
        transfer(network, weights, f"{name}, pre-trained")
    checkpoints, _ = training_folder(folder / "checkpoints", key)
    with owned(checkpoints) as require_owner:
        fitted = fit(
            learning,
            network,
            train,
            monitor=facts.monitor,
            validated=_validated(prepared, task_name),
            name=settings.network,
            prepared=prepared,
            checkpoints=checkpoints,
            seed=seed,
            label=f"{name}, seed {seed}",
            require_owner=require_owner,
        )
    network = fitted.network.to(device(train.device))
    scores = {
        name: _gains(facts, evaluate_split(judging, partial(prediction.predict, network), data, "test", folder / name))
        for name, data in test_sets.items()
    }
    result = {"network": name, "seed": seed, "key": key.digest, "scores": scores}
    write_json(folder / "scores.json", result)
    return result


def _pretraining(learning: Learning) -> dict[str, Any]:
    """What decides a training without labels beside network, seed and data."""
    _, train, _, parameters = learning.pretraining()
    return {"train": decisive(train), **parameters}


def _pretrained(
    config: Config, task_name: TaskName, settings: VariantConfig, seed: int, prepared: Path, data: str, out: Path
) -> torch.nn.Module:
    """A network trained without labels: once for all variants that start from it, since checkpoints are kept."""
    learning = load(Learning, task_name, config)
    masked, train, monitor, _ = learning.pretraining()
    chosen = settings.model_dump(mode="json", include=set(VariantConfig.model_fields))
    parameters = {"network": chosen, "seed": seed, PRETRAINING: _pretraining(learning)}
    key = make_key("ablate", task_name, parameters=parameters, inputs={"data": data})
    pl.seed_everything(seed, workers=True, verbose=False)
    checkpoints, _ = training_folder(out / "pretrained" / f"{_slug(settings.network)}-{seed}", key)
    with owned(checkpoints) as require_owner:
        fitted = fit(
            masked,
            _build(masked, settings),
            train,
            monitor=monitor,
            validated=_validated(prepared, task_name),
            name=settings.network,
            prepared=prepared,
            checkpoints=checkpoints,
            seed=seed,
            label=f"{settings.network} without labels, seed {seed}",
            require_owner=require_owner,
        )
    return fitted.network


def _validated(prepared: Path, task_name: TaskName) -> bool:
    return Manifest.read(prepared, task_name).counts()["val"] > 0


def _known(folder: Path, key: Key, test_sets: Mapping[str, Path]) -> dict[str, Any] | None:
    try:
        known: dict[str, Any] = read_json(folder / "scores.json")
    except BadFileError:
        return None
    return known if known["key"] == key.digest and set(known["scores"]) == set(test_sets) else None


def _gains(facts: Facts, rows: list[Row]) -> dict[str, float | None]:
    """Mean over cases of each metric; of its difference from the first reference method where there is one.

    None where no case defines it, as the precision of a network that finds no tumour.
    """
    prefix = next(iter(facts.baselines.values()), None)
    means: dict[str, float | None] = {}
    for metric in facts.metrics:
        values = [float(row[metric]) - (float(row[f"{prefix}{metric}"]) if prefix else 0.0) for row in rows]
        finite = [value for value in values if np.isfinite(value)]
        means[metric] = float(np.mean(finite)) if finite else None
    return means


def _table(
    facts: Facts, costs: Mapping[str, Mapping[str, float]], places: list[str], results: list[dict[str, Any]]
) -> str:
    metrics = list(facts.metrics)[:2]
    sign = "+" if facts.baselines else ""
    timed = any("milliseconds" in cost for cost in costs.values())
    columns = [f"{metric}, {cell(place)}" for place in places for metric in metrics]
    head = ["network", "parameters", "GFLOPs", *(["ms"] if timed else []), *columns]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for name, cost in costs.items():
        cells = [cell(name), f"{cost['parameters']:,.0f}", f"{cost['gflops']:.2f}"]
        cells += [f"{cost['milliseconds']:.0f}"] if timed else []
        for place in places:
            for metric in metrics:
                scores = [result["scores"][place][metric] for result in results if result["network"] == name]
                values = [value for value in scores if value is not None]
                spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
                cells.append(f"{np.mean(values):{sign}.3f}{spread}" if values else "-")
        lines.append("| " + " | ".join(cells) + " |")
    baseline = next(iter(facts.baselines), None)
    what = f"Differences from {baseline}" if baseline else "Scores"
    count = len({result["seed"] for result in results})
    note = f"{what}, averaged over cases; mean ± standard deviation over {count} seeds."
    return "\n".join(
        [*lines, "", note, "", *(_differences(metrics, list(costs), places, results) if count > 1 else [])]
    )


def _differences(metrics: list[str], names: list[str], places: list[str], results: list[dict[str, Any]]) -> list[str]:
    """A table of differences from the first network, seed by seed, with 95 % intervals of Student's t over seeds."""
    columns = [(place, metric) for place in places for metric in metrics]
    head = [f"against {cell(names[0])}", *(f"{metric}, {cell(place)}" for place, metric in columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    scores = {(result["network"], result["seed"]): result["scores"] for result in results}
    for name in names[1:]:
        cells = [cell(name)]
        for place, metric in columns:
            pairs = [(scores[name, seed][place][metric], scores[names[0], seed][place][metric])
                     for known, seed in scores if known == name]  # fmt: skip
            found = [one - other for one, other in pairs if one is not None and other is not None]
            if len(found) < 2:
                cells.append("-")
                continue
            reach = stats.t.ppf(0.975, len(found) - 1) * np.std(found, ddof=1) / len(found) ** 0.5
            low, high = f"{np.mean(found) - reach:+.3f}", f"{np.mean(found) + reach:+.3f}"
            cells.append(f"{np.mean(found):+.3f}" + (f" ({low} to {high})" if low != high else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", "Differences from the first network, paired by seed, with 95 % intervals over seeds.", ""]
