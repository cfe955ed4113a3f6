"""Train, validate or look at what a configuration describes.

    python tasks/run.py --config egs/datasets/demo/lm3d_radnerf.yaml --exp_name demo
    python tasks/run.py --exp_name demo --validate        # numbers and pictures of held-out frames
    python tasks/run.py --exp_name demo --infer           # pictures of held-out frames only
    python tasks/run.py --exp_name may_torso --validate   # of a portrait, checkpoints/may_torso
    torchrun --nproc_per_node=4 tasks/run.py --config egs/datasets/demo/lm3d_radnerf.yaml --exp_name demo  # 4 GPUs

Reads: the configuration, data/. Writes: checkpoints/identities/<exp_name> (checkpoints/postnets/<exp_name> and
checkpoints/<exp_name> for the tasks postnet and audio2motion), data/training/<exp_name>.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # `python tasks/run.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from modules.commons.command import GOES_ON, exit_status
from modules.commons.errors import ConfigError
from modules.commons.hparams import parse_hparams
from modules.commons.progress import ConsoleProgress
from modules.commons.workspace import CHECKPOINTS, IDENTITIES, POSTNETS
from tasks.configs import RADNeRFTaskConfig, load_any
from tasks.evaluation.config import EvaluationConfig
from tasks.postnet.configs import PostNetTaskConfig
from tasks.radnerfs.portrait_config import PortraitTaskConfig, is_portrait_run

log = logging.getLogger(__name__)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, in GeneFace++'s spelling."""
    parser = argparse.ArgumentParser(description="Train or validate a task.", allow_abbrev=False)
    parser.add_argument("--config", type=Path, help="task YAML (default: the one saved with the checkpoint)")
    parser.add_argument("--exp_name", required=True, help="name of the run; the checkpoint gets it")
    parser.add_argument("--hparams", default="", help="configuration overrides: a.b=1,c=2")
    parser.add_argument("--reset", action="store_true", help="start anew, whatever an earlier run left")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--validate", action="store_true", help="evaluate the checkpoint on held-out frames")
    action.add_argument("--infer", action="store_true", help="write pictures of held-out frames")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = parse_arguments(argv)
    return exit_status(lambda: run(arguments), GOES_ON)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks.

    Raises:
        GeneFaceError: a configuration, dataset or checkpoint is missing or wrong.
    """
    if arguments.config is None and is_portrait_run(CHECKPOINTS / arguments.exp_name):
        _run_finished_portrait(arguments)
        return
    config_file = arguments.config or IDENTITIES / arguments.exp_name / "config.yaml"
    config = load_any(config_file, parse_hparams(arguments.hparams))
    if isinstance(config, RADNeRFTaskConfig):
        _run_radnerf(config, arguments)
    elif isinstance(config, EvaluationConfig):
        raise ConfigError(f"{config_file} configures an evaluation, which trains nothing; use bash scripts/evaluate.sh")
    elif isinstance(config, PortraitTaskConfig):
        _run_portrait(config, arguments)
    elif arguments.validate or arguments.infer:
        raise ConfigError("--validate and --infer are for heads and portraits; other tasks measure while they train")
    elif isinstance(config, PostNetTaskConfig):
        from tasks.postnet.postnet import train as train_postnet

        train_postnet(config, POSTNETS / arguments.exp_name, ConsoleProgress())
    else:
        from tasks.audio2motion.train import train as train_audio2motion

        train_audio2motion(config, CHECKPOINTS / arguments.exp_name, ConsoleProgress())


def _run_radnerf(config: RADNeRFTaskConfig, arguments: argparse.Namespace) -> None:
    from tasks.radnerfs import evaluate, radnerf

    out_dir = IDENTITIES / arguments.exp_name
    if arguments.validate:
        evaluate.evaluate_checkpoint(out_dir, config, ConsoleProgress())
    elif arguments.infer:
        evaluate.write_pictures(out_dir, config, ConsoleProgress())
    else:
        radnerf.train(config, out_dir, ConsoleProgress(), reset=arguments.reset)


def _run_portrait(config: PortraitTaskConfig, arguments: argparse.Namespace) -> None:
    from tasks.radnerfs import portrait

    out_dir = CHECKPOINTS / arguments.exp_name
    if arguments.validate or arguments.infer:
        _look_at_portrait(out_dir, config.device, arguments)
    else:
        portrait.train_portrait(config, out_dir, ConsoleProgress(), reset=arguments.reset)


def _run_finished_portrait(arguments: argparse.Namespace) -> None:
    """What can be done without the configuration of its training."""
    directory, overrides = CHECKPOINTS / arguments.exp_name, parse_hparams(arguments.hparams)
    if not (arguments.validate or arguments.infer):
        raise ConfigError(f"{directory} is a finished portrait; to train it again name its --config")
    unknown = sorted(set(overrides) - {"device"})
    if unknown:
        raise ConfigError(f"--hparams {unknown[0]}: of a finished portrait only device can be chosen")
    _look_at_portrait(directory, overrides.get("device", "auto"), arguments)


def _look_at_portrait(directory: Path, device: str, arguments: argparse.Namespace) -> None:
    from tasks.radnerfs import portrait_evaluate

    look = portrait_evaluate.evaluate_portrait if arguments.validate else portrait_evaluate.write_portrait_pictures
    look(directory, device, ConsoleProgress())


if __name__ == "__main__":
    raise SystemExit(main())
