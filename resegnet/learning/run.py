"""The state of a training run, and the steps that change it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from resegnet.engine import TorchNetwork, cpu_has_fast_bfloat16
from resegnet.errors import TrainingError
from resegnet.learning.anatomy import AnatomySample
from resegnet.learning.crops import Crops, WorkingSample, identity_collate
from resegnet.learning.looks import ANATOMY_EVERY, LookBatch, LookCrops
from resegnet.learning.losses import bce_dice_loss, centreline_loss, kinds_loss, spot_loss
from resegnet.learning.options import TrainingOptions
from resegnet.learning.validation import score_validation
from resegnet.model import ReSegNet
from resegnet.segmenter import predict
from resegnet.two_looks import TwoLooks

# Weights in the loss of two looks: in the first tenth of the epochs, and from then on. Few crops of a step show a disc,
# a fovea or labelled kinds, and their gradients are large and noisy: with disc and fovea at three times the early
# weights, the context branch did not begin to find vessels in 500 steps. Once it has, it can learn the rest.
_CONTEXT_WEIGHT = 1.0
_EARLY_SHARE = 0.1
_EARLY_WEIGHTS = {"kinds": 0.3, "disc": 0.1, "fovea": 0.1}
_LATE_WEIGHTS = {"kinds": 1.0, "disc": 0.2, "fovea": 0.5}
_CHECK_EVERY = 20  # batches between two checks that the loss is finite


class Run:
    """State of a training run, which a checkpoint holds, and the steps that change it.

    Several processes that `torchrun` started can train together. Each takes its share of the crops of a step; only the
    first one validates and writes files.

    Attributes
    ----------
    epoch : int
        Number of finished epochs.
    best_score : float
        Highest validation score so far, see `validate`; -1 before the first validation.
    best_epoch : int
        Epoch whose weights are kept.
    """

    def __init__(self, options: TrainingOptions) -> None:
        self.options = options
        parallel = distributed.is_initialized()
        self.rank = distributed.get_rank() if parallel else 0
        self.processes = distributed.get_world_size() if parallel else 1
        self.crops_per_step = options.batch_size * options.accumulate * self.processes
        self.device = torch.device(options.device)
        if parallel and self.device.type == "cuda":
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        self.model = ReSegNet(options.config())
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch
        # DistributedDataParallel averages the gradients. Parameters without a gradient have to be allowed: an encoder
        # keeps the stages beyond `encoder_depth`, but does not use them.
        self.network: nn.Module = (
            DistributedDataParallel(self.model, find_unused_parameters=True) if parallel else self.model
        )
        self._average = AveragedModel(self.model, multi_avg_fn=averaging(options.average_decay), use_buffers=True)
        self.optimizer = _make_optimizer(self.model, options, fused=self.device.type == "cuda")
        self.schedule = _make_schedule(self.optimizer, options)
        kind = self.device.type
        self.autocast = torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" or cpu_has_fast_bfloat16())
        self.epoch = 0
        self.best_score = -1.0
        self.best_epoch = 0

    @property
    def averaged_model(self) -> ReSegNet:
        """Network with the running average of the weights, which is validated and released."""
        return cast(ReSegNet, self._average.module)

    @property
    def finished(self) -> bool:
        """True after the last epoch, or if validation has not improved for `patience` epochs."""
        waited = self.epoch - max(self.best_epoch, self.options.context_epochs)
        return self.epoch >= self.options.epochs or waited >= self.options.patience

    @property
    def steps_done(self) -> int:
        """Number of steps in the finished epochs."""
        return self.epoch * self.options.steps_per_epoch

    def state(self) -> dict[str, Any]:
        """Return the state as tensors and plain values only, so that it loads with `weights_only=True`."""
        return {
            "model": self.model.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": torch.get_rng_state(),
            "epoch": self.epoch,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "processes": self.processes,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a state that `state` returned.

        Raises
        ------
        TrainingError
            If a different number of processes made it: they would train on other crops.
        """
        if state.get("processes", 1) != self.processes:
            raise TrainingError(
                f"{state.get('processes', 1)} processes started this run, but {self.processes} resume it. Start "
                "torchrun with the same number."
            )
        self.model.load_state_dict(state["model"])
        self._average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["generator"].cpu())
        self.epoch, self.best_score, self.best_epoch = state["epoch"], state["best_score"], state["best_epoch"]

    def restart_average(self) -> None:
        """Set the averaged weights to the current weights."""
        self.averaged_model.load_state_dict(self.model.state_dict())
        self._average.n_averaged.zero_()

    def _continue_from_average(self) -> None:
        """Set the weights to their average: it is better than the weights of one step, and a branch may now be kept.

        The average begins anew, because a branch that begins to learn changes faster than it follows.
        """
        self.model.load_state_dict(self.averaged_model.state_dict())
        self._average.n_averaged.zero_()

    def crops(
        self,
        samples: Sequence[WorkingSample],
        extra: Sequence[WorkingSample] = (),
        anatomy: Sequence[AnatomySample] = (),
    ) -> Crops | LookCrops:
        """Return the crops for `train_epoch`. Without worker processes they are made on the device that trains."""
        options = self.options
        strong_epochs = round((1 - options.weak_augmentation_share) * options.epochs)
        weak_from = strong_epochs * options.steps_per_epoch * self.crops_per_step
        device = "cpu" if options.workers else self.device
        if options.context_size is None:
            return Crops(samples, options.crop_size, options.seed, weak_from, extra, device)
        sizes = (options.crop_size, options.context_crop_size)
        detail_from = (options.epochs - options.detail_epochs) * options.steps_per_epoch * self.crops_per_step
        context_until = options.context_epochs * options.steps_per_epoch * self.crops_per_step
        return LookCrops(
            samples, anatomy, self.model.config, sizes, options.seed, weak_from, device, detail_from, context_until
        )

    def train_epoch(self, crops: Crops | LookCrops) -> dict[str, float]:
        """Train one epoch.

        Returns
        -------
        record
            Mean `loss`, for two looks its parts, final `learning_rate`, `seconds`, and the share of them
            `waited_for_data`.

        Raises
        ------
        TrainingError
            If the loss becomes nan or infinite.
        """
        if self.epoch in (self.options.context_epochs, self.options.epochs - self.options.detail_epochs):
            self._continue_from_average()
        self._set_training_mode()
        losses: list[torch.Tensor] = []  # kept on the device: reading each one would make it wait
        part_losses: dict[str, list[torch.Tensor]] = {}  # of two looks
        waited, started = 0.0, time.perf_counter()
        asked = started
        desc = f"epoch {self.epoch + 1}/{self.options.epochs}"
        batches = tqdm(self._batches(crops), desc=desc, unit="batch", leave=False, disable=True if self.rank else None)
        for number, batch in enumerate(batches, 1):
            waited += time.perf_counter() - asked
            if isinstance(batch, LookBatch):
                parts = self._look_losses(batch)
                for name, part in parts.items():
                    part_losses.setdefault(name, []).append(part.detach())
                loss = torch.stack(list(parts.values())).sum()
            else:
                loss = self._loss(*batch)
            (loss / self.options.accumulate).backward()
            losses.append(loss.detach())
            if number % self.options.accumulate == 0:
                self._step()
            if number % _CHECK_EVERY == 0 or number == len(batches):
                latest = torch.stack(losses[-_CHECK_EVERY:]).mean().item()
                batches.set_postfix(loss=f"{latest:.3f}")
                self._check_finite(latest)
            asked = time.perf_counter()
        seconds = time.perf_counter() - started
        self.epoch += 1
        return {
            "loss": torch.stack(losses).mean().item(),
            **{f"loss_{name}": torch.stack(parts).mean().item() for name, parts in part_losses.items()},
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(seconds, 2),
            "waited_for_data": round(waited / seconds, 4),
        }

    @property
    def _detail_only(self) -> bool:
        """True in the epochs in which only the detail branch learns."""
        return self.epoch >= self.options.epochs - self.options.detail_epochs

    def _set_training_mode(self) -> None:
        self.model.train()
        if self._detail_only:
            net = cast(TwoLooks, self.model.net)
            for part in (net.context, net.context_head):
                part.requires_grad_(False).eval()
        if self.options.freeze_norm:
            for part in self.model.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()

    def _batches(self, crops: Crops | LookCrops) -> DataLoader[Any]:
        """Return this process's batches of the next epoch."""
        first = self.steps_done * self.crops_per_step
        end = first + self.options.steps_per_epoch * self.crops_per_step
        return DataLoader(
            crops,
            batch_size=self.options.batch_size,
            sampler=range(first + self.rank, end, self.processes),
            num_workers=self.options.workers,
            collate_fn=cast(Callable[[list[Any]], Any], identity_collate),
            pin_memory=self.device.type == "cuda" and self.options.workers > 0,
        )

    def _loss(self, image: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of a batch, image (N, 3, C, C) and masks (N, 3, C, C) as `Crops` gives them."""
        image = image.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        masks = masks.to(self.device, non_blocking=True)
        with self.autocast:
            logits = self.network(image)
        return self._vessel_loss(logits.float(), masks)

    def _look_losses(self, batch: LookBatch) -> dict[str, torch.Tensor]:
        """Return the weighted scalar losses of a batch of two looks, by what they are of."""
        batch = batch.to(self.device)
        with self.autocast:
            logits, context_logits = self.network(batch.detail, batch.context, batch.places)
        losses = {}
        if batch.detail_masks is not None:
            losses["vessels"] = self._vessel_loss(logits.float(), batch.detail_masks)
        if self._detail_only:
            return losses
        weights = _EARLY_WEIGHTS if self.epoch < _EARLY_SHARE * self.options.epochs else _LATE_WEIGHTS
        count = len(batch.context_masks)
        of_vessels, of_eyes = context_logits[:count].float(), context_logits[count:].float()
        vessels, fov = batch.context_masks[:, :1], batch.context_masks[:, 1:2]
        losses["context"] = _CONTEXT_WEIGHT * bce_dice_loss(of_vessels[:, :1], vessels, fov, self.options.dice_weight)
        kinds = torch.cat([batch.context_masks[:, 2:], batch.anatomy_masks[:, 4:]])
        losses["kinds"] = weights["kinds"] * kinds_loss(context_logits[:, 1:3].float(), kinds)
        if len(of_eyes):
            disc, disc_weight, fovea, fovea_weight = batch.anatomy_masks[:, :4].split(1, dim=1)
            # With several processes or small batches, some have more of these crops and some none. Their mean counts.
            share = len(of_eyes) * ANATOMY_EVERY / count
            losses["disc"] = share * weights["disc"] * bce_dice_loss(of_eyes[:, 3:4], disc, disc_weight)
            losses["fovea"] = share * weights["fovea"] * spot_loss(of_eyes[:, 4:5], fovea, fovea_weight)
        return losses

    def _vessel_loss(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of logits (N, 1, C, C) float32 against masks (N, 3, C, C)."""
        vessels, fov, centrelines = masks.split(1, dim=1)
        loss = bce_dice_loss(logits, vessels, fov, self.options.dice_weight)
        if self.options.centreline_weight:
            loss = loss + self.options.centreline_weight * centreline_loss(logits, centrelines, fov)
        return loss

    def _step(self) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if isinstance(self.schedule, LambdaLR):
            self.schedule.step()
        self._average.update_parameters(self.model)

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} in epoch {self.epoch + 1}. Try a --learning-rate below "
                f"{self.options.learning_rate}; the last checkpoint is kept."
            )

    def validate(self, samples: Sequence[WorkingSample], anatomy: Sequence[AnatomySample] = ()) -> dict[str, float]:
        """Score the averaged weights at the working size, and note whether this epoch is the best.

        Without samples every scored epoch counts as the best so far. With `validate_every`, some are not scored.

        Returns
        -------
        scores
            `validation_f1`, the mean of the data sets' pooled F1 at the best common threshold, and
            `validation_f1_<data set>`, each at its own best threshold. With `choose_by` "f1-and-stress" also
            `validation_stress`, the lowest of the same mean over a few degraded photographs of each data set, at the
            same threshold (see `resegnet.learning.validation.VALIDATION_STRESSES`), and the best epoch is that of the
            highest mean of the two. For two looks also `validation_kinds`, the share of labelled vessel pixels whose
            kind is right, and `validation_disc` and `validation_fovea`, see
            `resegnet.learning.anatomy_scores.score_centres`. Empty without samples, and if the epoch is not scored,
            as while the context branch learns alone.
        """
        if self.epoch <= self.options.context_epochs:
            return {}
        if not samples:
            self.best_epoch = self.epoch
            return {}
        if self.epoch % self.options.validate_every and self.epoch < self.options.epochs:
            return {}
        found: list[dict[str, float]] = [{}]
        if self.rank == 0:
            found[0] = score_validation(
                self.averaged_model,
                samples,
                anatomy,
                under_stress=self.options.choose_by == "f1-and-stress",
                bfloat16=cpu_has_fast_bfloat16(),
            )
        if self.processes > 1:
            distributed.broadcast_object_list(found)
        scores = found[0]
        score = (scores["validation_f1"] + scores.get("validation_stress", scores["validation_f1"])) / 2
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(score)
        if score > self.best_score:
            self.best_score, self.best_epoch = score, self.epoch
        return {name: round(value, 5) for name, value in scores.items()}

    def predict(self, sample: WorkingSample) -> np.ndarray:
        """Return the probability (S, S) float32 of a photograph at the working size, by the averaged weights."""
        network = TorchNetwork(self.averaged_model, bfloat16=cpu_has_fast_bfloat16())
        return predict(network, sample.pixels, sample.look)[0]


def _make_optimizer(model: nn.Module, options: TrainingOptions, fused: bool) -> torch.optim.Optimizer:
    make = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return make(model.parameters(), options.learning_rate, weight_decay=options.weight_decay, fused=fused)


def _make_schedule(optimizer: torch.optim.Optimizer, options: TrainingOptions) -> LambdaLR | ReduceLROnPlateau:
    if options.schedule == "cosine":
        return LambdaLR(optimizer, _warm_up_and_cosine(options.epochs * options.steps_per_epoch))
    return ReduceLROnPlateau(optimizer, "max", factor=0.5, patience=3)


def _warm_up_and_cosine(steps: int) -> Callable[[int], float]:
    """Return a function of the step that gives the factor on the learning rate."""
    warm_up = max(1, round(0.05 * steps))

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, steps - warm_up))))

    return factor


Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


def averaging(decay: float) -> Callable[[Tensors, Tensors, torch.Tensor | int], None]:
    """Return a function that updates a running average of tensors in place, for `AveragedModel`.

    The first averages decay faster: otherwise the random start would keep a large share in them.
    """

    def update(average: Tensors, new: Tensors, count: torch.Tensor | int) -> None:
        share = min(decay, (1 + int(count)) / (10 + int(count)))
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, new, 1 - share)  # a lerp leaves constants exactly as they are
        else:
            torch._foreach_copy_(average, new)  # batch normalisation counts its batches in integers

    return update
