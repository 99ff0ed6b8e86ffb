"""The demo's trainer: a small language model, post-trained by reinforcement learning, in plain numpy.

Nothing here is simulated. A byte-level transformer with Llama's layout and tensor names learns English from the
help texts that come with CPython, until it spells something like words. Then it is rewarded for real words, the
way a language model is post-trained: sample, score, policy gradient, AdamW on float32 master weights at a learning
rate of 3e-6, weights handed out as bfloat16. A step that small is below the spacing of most bfloat16 numbers, so
only about one published weight in a hundred changes: that is what the demo's deltas are made of.
"""

import builtins
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]
Back = Callable[[Array], Array]  # the gradient at an operation's output -> the gradient at its input
Progress = Callable[[str, float], None]

VOCABULARY = 128  # ASCII
LAYERS = 3
WIDTH = 384
HEADS = 6
HEAD_WIDTH = WIDTH // HEADS
HIDDEN = 640  # of the feed-forward part

CONTEXT = 48  # bytes the model sees at once
WARMUP_BATCH = 6
WARMUP_RATE = 1.2e-3
PROMPTS, PER_PROMPT, PROMPT = 8, 6, 16  # an RL step's batch: how many prompts, samples of each, bytes in a prompt
RL_RATE = 3e-6


@dataclass(frozen=True)
class Checkpoint:
    """The weights after one step, as a trainer hands them to its inference workers."""

    step: int
    loss: float  # cross-entropy on held-out text, in nats per byte
    reward: float  # mean over texts sampled from exactly these weights
    weights: dict[str, npt.NDArray[Any]]  # bfloat16; the caller's to keep


@dataclass(frozen=True)
class Rollout:
    """Texts that a policy wrote, and how much better than its siblings each one is."""

    tokens: Tokens
    advantages: Array
    reward: float


def train(
    *, steps: int = 10, seed: int = 0, warmup: int = 120, on_progress: Progress | None = None
) -> Iterator[Checkpoint]:
    """Warm up, yield step 0, then yield each of `steps` RL steps. The same seed repeats the run on one machine.

    `on_progress` hears what is going on and how far the whole run has come, from 0 to 1.
    """
    report = on_progress or (lambda message, done: None)
    random = np.random.default_rng(seed)
    corpus = Corpus(corpus_text())
    master = Model(initial_weights(random))
    optimizer = AdamW(master.weights)
    total = warmup + 2 * steps + 1  # an RL step takes about as long as two of the warm-up

    for step in range(warmup):
        tokens = corpus.windows(random, WARMUP_BATCH, CONTEXT + 1)
        loss = learn(master, tokens, np.ones_like(tokens[:, 1:], dtype=np.float32))
        optimizer.step(master.gradients, warmup_rate(step, warmup))
        report(f"warm-up {step + 1}/{warmup}: loss {loss:.2f}", (step + 1) / total)

    policy = Model(published(master.weights))
    rollout = play(policy, corpus, random)
    yield Checkpoint(0, corpus.held_out_loss(policy), rollout.reward, to_bfloat16(master.weights))

    for step in range(1, steps + 1):
        # As in mixed-precision training, gradients are taken at the rounded weights, which are the ones that wrote
        # the texts, and applied to the master, where steps too small for bfloat16 add up.
        learn(policy, rollout.tokens, completion_weights(rollout))
        optimizer.step(policy.gradients, RL_RATE)
        policy = Model(published(master.weights))
        rollout = play(policy, corpus, random)
        report(f"RL step {step}/{steps}: reward {rollout.reward:.3f}", (total - 2 * (steps - step)) / total)
        yield Checkpoint(step, corpus.held_out_loss(policy), rollout.reward, to_bfloat16(master.weights))


def warmup_rate(step: int, warmup: int) -> float:
    """A tenth of the warm-up rises to the full rate, and the rest falls linearly to a tenth of it."""
    return WARMUP_RATE * min((step + 1) / (0.1 * warmup), max(0.1, 1 - step / warmup))


def to_bfloat16(weights: dict[str, Array]) -> dict[str, npt.NDArray[Any]]:
    return {name: weight.astype(ml_dtypes.bfloat16) for name, weight in weights.items()}


def published(weights: dict[str, Array]) -> dict[str, Array]:
    """The weights as a worker sees them: rounded to bfloat16, and float32 again to calculate with."""
    return {name: weight.astype(np.float32) for name, weight in to_bfloat16(weights).items()}


# Reinforcement learning: sample, score, compare


def play(policy: "Model", corpus: "Corpus", random: np.random.Generator) -> Rollout:
    prompts = np.repeat(corpus.prompts(random, PROMPTS), PER_PROMPT, axis=0)
    tokens = sample(policy, prompts, random)
    rewards = np.array([corpus.reward(as_text(row[PROMPT:])) for row in tokens], dtype=np.float32)
    # As in GRPO, what counts is how a text compares with the others written for its prompt.
    groups = rewards.reshape(PROMPTS, PER_PROMPT)
    advantages = (groups - groups.mean(1, keepdims=True)) / (groups.std(1, keepdims=True) + 1e-4)
    return Rollout(tokens, advantages.ravel(), float(rewards.mean()))


def sample(policy: "Model", prompts: Tokens, random: np.random.Generator) -> Tokens:
    """Continue each prompt to the full context, each byte drawn from the model's own distribution."""
    tokens = np.zeros((len(prompts), CONTEXT), np.int64)
    tokens[:, :PROMPT] = prompts
    cache = Cache(len(prompts))
    new = prompts
    for position in range(PROMPT, CONTEXT):
        logits, _ = policy.forward(new, cache)
        cumulative = softmax(logits[:, -1]).cumsum(axis=-1)
        drawn = random.random((len(prompts), 1), dtype=np.float32) * cumulative[:, -1:]
        new = np.argmax(cumulative > drawn, axis=-1)[:, None]
        tokens[:, position] = new[:, 0]
    return tokens


def completion_weights(rollout: Rollout) -> Array:
    """The policy gradient as weights for `learn`: each written byte by its text's advantage, the prompt not at all."""
    weights = np.repeat(rollout.advantages[:, None], CONTEXT - 1, axis=1)
    weights[:, : PROMPT - 1] = 0
    return weights


# The corpus and the reward


class Corpus:
    def __init__(self, text: str) -> None:
        tokens = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
        split = len(tokens) * 19 // 20
        self.tokens, self.held_out = tokens[:split], tokens[split:]
        self.word_starts = np.flatnonzero(self.tokens[PROMPT - 1 : -1] == ord(" ")) + PROMPT
        # Shorter words come about by chance.
        self.words = set(re.findall(r"[a-z]{3,}", text.lower()))

    def windows(self, random: np.random.Generator, count: int, length: int) -> Tokens:
        starts = random.integers(0, len(self.tokens) - length, count)
        return self.tokens[starts[:, None] + np.arange(length)]

    def prompts(self, random: np.random.Generator, count: int) -> Tokens:
        """Stretches of text up to the start of a word."""
        return self.tokens[random.choice(self.word_starts, (count, 1)) + np.arange(-PROMPT, 0)]

    def reward(self, text: str) -> float:
        """The share of a text's characters that stand in words of the corpus; a last word cut short does not count."""
        words = re.findall(r"[a-z]+(?=[^a-z])", text.lower())
        return sum(len(word) for word in words if word in self.words) / len(text)

    def held_out_loss(self, model: "Model") -> float:
        starts = np.linspace(0, len(self.held_out) - CONTEXT - 1, 32).astype(np.int64)
        tokens = self.held_out[starts[:, None] + np.arange(CONTEXT + 1)]
        logits, _ = model.forward(tokens[:, :-1])
        return float(-np.log(chosen(softmax(logits), tokens[:, 1:])).mean())


def corpus_text() -> str:
    """English that every CPython has: the texts of `help()`, or where a distributor removed them, docstrings."""
    try:
        from pydoc_data.topics import topics

        texts = list(topics.values())
    except ImportError:
        owners = [builtins, *vars(builtins).values(), np, np.ndarray]
        texts = [str(getattr(value, "__doc__", "")) for owner in owners for value in vars_of(owner).values()]
    text = " ".join(texts).encode("ascii", "ignore").decode()
    # Indentation, underlines and table rules are long runs of one character, and nothing to learn from.
    return re.sub(r"([\W_])\1+", r"\1", re.sub(r"\s+", " ", text))


def vars_of(owner: object) -> dict[str, object]:
    return dict(getattr(owner, "__dict__", {}))


def as_text(tokens: Tokens) -> str:
    return bytes(tokens.tolist()).decode("ascii")


# The model: forward passes that return their own backward passes


def initial_weights(random: np.random.Generator) -> dict[str, Array]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = (WIDTH,)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[prefix + f"self_attn.{name}.weight"] = (WIDTH, WIDTH)
        shapes[prefix + "post_attention_layernorm.weight"] = (WIDTH,)
        shapes[prefix + "mlp.gate_proj.weight"] = (HIDDEN, WIDTH)
        shapes[prefix + "mlp.up_proj.weight"] = (HIDDEN, WIDTH)
        shapes[prefix + "mlp.down_proj.weight"] = (WIDTH, HIDDEN)
    shapes["model.norm.weight"] = (WIDTH,)
    shapes["lm_head.weight"] = (VOCABULARY, WIDTH)
    weights = {}
    for name, shape in shapes.items():
        # Scales that learn fast: each layer at first passes on what it gets, and what it gets is of order one.
        if "norm" in name:
            weights[name] = np.ones(shape, np.float32)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name] = np.zeros(shape, np.float32)
        else:
            scale = 0.7 if "embed" in name else WIDTH**-0.5
            weights[name] = random.standard_normal(shape, np.float32) * np.float32(scale)
    return weights


def learn(model: "Model", tokens: Tokens, weights: Array) -> float:
    """Leave in `model.gradients` the gradient of the mean of -weight * log p(next byte), and return that mean.

    With weights of one that is cross-entropy; with advantages, the policy gradient.
    """
    logits, back = model.forward(tokens[:, :-1])
    targets = tokens[:, 1:]
    probabilities = softmax(logits)
    weights = weights / np.float32(np.count_nonzero(weights) or 1)
    loss = -(weights * np.log(chosen(probabilities, targets))).sum()
    gradient = probabilities * weights[..., None]
    gradient -= weights[..., None] * (np.arange(VOCABULARY) == targets[..., None])
    back(gradient)
    return float(loss)


class Model:
    """A pre-norm transformer with rotary positions and a gated feed-forward part, as in Llama."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self.weights = weights
        self.gradients: dict[str, Array] = {}  # of the latest backward pass

    def forward(self, tokens: Tokens, cache: "Cache | None" = None) -> tuple[Array, Back]:
        """Logits for the byte after each of `tokens`, which follow on what `cache` has seen."""
        x = self.weights["model.embed_tokens.weight"][tokens]
        backs = []
        for layer in range(LAYERS):
            x, back = self.block(x, layer, cache)
            backs.append(back)
        x, back_norm = self.norm(x, "model.norm")
        logits, back_head = self.linear(x, "lm_head")
        if cache is not None:
            cache.length += tokens.shape[1]

        def backward(gradient: Array) -> Array:
            gradient = back_norm(back_head(gradient))
            for back in reversed(backs):
                gradient = back(gradient)
            one_hot = (np.arange(VOCABULARY)[:, None] == tokens.ravel()).astype(gradient.dtype)
            self.gradients["model.embed_tokens.weight"] = one_hot @ gradient.reshape(-1, WIDTH)
            return gradient

        return logits, backward

    def block(self, x: Array, layer: int, cache: "Cache | None") -> tuple[Array, Back]:
        prefix = f"model.layers.{layer}."
        normed, back_norm = self.norm(x, prefix + "input_layernorm")
        attended, back_attention = self.attention(normed, layer, cache)
        x = x + attended
        normed, back_second_norm = self.norm(x, prefix + "post_attention_layernorm")
        fed, back_feed_forward = self.feed_forward(normed, layer)

        def back(gradient: Array) -> Array:
            gradient = gradient + back_second_norm(back_feed_forward(gradient))
            return gradient + back_norm(back_attention(gradient))

        return x + fed, back

    def attention(self, x: Array, layer: int, cache: "Cache | None") -> tuple[Array, Back]:
        prefix = f"model.layers.{layer}.self_attn."
        q, back_q = self.linear(x, prefix + "q_proj")
        k, back_k = self.linear(x, prefix + "k_proj")
        v, back_v = self.linear(x, prefix + "v_proj")
        start = 0 if cache is None else cache.length
        angles = rotary_angles(start, x.shape[1])
        q, k, v = rotate(split_heads(q), angles), rotate(split_heads(k), angles), split_heads(v)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        future = np.triu(np.ones((x.shape[1], start + x.shape[1]), bool), k=1 + start)
        scale = HEAD_WIDTH**-0.5
        attention = softmax(np.where(future, np.float32(-1e30), q @ k.mT * scale))
        out, back_out = self.linear(join_heads(attention @ v), prefix + "o_proj")

        def back(gradient: Array) -> Array:
            mixed = split_heads(back_out(gradient))
            scores = attention * (mixed @ v.mT)
            scores -= attention * scores.sum(-1, keepdims=True)
            scores *= scale
            gradient = back_v(join_heads(attention.mT @ mixed))
            gradient += back_q(join_heads(rotate(scores @ k, -angles)))
            gradient += back_k(join_heads(rotate(scores.mT @ q, -angles)))
            return gradient

        return out, back

    def feed_forward(self, x: Array, layer: int) -> tuple[Array, Back]:
        prefix = f"model.layers.{layer}.mlp."
        gate, back_gate = self.linear(x, prefix + "gate_proj")
        up, back_up = self.linear(x, prefix + "up_proj")
        sigmoid = 1 / (1 + np.exp(-gate))
        silu = gate * sigmoid
        out, back_down = self.linear(silu * up, prefix + "down_proj")

        def back(gradient: Array) -> Array:
            hidden = back_down(gradient)
            return back_up(hidden * silu) + back_gate(hidden * up * (sigmoid + silu * (1 - sigmoid)))

        return out, back

    def linear(self, x: Array, name: str) -> tuple[Array, Back]:
        weight = self.weights[name + ".weight"]

        def back(gradient: Array) -> Array:
            rows = gradient.reshape(-1, weight.shape[0])
            self.gradients[name + ".weight"] = rows.T @ x.reshape(-1, weight.shape[1])
            return gradient @ weight

        return x @ weight.T, back

    def norm(self, x: Array, name: str) -> tuple[Array, Back]:
        weight = self.weights[name + ".weight"]
        scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)
        unit = x * scale

        def back(gradient: Array) -> Array:
            self.gradients[name + ".weight"] = (gradient * unit).reshape(-1, WIDTH).sum(0)
            gradient = gradient * weight
            return scale * (gradient - unit * (gradient * unit).mean(-1, keepdims=True))

        return unit * weight, back


class Cache:
    """The keys and values of the bytes already read, so that sampling reads each byte once."""

    def __init__(self, batch: int) -> None:
        self.length = 0
        self.keys = np.zeros((LAYERS, batch, HEADS, CONTEXT, HEAD_WIDTH), np.float32)
        self.values = np.zeros_like(self.keys)

    def extend(self, layer: int, keys: Array, values: Array) -> tuple[Array, Array]:
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


def split_heads(x: Array) -> Array:
    return x.reshape(*x.shape[:2], HEADS, HEAD_WIDTH).swapaxes(1, 2)


def join_heads(x: Array) -> Array:
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], WIDTH)


def rotary_angles(start: int, length: int) -> Array:
    frequencies = 100.0 ** -np.linspace(0, 1, HEAD_WIDTH // 2, endpoint=False)
    return np.outer(np.arange(start, start + length), frequencies).astype(np.float32)


def rotate(x: Array, angles: Array) -> Array:
    """Rotary position embedding. Its own backward pass is the rotation by the opposite angles."""
    left, right = x[..., : HEAD_WIDTH // 2], x[..., HEAD_WIDTH // 2 :]
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.concatenate([left * cosine - right * sine, right * cosine + left * sine], axis=-1)


def softmax(x: Array) -> Array:
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    exponentials /= exponentials.sum(-1, keepdims=True)
    return exponentials


def chosen(probabilities: Array, targets: Tokens) -> Array:
    return np.take_along_axis(probabilities, targets[..., None], axis=-1)[..., 0]


class AdamW:
    """Adam with decoupled weight decay on matrices and clipping of the whole gradient; updates `weights` in place."""

    def __init__(self, weights: dict[str, Array], decay: float = 0.1, clip: float = 1.0) -> None:
        self.weights, self.decay, self.clip = weights, decay, clip
        self.first = {name: np.zeros_like(weight) for name, weight in weights.items()}
        self.second = {name: np.zeros_like(weight) for name, weight in weights.items()}
        self.steps = 0

    def step(self, gradients: dict[str, Array], rate: float) -> None:
        self.steps += 1
        norm = float(np.sqrt(sum(float(np.vdot(gradient, gradient)) for gradient in gradients.values())))
        scale = min(1.0, self.clip / (norm + 1e-6))
        first_bias, second_bias = 1 - 0.9**self.steps, 1 - 0.999**self.steps
        for name, weight in self.weights.items():
            gradient = gradients[name] * scale
            first, second = self.first[name], self.second[name]
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient * gradient - second)
            update = first / (np.sqrt(second / second_bias) + 1e-8) / first_bias
            if weight.ndim > 1:
                update += self.decay * weight
            weight -= rate * update
