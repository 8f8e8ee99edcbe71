"""The shared runner: TRL's `GRPOTrainer`, thinly subclassed, so that rewards differ and nothing else does.

Where it departs from TRL as it comes, all of it:

1. Rewards are checked (one finite number a completion) before they touch an advantage; a bad one ends the run with the
   examples named. TRL drops NaN rewards in silence.
2. Raw rewards are divided by their standard deviation over the whole batch, because metagradients are near 1e-9 and
   the advantage's epsilon (1e-6 in verl) would swallow them. Raw and rescaled are both logged.
   `grpo.rescale=false` takes advantages of the raw ones, as the authors do.
3. Advantages come from harness/training/advantages.py: one mean and deviation a group, or one for the whole batch
   ("groupless", what `naive` needs; TRL has only the deviation of it). The epsilon is a setting.
4. A step of this harness is one rollout batch with `updates_per_step` optimizer updates; TRL counts updates.
5. A learning rate without warm-up, no KL model; schedule (constant by default), loss, clipping and entropy bonus (off
   by default) are named in the profile.
6. harness/training/generation.py makes the rollouts, unless vLLM does. A bfloat16 generator keeps float32 weights and
   optimizer state, computes in bfloat16 (autocast) and generates with a bfloat16 copy. The old log-probabilities of a
   float32 generator are those that its tokens were drawn with; TRL reads every rollout once more for them.
7. With `generator.true_positions` the update sees a prompt's tokens at their true positions. TRL leaves out position
   ids, so that a model with absolute positions (GPT-2) is trained at positions shifted by the padding of its batch.
8. With `grpo.shared_prompts` the update reads each prompt once for its whole group and shuffles groups, not rollouts
   (harness/training/shared_prompts.py).
9. Where a reward credits characters (`reward.options.credit=token`), every token has its own advantage
   (harness/training/credit.py).
10. Generator and target take turns on the device where both do not fit (harness/training/offload.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from accelerate.utils import gather
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from harness.contracts import Advantage, HarnessError, RewardFunction, SignalError, completion_text
from harness.machine import processes
from harness.machine.stopping import within
from harness.settings.schema import GeneratorSettings, GrpoSettings
from harness.training import packed
from harness.training.advantages import advantages, check_rewards, moments, rescale, zero_spread
from harness.training.checks import check_advantages
from harness.training.credit import check_credits, token_advantages, token_credits
from harness.training.decoding import fits
from harness.training.prompts import Prompt
from harness.training.resume import Resumable
from harness.training.seeds import rollout_seed
from harness.training.shared_prompts import group_order, log_probs, reorder
from harness.training.steps import KeptRollout, RolloutStats, StepReport, places

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.training.generation import Bfloat16Copy
    from harness.training.offload import Offloader

ADAM_EPSILON = 1e-8
"""Of the generator's AdamW: torch's default; the paper (Appendix E) names no other."""


@dataclass(frozen=True)
class RewardCall:
    """What one call of the reward gave.

    raw      rewards of this process's completions, as the reward gave them
    credits  what every character of every completion of all processes earned; None where the reward does not say
    """

    raw: list[float]
    credits: Sequence[Sequence[float]] | None


@dataclass(frozen=True)
class ScoredRollouts:
    """Rewards of a rollout batch, of all processes.

    raw, rescaled  (N,) float64
    token_credits  what every token of every completion earned; None where a rollout has one advantage
    """

    raw: torch.Tensor
    rescaled: torch.Tensor
    token_credits: list[list[float]] | None


class CheckedReward:
    """The reward as TRL calls it: a function of all rollouts of the step, checked. TRL rounds what it returns to
    float32; `last` is what the last call gave."""

    def __init__(self, reward: RewardFunction, seconds: float | None = None) -> None:
        self._function, self._seconds = reward, seconds
        self.__name__ = getattr(reward, "__name__", "reward")
        self.last: RewardCall | None = None

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float]:
        count, first = len(completions), 0
        if processes.world_size() > 1:
            rows = {"prompts": prompts, "completions": completions, **columns}
            columns |= {
                name: processes.gather_rows(column)
                for name, column in rows.items()
                if isinstance(column, list) and len(column) == count
            }
            prompts, completions = columns.pop("prompts"), columns.pop("completions")
            first = count * processes.rank()
        credits: list[Sequence[Sequence[float]]] = []  # a reward that credits characters calls its `append` once
        late = SignalError(f"The reward '{self.__name__}' took more than reward.seconds={self._seconds}; raise it.")
        with within(self._seconds, late):
            values = self._function(
                prompts=prompts, completions=completions, credit_characters=credits.append, **columns
            )
        raw = check_rewards(self.__name__, values, completions)[first : first + count]
        self.last = RewardCall(raw, credits[-1] if credits else None)
        return raw


class GeneratorTrainer(Resumable, GRPOTrainer):
    """See the module's docstring for every departure from TRL.

    sampling  the generator's settings where the harness draws the rollouts itself; None: vLLM does
    """

    def __init__(
        self,
        *,
        reward: RewardFunction,
        advantage: Advantage,
        grpo: GrpoSettings,
        sampling: GeneratorSettings | None = None,
        bfloat16_copy: Bfloat16Copy | None = None,
        offloader: Offloader | None = None,
        keep: int | str = 0,
        reward_seconds: float | None = None,
        **kwargs: Any,
    ) -> None:
        self._advantage, self._grpo, self._keep = advantage, grpo, keep
        self._sampling, self._bfloat16_copy, self._offloader = sampling, bfloat16_copy, offloader
        self.seconds = {"generation": 0.0, "reward": 0.0}
        self.rollout_stats: RolloutStats | None = None
        self._reward = CheckedReward(reward, reward_seconds)
        self._scored: ScoredRollouts | None = None
        self._written: tuple[list[Any], list[str], list[list[int]]] | None = None
        """Prompts, texts and tokens of the batch, of all processes, where some are kept."""
        self.kept: list[KeptRollout] = []
        self._drawn: list[list[float]] | None = None
        super().__init__(reward_funcs=self._reward, **kwargs)

    @contextmanager
    def _timed(self, phase: str) -> Any:
        start = time.perf_counter()
        try:
            yield
        finally:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds[phase] += time.perf_counter() - start

    def _activate(self, name: str) -> None:
        if self._offloader is not None:
            self._offloader.activate(name)

    def _generate(self, prompts: list) -> Any:
        with self._timed("generation"):
            self._activate("generator")
            return super()._generate(prompts)

    def _generate_single_turn(self, prompt_ids: list, *args: Any, **kwargs: Any) -> Any:
        if self._sampling is None:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        from harness.training.generation import sample

        model = self._bfloat16_copy.current() if self._bfloat16_copy else self.accelerator.unwrap_model(self.model)
        first = self.accelerator.process_index * len(prompt_ids)
        seed = rollout_seed(self.args.seed, self.state.global_step)
        rollouts = sample(model, self.processing_class, prompt_ids, self._sampling, seed=seed, first_row=first)
        # Without true positions an update reads other positions than the rollouts were drawn at, and in bfloat16 a copy
        # of the weights drew them.
        same = self._bfloat16_copy is None and (self._grpo.shared_prompts or self._sampling.true_positions)
        self._drawn = rollouts.log_probs if same else None
        return rollouts.tokens, None

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if not (self._grpo.shared_prompts and self.model.training):
            return super()._prepare_inputs(generation_batch)
        parts = self.args.steps_per_generation
        if self._step % parts == 0 or self._buffered_inputs is None:
            scored = self._generate_and_score_completions(generation_batch)
            order = group_order(len(scored["advantages"]), self.num_generations)
            self._buffered_inputs = split_tensor_dict(reorder(scored, order), parts)
        return self._buffered_inputs[self._step % parts]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if self._drawn is not None and model is self.model and not torch.is_grad_enabled():
            drawn = [torch.tensor(row, dtype=torch.float32, device=input_ids.device) for row in self._drawn]
            found = pad_sequence(drawn, batch_first=True)
            return F.pad(found, (0, logits_to_keep - found.shape[1])), None, None
        if not self._grpo.shared_prompts or input_ids.shape[1] - logits_to_keep < 2:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        size = kwargs.get("batch_size") or len(input_ids)
        pieces = zip(input_ids.split(size), attention_mask.split(size), strict=True)
        if self._packs(model):
            parts = [packed.log_probs(model, *piece, logits_to_keep, self.temperature) for piece in pieces]
        else:
            with self.accelerator.autocast():
                parts = [log_probs(model, *piece, logits_to_keep) for piece in pieces]
        found, entropies = zip(*parts, strict=True)
        return torch.cat(found), torch.cat(entropies) if kwargs.get("compute_entropy") else None, None

    def _packs(self, model: Any) -> bool:
        """Whether an update is one packed pass: in one process, in float32 on a CPU, without an entropy bonus."""
        alone = model is self.accelerator.unwrap_model(model) and self._bfloat16_copy is None
        known = alone and model.device.type == "cpu" and fits(model)
        return known and model.get_output_embeddings().bias is None and not self._entropy_bonus_enabled

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        with self._timed("reward"):
            self._activate("target")
            stored = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            self._activate("generator")
        # TRL stores float32, which would round away what tells naive's training sets apart: gather the floats as given.
        call = self._reward.last
        raw = gather(torch.tensor(call.raw, dtype=torch.float64, device=stored.device))
        rescaled, credits = rescale(raw), call.credits
        texts, ids = [completion_text(completion) for completion in completions], completion_ids_list
        if processes.world_size() > 1:
            texts, ids, prompts = (processes.gather_rows(each) for each in (texts, ids, prompts))
        self._written = (prompts, texts, ids) if self._keep else None
        if credits is not None:
            check_credits(self._reward.__name__, credits, texts)
            credits = token_credits(self.processing_class, ids, texts, credits)
        self._scored = ScoredRollouts(raw, rescaled, credits)
        texts = [text.strip() for text in texts]
        mean, deviation = moments(raw)
        self.rollout_stats = RolloutStats(
            rollouts=len(rescaled),
            reward_raw_mean=mean,
            reward_raw_std=deviation,
            reward_scaled_mean=float(rescaled.mean()),
            reward_scaled_std=float(rescaled.std()),
            zero_spread=zero_spread(rescaled, self.num_generations),
            empty_fraction=sum(not text for text in texts) / len(texts),
            distinct_fraction=len(set(texts)) / len(texts),
        )
        return rescaled.to(stored.dtype).unsqueeze(1)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)  # calls `_calculate_rewards`
        self._drawn = None
        grpo, scored = self._grpo, self._scored
        count, rank = len(inputs), self.accelerator.process_index
        if scored.token_credits is not None:
            width = output["completion_ids"].shape[1]
            widest = max(width, *map(len, scored.token_credits))  # each rank pads to its own longest completion
            of_all_ranks = token_advantages(scored.token_credits, widest, grpo.credit_discount, grpo.advantage_eps)
            of_all_ranks = of_all_ranks[:, :width]
        else:
            source = scored.rescaled if grpo.rescale else scored.raw
            of_all_ranks = advantages(
                source, self.num_generations, self._advantage, grpo.advantage_eps, grpo.scale_rewards
            )
        of_all_ranks = of_all_ranks.to(output["advantages"])
        size = self.num_generations if self._advantage == "group" else len(scored.rescaled)
        check_advantages(of_all_ranks, zero_spread(scored.rescaled, size))
        self.kept = self._kept_rollouts(of_all_ranks)
        output["advantages"] = of_all_ranks[rank * count : (rank + 1) * count]
        return output

    def _kept_rollouts(self, of_all_ranks: torch.Tensor) -> list[KeptRollout]:
        """Some of the batch, with rewards and advantages ((N,), or (N, tokens) where each token has its own)."""
        if self._written is None:
            return []
        from harness.training.generation import finishes, stop_tokens

        prompts, texts, ids = self._written
        stop = stop_tokens(self.accelerator.unwrap_model(self.model), self.processing_class)
        found = []
        for i in places(len(texts), self._keep):
            row = of_all_ranks[i]
            advantage = float(row[: max(1, len(ids[i]))].mean()) if row.dim() else float(row)
            (finish,) = finishes([ids[i]], stop)
            found.append(KeptRollout(i, prompts[i], texts[i], finish, float(self._scored.raw[i]), advantage))
        return found


class StepCallback(TrainerCallback):
    """Turns TRL's update log into one report a GRPO step. What is done with a report is no part of a step's time."""

    def __init__(self, trainer: GeneratorTrainer, updates: int, on_step: Callable[[StepReport], None]) -> None:
        self.trainer, self.updates, self.on_step = trainer, updates, on_step
        self._begin()

    def _begin(self) -> None:
        self.begun, self.before = time.perf_counter(), dict(self.trainer.seconds)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs and state.global_step % self.updates == 0:
            seconds = {phase: self.trainer.seconds[phase] - before for phase, before in self.before.items()}
            seconds["update"] = time.perf_counter() - self.begun - sum(seconds.values())
            step, kept = state.global_step // self.updates, self.trainer.kept
            self.on_step(StepReport(step, self.trainer.rollout_stats, logs, seconds, kept))
            self._begin()


def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    reward: RewardFunction,
    *,
    advantage: Advantage,
    generator: GeneratorSettings,
    grpo: GrpoSettings,
    seed: int,
    scratch: str,
    on_step: Callable[[StepReport], None],
    report_to: str = "none",
    bfloat16_copy: Bfloat16Copy | None = None,
    offloader: Offloader | None = None,
    keep: int | str = 0,
    reward_seconds: float | None = None,
) -> GeneratorTrainer:
    """A trainer ready for `.train()`. `on_step(report)` is called after each GRPO step, with `keep` of its rollouts.
    `bfloat16_copy` is given of a bfloat16 generator, whose `model` is float32. `offloader` knows the roles "generator"
    and "target".

    Raises HarnessError if the model cannot hold prompt + completion or the settings do not divide.
    """
    longest = getattr(model.config, "max_position_embeddings", None)
    needed = generator.max_prompt_tokens + generator.max_completion_tokens
    if longest and needed > longest:
        raise HarnessError(
            f"The generator reads {longest} tokens, but generator.max_prompt_tokens + max_completion_tokens is "
            f"{needed}; lower them."
        )
    if len(prompts) < grpo.prompts_per_step:
        raise HarnessError(
            f"There are {len(prompts)} training articles but grpo.prompts_per_step is {grpo.prompts_per_step}; "
            "add articles or lower it."
        )
    trainer = GeneratorTrainer(
        reward=reward,
        advantage=advantage,
        grpo=grpo,
        sampling=generator if generator.backend == "transformers" else None,
        bfloat16_copy=bfloat16_copy,
        offloader=offloader,
        keep=keep,
        reward_seconds=reward_seconds,
        model=model,
        args=trl_settings(generator, grpo, seed=seed, scratch=scratch, report_to=report_to),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=tokenizer,
    )
    if generator.true_positions:
        trainer.accelerator.unwrap_model(trainer.model).register_forward_pre_hook(_true_positions, with_kwargs=True)
    trainer.add_callback(StepCallback(trainer, grpo.updates_per_step, on_step))
    trainer.remove_callback(PrinterCallback)  # the harness reports progress itself
    return trainer


def trl_settings(
    generator: GeneratorSettings, grpo: GrpoSettings, *, seed: int, scratch: str, report_to: str
) -> GRPOConfig:
    """The settings in TRL's words. Rewards come rescaled, so TRL is told not to scale them."""
    per_update = grpo.rollouts_per_step // grpo.updates_per_step
    world = processes.world_size()
    microbatch = grpo.backward_size(world)
    accumulation = per_update // (microbatch * world)
    return GRPOConfig(
        output_dir=scratch,
        seed=seed,
        data_seed=seed,
        report_to=report_to,
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="steps",
        logging_steps=grpo.updates_per_step,
        use_cpu=not torch.cuda.is_available(),
        bf16=generator.dtype == "bfloat16",
        fp16=False,
        gradient_checkpointing=False,
        disable_dropout=True,
        dataloader_pin_memory=False,
        max_steps=grpo.steps * grpo.updates_per_step,
        per_device_train_batch_size=microbatch,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=grpo.updates_per_step * accumulation,
        num_generations=grpo.rollouts_per_prompt,
        num_iterations=1,
        max_completion_length=generator.max_completion_tokens,
        temperature=generator.temperature,
        beta=grpo.kl,
        entropy_coef=grpo.entropy_coef,
        learning_rate=grpo.lr,
        **_schedule(grpo),
        warmup_steps=0,
        optim="adamw_torch_fused",
        adam_beta1=grpo.betas[0],
        adam_beta2=grpo.betas[1],
        adam_epsilon=ADAM_EPSILON,
        weight_decay=grpo.weight_decay,
        max_grad_norm=grpo.max_grad_norm,
        loss_type=grpo.loss,
        epsilon=grpo.clip_low,
        epsilon_high=grpo.clip_high,
        delta=grpo.dual_clip,
        scale_rewards="none",
        log_completions=False,
        logging_nan_inf_filter=False,  # it would put the last average in the place of a NaN loss
        **_vllm(generator),
    )


def _schedule(grpo: GrpoSettings) -> dict[str, Any]:
    """transformers' names of a schedule of the learning rate over all updates."""
    if grpo.lr_schedule != "late_linear":
        return {"lr_scheduler_type": grpo.lr_schedule}
    falling = {"num_decay_steps": math.ceil(grpo.steps / 3) * grpo.updates_per_step, "decay_type": "linear"}
    return {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": falling}


def _true_positions(module: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Adds position ids that do not count padding, where a caller gives a mask and nothing else to tell them from."""
    mask = kwargs.get("attention_mask")
    if mask is not None and mask.dim() == 2 and all(kwargs.get(k) is None for k in ("position_ids", "past_key_values")):
        kwargs = kwargs | {"position_ids": (mask.cumsum(-1) - 1).clamp_min(0)}
    return args, kwargs


def _vllm(generator: GeneratorSettings) -> dict[str, Any]:
    """TRL's own settings of vLLM inside the training process: asleep while something else works, given the weights anew
    after every step, and corrected for its sampling probabilities, which are those of other kernels than the
    trainer's."""
    from harness.training.generation import check_backend

    check_backend(generator)
    if generator.backend == "transformers":
        return {}
    length = generator.max_prompt_tokens + generator.max_completion_tokens
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_enable_sleep_mode": True,
        "vllm_max_model_length": length,
        # TRL's defaults, named: a rollout whose probability differs more than threefold does not count.
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": "sequence_mask",
        "vllm_importance_sampling_clip_max": 3.0,
    }
