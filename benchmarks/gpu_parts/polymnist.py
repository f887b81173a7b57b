"""MMVM trained for some minutes on the data set of the configuration, and its coherence."""

import os
import signal
import tempfile
import threading
import time

from mmvm_jax.data import builders, load_dataset
from mmvm_jax.errors import Stopped, UserError, first_line
from mmvm_jax.evaluation.classifiers import load_classifiers
from mmvm_jax.evaluation.coherence import coherence
from mmvm_jax.evaluation.translation import translate_split
from mmvm_jax.models.model import make_model
from mmvm_jax.models.trained import Trained
from mmvm_jax.objectives.method import make_method
from mmvm_jax.training.loop import train
from mmvm_jax.training.state import first_batch, restore

FOR_EVALUATION = 60  # seconds left for it after training
CLASSIFIER_EPOCHS, TOY_SECONDS = 2, 30.0
SHOWN = ("cross_mean", "leave_one_out_mean", "classifier_accuracy/mean")


def run(table, options) -> None:
    """Adds what training reached; reads the data before it waits."""
    config = options.config
    try:
        data = load_dataset(config.data)
    except UserError as error:
        table.add("polymnist", config.data.name, skipped=first_line(error))
        return
    seconds = options.wait()
    began = time.monotonic()
    config.train.update({"steps": 10**9, "checkpoint_every": 10**9, "log_every": 100})
    cache = os.path.join(builders.data_directory(config.data.dir), "classifiers")
    model, method = make_model(data.modalities, config.network, config.precision), make_method(config.method)
    classifiers = load_classifiers(model, data, 1 if options.toy else CLASSIFIER_EPOCHS, cache)
    table.add("polymnist", "classifiers", seconds=time.monotonic() - began)
    with tempfile.TemporaryDirectory() as workdir:
        left = seconds - FOR_EVALUATION - (time.monotonic() - began)
        _train_for(TOY_SECONDS if options.toy else left, config, model, method, data, workdir)
        restored = restore(config, model, method, first_batch(config, data), workdir)
    examples, trained_for = restored.step * config.train.batch_size, restored.progress["seconds"]
    what = f"{config.data.name}, {config.network.name}, {len(model.names)} modalities"
    epochs, rate = examples / len(data.train.labels), examples / trained_for
    table.add("polymnist", what, steps=restored.step, epochs=epochs, seconds=trained_for, examples_per_second=rate)
    trained = Trained(model, method, restored.state.variables)
    translations = translate_split(trained, classifiers, data, config.evaluation.batch_size, config.seed)
    values = coherence(model.names, translations, data.test.present, data.test.labels)
    table.add("polymnist", "coherence", **{name: float(values[f"coherence/{name}"]) for name in SHOWN})


def _train_for(seconds: float, config, model, method, data, workdir: str) -> None:
    """Trains until a signal, after so many seconds, asks to stop."""
    timer = threading.Timer(max(seconds, 1.0), os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        train(config, model, method, data, workdir)
    except Stopped:
        pass
    finally:
        timer.cancel()
