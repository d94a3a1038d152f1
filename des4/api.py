"""The Python interface: `train`, `resume`, `load`, `evaluate`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from des4 import build
from des4.config import Overrides, RunConfig, Source, differences, dump, given_settings, load_config
from des4.continuation import bands_of, check_checkpoints, check_data, check_settings, check_state, describe
from des4.data_tools.checks.advice import DRAWN_EACH_TIME
from des4.data_tools.checks.inspection import Role
from des4.datasets import content_hash
from des4.datasets.files import FilesConfig
from des4.engine import Checkpoints, Evaluator, Interrupted, Trainer, segment
from des4.engine.callbacks import Callback, Callbacks
from des4.engine.distributed import joined, may_be_restarted, on_first, was_restarted
from des4.engine.process import peak_memory
from des4.engine.sharding import whole_weights
from des4.environment import environment
from des4.images.bands import describe as describe_bands
from des4.metrics import Results
from des4.models import Segmenter
from des4.opening import unchecked_dataset
from des4.ops.pixels import picture, unit
from des4.ops.reduce import gather_over_ranks, this_rank
from des4.plan import Plan, plan, within_budget
from des4.predict import Predictor
from des4.report.compare import markdown_rows
from des4.report.page import write_report
from des4.report.pictures import grid
from des4.report.plots import percent
from des4.runlog import FollowedRun, RunFolder, unwritable
from des4.training import ORACLE, Training
from des4.types import CallbackError, ConfigError, DataError, Dataset
from des4.watch import watching
from des4.watch.feed import check_installed
from des4.weights import run_of, weights_file

NUM_SAMPLES = 6
"""Images in the grid of samples: evenly spaced in the validation list, so that runs can be laid side by side."""
NUM_WORST = 20
"""Images in the grid of worst predictions."""


@dataclass(frozen=True)
class Run:
    """A finished training. dir: its folder. results: what its results.json holds."""

    dir: Path
    results: dict[str, Any]

    def _repr_markdown_(self) -> str:
        """What a notebook shows: the folder, and IoU by class of each model."""
        models, tail = self.results["models"], self.results["tail_classes"]
        rows = [["IoU %", *models]]
        for name in self.results["iou"]:
            mark = " (tail)" if name in tail else ""
            rows.append([name + mark, *(percent(scores["iou"][name], 2) for scores in models.values())])
        for label, key in (("**mIoU**", "miou"), ("**tail mIoU**", "tail_miou")):
            rows.append([label, *(percent(scores[key], 2) for scores in models.values())])
        table = "\n".join(markdown_rows(rows)) if models else "It was not scored: its data has no validation list."
        steps = f"{self.results['step']} of {self.results['steps']} steps"
        return f"`{self.dir}`, {steps}; its page is `report.html`\n\n{table}\n"


def train(
    config: str | Path | Mapping[str, Any] | RunConfig | Plan,
    *,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    **overrides: Any,
) -> Run:
    """Train a model into a new run folder, `out` or else the next free `runs/<method>-<n>`.

    config: a YAML file, a mapping of the same shape, a RunConfig, or a Plan, which takes no overrides.
    overrides: `steps=100`, or `**{"model.encoder": "resnet18"}`; see `des4.config` for what may be written short.
    overwrite: replace an earlier run in `out`.
    callbacks: what is told of the run, see `Callback`; of several processes, in the first alone.
    Under torchrun every process calls this, and all but the first write nothing. A command that torchrun or SLURM has
    started again goes on with the run in `out`.
    What is needed and not given is planned, see `des4.plan`: `train({"data": "photos"}, minutes=10)`.
    Raises ConfigError, DataError or WeightsError before anything is written; RunError; CallbackError.
    """
    planned = config if isinstance(config, Plan) else plan(config, overrides)
    settings = planned.config
    check_installed(settings.train.log_to)
    if settings.out is None and may_be_restarted():
        raise ConfigError("out: torchrun may start this command again, which then has to find its run; say out=FOLDER")
    if settings.out is not None and was_restarted() and RunFolder.is_run(settings.out):
        own = planned.minutes is not None or planned.settings  # a plan is made once, and the run has noted it
        return resume(settings.out, None if own else settings, callbacks=callbacks)
    with joined():
        planned = within_budget(planned)
        settings = planned.config
        training = build.training(settings, checked=planned.warnings is None)
        if planned.warnings is not None:
            training = replace(training, warnings=planned.warnings)
        with _shared(
            lambda: RunFolder.create(settings.out or _free_folder(_name(settings)), overwrite or was_restarted())
        ) as run:
            decided = planned.lines()
            run.write_config(dump(settings), [f"planned: {line}" for line in decided])
            trainer = _trainer(training, run, callbacks, decided)
            with _told(trainer):
                return _reported(training, trainer, trainer.fit())


def resume(
    run_dir: str | Path,
    config: Source | None = None,
    overrides: Overrides = (),
    *,
    force: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Continue a run from its newest checkpoint; one that has finished is only reported again.

    config, overrides: what the caller wants the run's settings to be. Some may differ from what they were
    (`des4.continuation`), more of them with `force`; the earlier ones are then kept in `config.<n>.yaml`.
    callbacks: as of `train`; those of the earlier process are not remembered.
    Raises RunError, with the differences, where they may not; ConfigError, DataError, WeightsError or CallbackError.
    """
    if "out" in given_settings({}, overrides):
        raise ConfigError("out: a run that goes on stays in its folder; leave it out, and move the folder afterwards")
    with joined(), _shared(lambda: RunFolder.open(run_dir)) as run:
        own = load_config(run.config())
        wanted = load_config(config or own, overrides).model_copy(update={"out": own.out})
        changed = differences(own, wanted)
        check_installed(wanted.train.log_to)
        check_settings(run, changed, force)
        training = build.training(wanted, bands=bands_of(run), fresh=not Checkpoints(run.checkpoints).steps())
        changed += check_data(run, training.dataset, force)
        check_checkpoints(run, own)
        if changed:
            check_state(run, training)
        on_first(run.say_resumed)  # when all have read the settings
        if changed:
            run.replace_config(dump(wanted))
            run.say(f"settings changed: {'; '.join(changed)}")
        trainer = _trainer(training, run, callbacks)
        with _told(trainer):
            return _reported(training, trainer, trainer.fit())


def load(run_or_weights: str | Path, device: str = "auto") -> Predictor:
    """Load a trained network: the newest weights of a run, which need not have finished, a weights file, or
    `hf://OWNER/NAME` on the Hugging Face hub.

    device: `auto`, `cpu`, `cuda`, or `cuda:1`, the second GPU. Raises WeightsError, RunError or ConfigError.
    """
    return Predictor(run_or_weights, device)


def evaluate(
    run_or_weights: str | Path,
    data: str | Path | Mapping[str, Any] | None = None,
    *,
    overrides: Overrides = (),
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> Results:
    """Score a model on a validation list.

    data: a data folder, `scenes`, or the `data` section of a config; by default what the run was trained with.
    overrides: of `data` and `eval` settings. progress: walks over the image ids, and may show how far it is.
    Warns of images that the run has learnt the masks of. Raises ConfigError, DataError, RunError or WeightsError.
    """
    predictor = Predictor(run_or_weights)
    dataset, config = data_of(predictor, run_or_weights, data, overrides)
    _warn_of_learnt(run_or_weights, dataset, config, named=data is not None)
    tail = [predictor.classes.index(name) for name in predictor.info.tail]
    evaluator = Evaluator(dataset, dataset.val, config.eval, predictor.device, tail)
    return evaluator({"model": predictor.segmenter}, progress=progress).results["model"]


def _warn_of_learnt(run_or_weights: str | Path, dataset: Dataset, config: RunConfig, named: bool) -> None:
    """Warn if another val list than the run's own holds labeled images of the run.

    named: the data were given by name; they are the run's if they lie where it had its own.
    """
    folder = run_of(weights_file(run_or_weights))
    if folder is None or not isinstance(config.data, FilesConfig):
        return
    run = RunFolder.open(folder)
    own, val = load_config(run.config()), run.data().get("val", {}).get("hash")
    if not isinstance(own.data, FilesConfig) or content_hash(dataset.val) == val:
        return
    if named and own.data.root.resolve() != config.data.root.resolve():
        return
    try:
        then = own.model_copy(update={"data": own.data.model_copy(update={"root": config.data.root})})
        labeled = unchecked_dataset(then, dataset.bands, hold_out=True).labeled
    except (ConfigError, DataError):
        return  # lists or masks are gone since: what the run has learnt is not known, and the score does not need it
    if content_hash(labeled) != run.data().get("labeled", {}).get("hash"):
        return  # they have changed since: the same
    if learnt := len(set(labeled).intersection(dataset.val)):
        warnings.warn(f"{learnt} of the {len(dataset.val)} images are labeled ones of this run: a score on what it has "
                      "learnt says nothing of other images", stacklevel=3)  # fmt: skip


def data_of(
    predictor: Predictor,
    source: str | Path,
    data: str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    roles: Sequence[Role] = ("val",),
) -> tuple[Dataset, RunConfig]:
    """Open the data a model is to be scored on; parameters and errors as of `evaluate`. roles: of samples to check."""
    config = _evaluation_config(predictor, source, data, overrides)
    dataset = build.dataset(config, roles, predictor.info.bands)
    if tuple(dataset.classes) != predictor.classes:
        theirs, ours = ", ".join(dataset.classes), ", ".join(predictor.classes)
        raise DataError(f"the data has the classes {theirs}, the model {ours}; name the model's with data.classes=FILE")
    return dataset, config


def _evaluation_config(
    predictor: Predictor, source: str | Path, data: str | Path | Mapping[str, Any] | None, overrides: Overrides
) -> RunConfig:
    """Return the run's config, or for a lone weights file a default one, with other data and overrides put in."""
    weights = weights_file(source)
    folder = run_of(weights)
    if folder is not None:
        base = RunFolder.open(folder).config()
    else:
        base = {"method": predictor.info.method, "eval": predictor.eval}
    if data is not None:
        base = {**base, "data": data}
    config = load_config(base, overrides)
    plain = {"data": "scenes"}
    unread = differences(load_config({**base, **plain}), load_config({**dump(config), **plain}))
    if unread := [line.partition(":")[0] for line in unread if not line.startswith("eval.")]:
        raise ConfigError(f"{', '.join(unread)}: an evaluation reads data.* and eval.* alone")
    return config


@contextmanager
def _shared(find: Callable[[], RunFolder]) -> Iterator[RunFolder]:
    """Yield the run folder: the first process finds it and claims it, the others follow."""
    with ExitStack() as stack:

        def claim() -> RunFolder:
            run = find()
            stack.enter_context(run.claimed())
            return run

        run = on_first(claim)
        path = gather_over_ranks(str(run.path) if run else None)[0]
        yield run or FollowedRun(Path(path))


def _name(settings: RunConfig) -> str:
    return f"{settings.method.name}-oracle" if settings.train.oracle else settings.method.name


def _free_folder(name: str) -> Path:
    return next(path for n in count(1) if not (path := Path("runs", f"{name}-{n}")).exists())


def _trainer(
    training: Training, run: RunFolder, callbacks: Sequence[Callback] = (), decided: Sequence[str] = ()
) -> Trainer:
    """Note what the run is made of, and say what is to be known of it.

    callbacks: the user's. decided: what was planned, for the log.
    """
    data = training.dataset
    run.write_env({**environment(training.device), "parameters": _parameters(training)})
    run.write_data(describe(data))
    run.say(f"{training.config.method.name}: {training.schedule.steps} steps, {len(data.labeled)} labeled, "
            f"{len(data.unlabeled)} unlabeled, {len(data.val)} val images, into {run.path}")  # fmt: skip
    if training.config.train.oracle:
        run.say(f"warning: {ORACLE}")
    for line in decided:
        run.say(f"planned: {line}")
    for note in data.notes:
        run.say(note)
    if data.bands is not None:
        run.say(describe_bands(data.bands))
    for warning in (*training.warnings, *training.lone_images):
        run.say(f"warning: {warning}")
    told = _callbacks(training, run, callbacks)
    return training.trainer(run, lambda evaluation: _show(training, run, evaluation.image_miou), told)


def _parameters(training: Training) -> dict[str, int]:
    """Count the parameters that are trained, and those of the network that predicts."""
    headline = next(iter(training.method.predictors().values()))
    trained = sum(each.numel() for each in training.method.parameters() if each.requires_grad)
    return {"trained": trained, "predicting": sum(each.numel() for each in headline.parameters())}


def _callbacks(training: Training, run: RunFolder, callbacks: Sequence[Callback]) -> Callbacks:
    """Return who is told of a run: the process that speaks for all tells the user's callbacks and our own."""
    if this_rank() > 0:
        return Callbacks()
    settings, tail = training.config, training.evaluator.tail
    everybody = [*watching(settings.train.log_to), *callbacks]
    return Callbacks(everybody, run.path, dump(settings), training.dataset.classes, tail, run.say)


@contextmanager
def _told(trainer: Trainer) -> Iterator[None]:
    """Tell the callbacks if a training ends too early. Raises CallbackError if one of them has failed."""
    told, run = trainer.recorder.callbacks, trainer.run
    saved = f"the run is saved; continue with: des4 train --resume {run.path}"
    try:
        yield
        saved = "the run has finished"
    except Interrupted as stop:
        told.end("stopped", str(stop))
        if told.error is None:
            raise
    except BaseException as error:
        told.end("failed", f"{type(error).__name__}: {error}")
        raise
    if told.error is not None:
        raise CallbackError(f"{told.error}; {saved}") from told.error.__cause__


def _reported(training: Training, trainer: Trainer, results: dict[str, Any]) -> Run:
    """Draw the pictures and the report of a run that has finished, and tell the callbacks."""
    run, last = trainer.run, trainer.recorder.validation.newest
    assert last is not None  # noqa: S101  # `build.training` gives every trainer an evaluator
    with whole_weights(training.method):  # one process runs the networks alone, for the pictures
        on_first(lambda: _report(training, run, last.image_miou))
    trainer.recorder.callbacks.end("finished", results=results, samples=run.plots / "samples.png")
    return Run(run.path, results)


def _report(training: Training, run: RunFolder, scores: Mapping[str, float]) -> None:
    """Note what the run took, draw the pictures and write the report."""
    run.write_env({**run.env(), "peak_memory": peak_memory(training.device)})
    try:
        _draw_samples(training, run, scores, worst=True)
        write_report(run)
    except OSError as error:
        raise unwritable(run.plots, error) from error


def _show(training: Training, run: RunFolder, scores: Mapping[str, float]) -> Path:
    """Draw a few samples in the middle of a training, which is left as it was; return the picture's path."""
    flags = {module: module.training for module in training.method.modules()}
    try:
        run.plots.mkdir(exist_ok=True)
        _draw_samples(training, run, dict(list(scores.items())[:DRAWN_EACH_TIME]))
    except OSError as error:
        raise unwritable(run.plots, error) from error
    finally:
        for module, flag in flags.items():
            module.training = flag
    return run.plots / "samples.png"


def _draw_samples(training: Training, run: RunFolder, scores: Mapping[str, float], worst: bool = False) -> None:
    """Draw `plots/samples.png`, and `plots/worst.png`: image, truth and the prediction of each model.

    scores: mIoU of the headline model on each validation image. worst: whether to draw the second.
    """
    models = training.method.eval().predictors()
    names = training.dataset.classes

    def predict(model: Segmenter, image: Tensor) -> Tensor:
        return segment(model, unit(image.to(training.device)), training.config.eval).argmax(0).cpu()

    def draw(name: str, ids: Sequence[str], captions: Sequence[str]) -> None:
        rows: list[list[NDArray[Any]]] = []
        for sample_id in ids:
            image = training.dataset.image(sample_id)
            predictions = [predict(model, image).numpy() for model in models.values()]
            shown = picture(image.permute(1, 2, 0).numpy(), training.dataset.bands)
            rows.append([shown, training.dataset.label(sample_id).numpy(), *predictions])
        grid(rows, ["image", "truth", *models], training.dataset.palette, names, run.plots / f"{name}.png", captions)

    spacing = max(1, -(-len(scores) // NUM_SAMPLES))  # neighbours in a list are often frames of one street
    samples = list(scores)[::spacing]
    lowest = sorted((i for i in scores if not np.isnan(scores[i])), key=lambda i: scores[i])[:NUM_WORST]
    for name, ids in (("samples", samples), ("worst", lowest if worst else [])):
        if ids:
            draw(name, ids, [f"{i}   mIoU {100 * scores[i]:.1f} %" for i in ids])
