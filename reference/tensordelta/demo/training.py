"""The demo's trainer: a small language model, post-trained by reinforcement learning, in plain numpy.

Nothing here is simulated. A byte-level transformer with Llama's layout and tensor names learns English from the
help texts that come with CPython, until it spells something like words. Then it is rewarded for real words, the
way a language model is post-trained: sample, score, policy gradient, AdamW on float32 master weights at a learning
rate of 3e-6, weights handed out as bfloat16. A step that small is below the spacing of most bfloat16 numbers, so
only about one published weight in a hundred changes: that is what the demo's deltas are made of.
"""

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
Cache = dict[int, tuple[Array, Array]]  # by layer, the keys and values of what has been read
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
PROMPTS, PER_PROMPT, PROMPT = 8, 6, 16  # of an RL step: prompts, texts for each, bytes in a prompt
RL_RATE = 3e-6
RL_COST = 11  # an RL step takes about as long as so many of the warm-up


@dataclass(frozen=True)
class Checkpoint:
    """The weights after one step, as a trainer hands them to its inference workers."""

    step: int
    loss: float  # cross-entropy on held-out text, in nats per byte
    reward: float  # mean over texts sampled from exactly these weights
    weights: dict[str, npt.NDArray[Any]]  # bfloat16; the caller's to keep


def train(
    *, steps: int = 10, seed: int = 0, warmup: int = 120, on_progress: Progress | None = None
) -> Iterator[Checkpoint]:
    """Warm up, yield step 0, then yield each of `steps` RL steps. The same seed repeats the run on one machine.

    `on_progress` hears what has just been done, and how much of the whole run that makes, from 0 to 1.
    """
    report = on_progress or (lambda message, done: None)
    total = warmup + RL_COST * (steps + 1)
    random = np.random.default_rng(seed)
    corpus = Corpus(corpus_text())
    master = Model(initial_weights(random))
    optimizer = AdamW(master.weights)

    for step in range(1, warmup + 1):
        tokens = corpus.windows(random, WARMUP_BATCH)
        loss = learn(master, tokens, np.ones((WARMUP_BATCH, CONTEXT), np.float32))
        optimizer.step(master.gradients, warmup_rate(step, warmup))
        report(f"warm-up {step}/{warmup}: loss {loss:.2f}", step / total)

    policy, rollout = master, None
    for step in range(steps + 1):
        if rollout is not None:
            # As in mixed-precision training, the gradient is taken at the rounded weights, which are the ones that
            # wrote the texts, and applied to the master, where steps too small for bfloat16 add up.
            learn(policy, rollout.tokens, rollout.weights())
            optimizer.step(policy.gradients, RL_RATE)
        published = {name: weight.astype(ml_dtypes.bfloat16) for name, weight in master.weights.items()}
        policy = Model({name: weight.astype(np.float32) for name, weight in published.items()})
        rollout = play(policy, corpus, random)
        report(f"step {step}/{steps}: reward {rollout.reward:.3f}", (warmup + RL_COST * (step + 1)) / total)
        yield Checkpoint(step, corpus.held_out_loss(policy), rollout.reward, published)


def warmup_rate(step: int, warmup: int) -> float:
    """A tenth of the warm-up rises to the full rate; the rest falls to a tenth of it."""
    return WARMUP_RATE * min(10 * step / warmup, max(0.1, 1 - step / warmup))


# Reinforcement learning: sample, score, compare


@dataclass(frozen=True)
class Rollout:
    """Texts that a policy wrote, and how each one's reward compares with its siblings'."""

    tokens: Tokens
    advantages: Array
    reward: float

    def weights(self) -> Array:
        """The policy gradient as weights for `learn`: written bytes by their text's advantage, prompts by nothing."""
        weights = np.repeat(self.advantages[:, None], CONTEXT - 1, axis=1)
        weights[:, : PROMPT - 1] = 0
        return weights


def play(policy: "Model", corpus: "Corpus", random: np.random.Generator) -> Rollout:
    tokens = sample(policy, np.repeat(corpus.prompts(random, PROMPTS), PER_PROMPT, axis=0), random)
    rewards = np.array([corpus.reward(row[PROMPT:]) for row in tokens], np.float32)
    # As in GRPO, what counts is how a text compares with the others written for its prompt.
    groups = rewards.reshape(PROMPTS, PER_PROMPT)
    advantages = (groups - groups.mean(1, keepdims=True)) / (groups.std(1, keepdims=True) + 1e-4)
    return Rollout(tokens, advantages.ravel(), float(rewards.mean()))


def sample(policy: "Model", prompts: Tokens, random: np.random.Generator) -> Tokens:
    """Continue each prompt to the full context, each byte drawn from the model's own distribution."""
    tokens = np.zeros((len(prompts), CONTEXT), np.int64)
    tokens[:, :PROMPT] = prompts
    cache: Cache = {}
    new = prompts
    for position in range(PROMPT, CONTEXT):
        logits, _ = policy.forward(new, cache)
        cumulative = softmax(logits[:, -1]).cumsum(axis=-1)
        drawn = random.random((len(prompts), 1), dtype=np.float32) * cumulative[:, -1:]
        new = np.argmax(cumulative > drawn, axis=-1)[:, None]
        tokens[:, position] = new[:, 0]
    return tokens


# The corpus and the reward


class Corpus:
    def __init__(self, text: str) -> None:
        tokens = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
        split = len(tokens) * 19 // 20
        self.tokens, self.held_out = tokens[:split], tokens[split:]
        self.word_starts = np.flatnonzero(self.tokens[PROMPT - 1 : -1] == ord(" ")) + PROMPT
        # Shorter words come about by chance.
        self.words = set(re.findall(r"[a-z]{3,}", text.lower()))

    def windows(self, random: np.random.Generator, count: int) -> Tokens:
        starts = random.integers(0, len(self.tokens) - CONTEXT, count)
        return stretches(self.tokens, starts, CONTEXT + 1)

    def prompts(self, random: np.random.Generator, count: int) -> Tokens:
        """Stretches of text that end where a word starts."""
        return stretches(self.tokens, random.choice(self.word_starts, count) - PROMPT, PROMPT)

    def reward(self, tokens: Tokens) -> float:
        """The share of a text that stands in words of the corpus; a last word cut short does not count."""
        text = bytes(tokens.tolist()).decode("ascii").lower()
        words = re.findall(r"[a-z]+(?=[^a-z])", text)
        return sum(len(word) for word in words if word in self.words) / len(text)

    def held_out_loss(self, model: "Model") -> float:
        starts = np.linspace(0, len(self.held_out) - CONTEXT - 1, 32).astype(np.int64)
        tokens = stretches(self.held_out, starts, CONTEXT + 1)
        logits, _ = model.forward(tokens[:, :-1])
        return float(-np.log(chosen(softmax(logits), tokens[:, 1:])).mean())


def stretches(tokens: Tokens, starts: Tokens, length: int) -> Tokens:
    found: Tokens = tokens[starts[:, None] + np.arange(length)]
    return found


def corpus_text() -> str:
    """English that every CPython ships: the texts of `help()`; without them, numpy's own documentation."""
    try:
        from pydoc_data.topics import topics

        texts = list(topics.values())
    except ImportError:
        texts = [str(getattr(value, "__doc__", "")) for value in vars(np).values()]
    text = re.sub(r"\s+", " ", " ".join(texts).encode("ascii", "ignore").decode())
    # What underlines headings and rules tables is nothing to learn from.
    return re.sub(r"([\W_])\1+", r"\1", text)


# The model: forward passes that return their own backward passes


def initial_weights(random: np.random.Generator) -> dict[str, Array]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm"] = (WIDTH,)
        shapes |= {prefix + f"self_attn.{part}_proj": (WIDTH, WIDTH) for part in "qkvo"}
        shapes[prefix + "post_attention_layernorm"] = (WIDTH,)
        shapes |= {prefix + f"mlp.{part}_proj": (HIDDEN, WIDTH) for part in ("gate", "up")}
        shapes[prefix + "mlp.down_proj"] = (WIDTH, HIDDEN)
    shapes |= {"model.norm": (WIDTH,), "lm_head": (VOCABULARY, WIDTH)}
    weights = {}
    for name, shape in shapes.items():
        scale = 0.7 if "embed" in name else WIDTH**-0.5
        if name.endswith(("o_proj", "down_proj")):
            scale *= (2 * LAYERS) ** -0.5  # GPT-2's way to keep the sum of all layers' outputs in bounds
        weight = random.standard_normal(shape, np.float32) * np.float32(scale)
        weights[name + ".weight"] = np.ones_like(weight) if "norm" in name else weight
    return weights


def learn(model: "Model", tokens: Tokens, weights: Array) -> float:
    """Leave in `model.gradients` the gradient of the mean of -weight * log p(next byte), and return that mean.

    With weights of one that is cross-entropy; with advantages, the policy gradient. Bytes of no weight do not count.
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

    def forward(self, tokens: Tokens, cache: Cache | None = None) -> tuple[Array, Back]:
        """Logits for the byte after each of `tokens`, which follow on what `cache` has seen."""
        cache = {} if cache is None else cache
        x = self.weights["model.embed_tokens.weight"][tokens]
        backs = []
        for layer in range(LAYERS):
            x, back = self.block(x, layer, cache)
            backs.append(back)
        x, back_norm = self.norm(x, "model.norm")
        logits, back_head = self.linear(x, "lm_head")

        def backward(gradient: Array) -> Array:
            gradient = back_norm(back_head(gradient))
            for back in reversed(backs):
                gradient = back(gradient)
            one_hot = (np.arange(VOCABULARY)[:, None] == tokens.ravel()).astype(gradient.dtype)
            self.gradients["model.embed_tokens.weight"] = one_hot @ gradient.reshape(-1, WIDTH)
            return gradient

        return logits, backward

    def block(self, x: Array, layer: int, cache: Cache) -> tuple[Array, Back]:
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

    def attention(self, x: Array, layer: int, cache: Cache) -> tuple[Array, Back]:
        prefix = f"model.layers.{layer}.self_attn."
        q, back_q = self.linear(x, prefix + "q_proj")
        k, back_k = self.linear(x, prefix + "k_proj")
        v, back_v = self.linear(x, prefix + "v_proj")
        start = cache[layer][0].shape[2] if layer in cache else 0
        positions = np.arange(start, start + x.shape[1])
        q, k, v = rotate(split_heads(q), positions), rotate(split_heads(k), positions), split_heads(v)
        if layer in cache:
            k, v = (np.concatenate([past, new], axis=2) for past, new in zip(cache[layer], (k, v), strict=True))
        cache[layer] = k, v
        future = positions[:, None] < np.arange(k.shape[2])
        scale = HEAD_WIDTH**-0.5
        attention = softmax(np.where(future, np.float32(-1e30), q @ k.swapaxes(-1, -2) * scale))
        out, back_out = self.linear(join_heads(attention @ v), prefix + "o_proj")

        def back(gradient: Array) -> Array:
            mixed = split_heads(back_out(gradient))
            scores = attention * (mixed @ v.swapaxes(-1, -2))
            scores -= attention * scores.sum(-1, keepdims=True)
            scores *= scale
            gradient = back_v(join_heads(attention.swapaxes(-1, -2) @ mixed))
            gradient += back_q(join_heads(rotate(scores @ k, -positions)))
            gradient += back_k(join_heads(rotate(scores.swapaxes(-1, -2) @ q, -positions)))
            return gradient

        return out, back

    def feed_forward(self, x: Array, layer: int) -> tuple[Array, Back]:
        prefix = f"model.layers.{layer}.mlp."
        gate, back_gate = self.linear(x, prefix + "gate_proj")
        up, back_up = self.linear(x, prefix + "up_proj")
        sigmoid = 0.5 + 0.5 * np.tanh(0.5 * gate)
        silu = gate * sigmoid
        out, back_down = self.linear(silu * up, prefix + "down_proj")

        def back(gradient: Array) -> Array:
            hidden = back_down(gradient)
            return back_up(hidden * silu) + back_gate(hidden * up * (sigmoid + silu * (1 - sigmoid)))

        return out, back

    def linear(self, x: Array, name: str) -> tuple[Array, Back]:
        weight = self.weights[name + ".weight"]
        rows = x.reshape(-1, x.shape[-1])  # one large product is much faster than one for each text

        def back(gradient: Array) -> Array:
            gradient_rows = gradient.reshape(-1, gradient.shape[-1])
            self.gradients[name + ".weight"] = gradient_rows.T @ rows
            return (gradient_rows @ weight).reshape(x.shape)

        return (rows @ weight.T).reshape(*x.shape[:-1], -1), back

    def norm(self, x: Array, name: str) -> tuple[Array, Back]:
        weight = self.weights[name + ".weight"]
        scale: Array = ((x * x).mean(-1, keepdims=True) + 1e-6) ** -0.5
        unit = x * scale

        def back(gradient: Array) -> Array:
            self.gradients[name + ".weight"] = (gradient * unit).reshape(-1, WIDTH).sum(0)
            gradient = gradient * weight
            gradient -= unit * (gradient * unit).mean(-1, keepdims=True)
            return gradient * scale

        return unit * weight, back


def split_heads(x: Array) -> Array:
    return x.reshape(*x.shape[:2], HEADS, HEAD_WIDTH).swapaxes(1, 2)


def join_heads(x: Array) -> Array:
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], WIDTH)


def rotate(x: Array, positions: Tokens) -> Array:
    """Rotary position embedding; going backward, its gradient is rotated to the negated positions."""
    frequencies = 100.0 ** -np.linspace(0, 1, HEAD_WIDTH // 2, endpoint=False)
    angles = np.outer(positions, frequencies).astype(np.float32)
    cosine, sine = np.cos(angles), np.sin(angles)
    left, right = x[..., : HEAD_WIDTH // 2], x[..., HEAD_WIDTH // 2 :]
    return np.concatenate([left * cosine - right * sine, right * cosine + left * sine], axis=-1)


def softmax(x: Array) -> Array:
    exponentials: Array = np.exp(x - x.max(-1, keepdims=True))
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
