"""The demo's trainer: nothing is simulated.

The network learns addition modulo 97, a known small task, first from examples and then by policy gradient, with AdamW
on float32 master weights at a learning rate of 3e-6, as language models are post-trained. Such a step is smaller than
the distance between most neighbouring bfloat16 numbers, so that about one published weight in a hundred changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float32]
_Integers = NDArray[np.int64]

_MODULUS, _WIDTH, _LAYERS = 97, 1024, 3
_WARMUP, _WARMUP_BATCH, _WARMUP_RATE = 80, 256, 1e-3
#: Of an RL step: sums to answer, answers for each, and the learning rate.
_SUMS, _ANSWERS, _RL_RATE = 64, 8, 3e-6


@dataclass(frozen=True)
class Checkpoint:
    """The bfloat16 weights after one step, as a trainer hands them to inference engines."""

    step: int
    weights: dict[str, NDArray[Any]]


def train(*, steps: int, seed: int, on_progress: Callable[[str, float], None] | None = None) -> Iterator[Checkpoint]:
    """Learn from examples, yield step 0, then each of `steps` RL steps; repeatable on one machine by its seed."""
    report = on_progress or (lambda message, done: None)
    random = np.random.default_rng(seed)
    master = _initial_weights(random)
    optimizer = _AdamW(master)
    for step in range(1, _WARMUP + 1):
        sums = random.integers(0, _MODULUS, (_WARMUP_BATCH, 2))
        gradients = _gradients(master, sums, sums.sum(1) % _MODULUS, np.ones(len(sums), np.float32))
        rate = _WARMUP_RATE * min(10 * step / _WARMUP, max(0.1, 1 - step / _WARMUP))  # rises, then falls to a tenth
        optimizer.step(gradients, rate)
        report(f"warm-up {step}/{_WARMUP}", step / (_WARMUP + steps))
    for step in range(steps + 1):
        published = {name: weight.astype(ml_dtypes.bfloat16) for name, weight in master.items()}
        yield Checkpoint(step, published)
        # As in mixed-precision training, the gradient is taken at the rounded weights, which gave the answers, and
        # applied to the master weights, in which steps too small for bfloat16 add up.
        policy = {name: weight.astype(np.float32) for name, weight in published.items()}
        sums, answers, advantages, reward = _play(policy, random)
        optimizer.step(_gradients(policy, sums, answers, advantages), _RL_RATE)
        report(f"step {step}/{steps}: reward {reward:.2f}", (_WARMUP + step) / (_WARMUP + steps))


def _play(policy: dict[str, _Array], random: np.random.Generator) -> tuple[_Integers, _Integers, _Array, float]:
    """Sums, sampled answers, their advantages, and the share of right answers.

    As in GRPO, an answer's advantage is its reward compared with those of the other answers to the same sum.
    """
    sums = np.repeat(random.integers(0, _MODULUS, (_SUMS, 2)), _ANSWERS, axis=0)
    probabilities, _ = _forward(policy, sums)
    answers = (probabilities.cumsum(1) > random.random((len(sums), 1))).argmax(1)
    rewards = (answers == sums.sum(1) % _MODULUS).astype(np.float32).reshape(_SUMS, _ANSWERS)
    advantages = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, keepdims=True) + 1e-4)
    return sums, answers, advantages.ravel(), float(rewards.mean())


def _initial_weights(random: np.random.Generator) -> dict[str, _Array]:
    shapes = {"embed.weight": (_MODULUS, _WIDTH // 2)}
    shapes |= {f"layers.{layer}.weight": (_WIDTH, _WIDTH) for layer in range(_LAYERS)}
    shapes["head.weight"] = (_MODULUS, _WIDTH)
    weights = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    for name, weight in weights.items():
        weight *= 1.0 if name == "embed.weight" else (2 / weight.shape[1]) ** 0.5
    return weights


def _forward(weights: dict[str, _Array], sums: _Integers) -> tuple[_Array, list[_Array]]:
    """The probability of each answer to each sum, of shape (n, 97), and the input of each layer."""
    inputs = [weights["embed.weight"][sums].reshape(len(sums), _WIDTH)]
    for layer in range(_LAYERS):
        inputs.append(np.maximum(inputs[-1] @ weights[f"layers.{layer}.weight"].T, 0))
    logits = inputs[-1] @ weights["head.weight"].T
    exponentials: _Array = np.exp(logits - logits.max(1, keepdims=True))
    exponentials /= exponentials.sum(1, keepdims=True)
    return exponentials, inputs


def _gradients(weights: dict[str, _Array], sums: _Integers, answers: _Integers, factors: _Array) -> dict[str, _Array]:
    """The gradient of the mean of -factor * log p(answer): of cross-entropy for ones, of the policy for advantages."""
    probabilities, inputs = _forward(weights, sums)
    back: _Array = probabilities * factors[:, None]
    back[np.arange(len(sums)), answers] -= factors
    back /= len(sums)
    gradients: dict[str, _Array] = {"head.weight": back.T @ inputs[-1]}
    back = back @ weights["head.weight"]
    for layer in reversed(range(_LAYERS)):
        back = back * (inputs[layer + 1] > 0)
        gradients[f"layers.{layer}.weight"] = back.T @ inputs[layer]
        back = back @ weights[f"layers.{layer}.weight"]
    gradients["embed.weight"] = np.zeros_like(weights["embed.weight"])
    np.add.at(gradients["embed.weight"], sums.ravel(), back.reshape(-1, _WIDTH // 2))
    return gradients


class _AdamW:
    """Adam with decoupled weight decay and clipping of the whole gradient; updates `weights` in place."""

    def __init__(self, weights: dict[str, _Array], decay: float = 0.1, clip: float = 1.0) -> None:
        self._weights, self._decay, self._clip = weights, decay, clip
        self._first = {name: np.zeros_like(weight) for name, weight in weights.items()}
        self._second = {name: np.zeros_like(weight) for name, weight in weights.items()}
        self._steps = 0

    def step(self, gradients: dict[str, _Array], rate: float) -> None:
        self._steps += 1
        norm = sum(float(np.vdot(gradient, gradient)) for gradient in gradients.values()) ** 0.5
        scale = np.float32(min(1.0, self._clip / (norm + 1e-6)))
        first_bias, second_bias = 1 - 0.9**self._steps, 1 - 0.999**self._steps
        for name, weight in self._weights.items():
            gradient = gradients[name] * scale
            first, second = self._first[name], self._second[name]
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient * gradient - second)
            weight -= rate * (first / first_bias / (np.sqrt(second / second_bias) + 1e-8) + self._decay * weight)
