"""When a checkpoint is saved: every so many steps or minutes, when somebody asks to stop, and after the last step."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from kit import ranks
from kit.checkpointing.adapter_weights import check_weights, restore_adapter
from kit.checkpointing.checkpoints import seal_checkpoint
from kit.checkpointing.mirror import Mirror
from kit.cli.signals import StopRequest
from kit.settings.knobs import Settings
from kit.storage.atomic import sync
from kit.storage.run_folder import RunFolder


def checkpointing(
    run: RunFolder, settings: Settings, stop: StopRequest, mirror: Mirror | None, start: str | None
) -> Any:
    """The callback that has TRL's trainer save, and that makes what it saved whole.

    The trainer writes into ``run.unfinished_checkpoint``, its ``output_dir``. With ``num_iterations`` above 1, TRL
    saves neither its step counter nor the completions that it still has to learn from, so a checkpoint waits until
    these are used up, or until no step is left. Set ``trainer`` on the callback before training; it resumes from the
    checkpoint ``start``.
    """
    from transformers import TrainerCallback

    class Checkpointing(TrainerCallback):
        trainer: Any = None

        def __init__(self) -> None:
            self.due = False
            self.saved_at = time.monotonic()

        def on_train_begin(self, *_, **__):
            # what a kill left there
            ranks.by_first(lambda: shutil.rmtree(run.unfinished_checkpoint, ignore_errors=True))
            if start:
                restore_adapter(self.trainer.model, Path(start))

        def on_step_end(self, args, state, control, **_):
            stops = ranks.agree_on(stop)
            ends = state.global_step >= state.max_steps or control.should_training_stop  # more steps may be asked for
            waited = ranks.told(time.monotonic() - self.saved_at)
            at_step = state.global_step % settings.save_steps == 0
            self.due |= at_step or waited > 60 * settings.save_minutes or stops
            used_up = self.trainer._step % (args.steps_per_generation * args.num_iterations) == 0
            if ends or (self.due and used_up):
                check_weights(self.trainer.model, state.global_step)
                control.should_save = True
                control.should_training_stop |= stops

        def on_save(self, args, state, *_, **__):
            ranks.wait()  # each process puts its random state there
            ranks.by_first(lambda: self.seal(args, state))
            self.due, self.saved_at = False, time.monotonic()

        def seal(self, args, state):
            partial = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (partial / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing reads
            for log in (run.metrics_file, run.samples_file):  # no step of the checkpoint may be missing there
                if log.exists():
                    sync(log)
            seal_checkpoint(partial, run.checkpoints, state.global_step, settings.keep_checkpoints)
            if mirror:
                mirror.update()

    return Checkpointing()
