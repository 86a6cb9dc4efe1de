"""One run from where it is to its end: policy, trainer, a good start, steps, and the adapter that it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit import ranks
from kit.checkpointing.adapter_weights import restore_adapter
from kit.checkpointing.mirror import Mirror
from kit.checkpointing.resuming import where_to_start
from kit.checkpointing.saving import checkpointing
from kit.cli.signals import StopRequest
from kit.models import loading
from kit.models.base_check import mend_padding, mend_thinking
from kit.planning.engine_choice import ROLLOUTS_WITHOUT, VllmNotLoaded
from kit.planning.plan import Plan
from kit.storage.hub import sixteen_bit_name
from kit.storage.run_folder import RunFolder
from kit.task.held_out import set_aside
from kit.task.questions import Row
from kit.task.reward_columns import with_columns
from kit.task.trained_questions import write_trained_on
from kit.task.user_rewards import Rewards, maxima
from kit.training.base_fetching import fetching
from kit.training.best_step import clear_bests
from kit.training.held_out import HeldOut
from kit.training.policy_engine import answering, policy_engine
from kit.training.preflight import rehearse
from kit.training.run_log import RunLog
from kit.training.run_record import describe_run, describe_trainer, save_weights
from kit.training.screening import screened
from kit.training.shared_engine import engine_of_all
from kit.training.step_progress import StepProgress
from kit.training.trainer import (
    as_dataset,
    build_trainer,
    forget_reference,
    go_on_in_order,
    prepare_reporting,
    that_fit,
    trainer_arguments,
)
from kit.training.warm_start import WarmStart


def train(
    plan: Plan,
    questions: list[Row],
    rewards: Rewards,
    run: RunFolder,
    mirror: Mirror | None,
    stop: StopRequest,
    report: Callable[[RunFolder], object],
) -> int:
    """Train from where the run is to its last step, or to where somebody stops it.

    Args:
        plan: with the settings.
        questions: all of them; those that the settings set aside are not trained on.
        rewards: functions and weights.
        run: the run folder.
        mirror: its copy, if there is to be one.
        stop: asked whether somebody wants to stop.
        report: writes the run's page.

    Returns:
        The step reached.

    Raises:
        UserError: anything that a user can mend.
    """
    functions, weights = rewards
    start, done = ranks.by_first(lambda: begun(run, describe_run(plan.settings, questions, functions, weights)))
    policy, tokenizer, plan = loading.load_for_training(plan)  # before TRL is imported: Unsloth patches it
    settings = plan.settings
    mended = "; ".join(filter(None, (mend_padding(tokenizer, settings.model), mend_thinking(tokenizer))))
    trained_on, others = set_aside(questions, settings.eval_questions, settings.seed)
    ranks.by_first(lambda: write_trained_on(run, trained_on))
    dataset = as_dataset(trained_on, tokenizer, settings)
    log, progress = RunLog(run, settings, done, maxima(functions), report), StepProgress()
    arguments = trainer_arguments(settings, plan.choice, weights, run, plan.layout)
    if plan.choice.card:
        rehearse(arguments, policy, tokenizer, dataset)
    else:
        progress.watch(policy, tokenizer)
    keeper = checkpointing(run, settings, stop, mirror, start)
    prepare_reporting(run)
    held_out = HeldOut(that_fit(others, tokenizer, settings), settings, run, log)
    recorded = [with_columns(log.recording(function), trained_on) for function in functions]
    written_down = [log.callback()] if ranks.is_first() else []
    callbacks = [progress.callback(), held_out.callback(), *written_down, keeper]
    trainer, plan, arguments = _built(plan, arguments, run, weights, policy, tokenizer, dataset, recorded, callbacks)
    keeper.trainer = trainer
    if start:
        go_on_in_order(trainer, Path(start))

    at_once = plan.settings.completions_per_card
    engine = engine_of_all(lambda: policy_engine(trainer, tokenizer, at_once), policy, at_once)
    held_out.engine = engine
    warm = WarmStart(settings, run, [trained_on[row] for row in dataset["row"]], rewards, arguments, stop)
    record = describe_run(plan.settings, questions, functions, weights)
    record |= describe_trainer(plan, arguments, trainer, mended)
    ranks.by_first(lambda: run.write(record | warm.facts()))
    with stop.listening(), fetching(sixteen_bit_name(settings.model), stop):
        with answering(policy):
            rows = screened(trainer.train_dataset, trained_on, engine, tokenizer.chat_template, settings, run, stop)
        trainer.train_dataset = rows
        if mirror:
            mirror.update()
        if not ranks.agree_on(stop) and start is None:
            held_out.begin(policy, tokenizer, lambda: warm.begin(policy, tokenizer, engine))
            ranks.by_first(lambda: run.write(record | warm.facts()))
            if mirror:  # it may be long until the first checkpoint
                mirror.update()
        reached, stands_still = done, False
        if start and done >= settings.max_steps:  # a kill came between its last checkpoint and its adapter
            restore_adapter(policy, Path(start))
        elif not ranks.agree_on(stop):
            trainer.train(resume_from_checkpoint=start)
            reached = trainer.state.global_step
            stopped = ranks.agree_on(stop)
            stands_still = ranks.told(held_out.stands_still) and not stopped

        def finish() -> None:
            if reached >= settings.max_steps or stands_still:
                run.write(run.read() | {"adapter": held_out.take_best(policy, reached)})
                save_weights(policy, tokenizer, run.adapter)  # which says that the run is finished
                clear_bests(run)

        ranks.by_first(finish)  # before what is still being fetched is waited for
    return reached


def begun(run: RunFolder, record: dict[str, Any]) -> tuple[str | None, int]:
    """Where the run starts, its folder brought back to there, and what it is written into it."""
    start, done = where_to_start(run, ranks.count())
    clear_bests(run, after=done)
    run.write(record)
    return start, done


def _built(
    plan: Plan, arguments: dict[str, Any], run: RunFolder, weights: list[float], policy: Any, *parts: Any
) -> tuple[Any, Plan, dict[str, Any]]:
    """The trainer, with the plan and the arguments that hold: others, where vLLM does not load on a processor."""
    trainer, reason = None, ""
    try:
        trainer = build_trainer(arguments, policy, *parts)
    except VllmNotLoaded as error:
        reason = str(error)
    reason = next(filter(None, ranks.gathered(reason)), "")
    if not reason:
        return trainer, plan, arguments
    if plan.settings.vllm == "require":
        raise VllmNotLoaded(reason)
    print(f"{reason}: {ROLLOUTS_WITHOUT}.")
    plan = plan.without_vllm()
    arguments = trainer_arguments(plan.settings, plan.choice, weights, run, plan.layout)
    forget_reference(policy)
    return build_trainer(arguments, policy, *parts), plan, arguments
