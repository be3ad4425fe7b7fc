"""Adafactor in float64 as the paper writes it (Shazeer and Stern, arXiv:1804.04235, algorithms 4 to 6), on
dictionaries of arrays by path: the reference for every other computation, independent of the library."""

import re
from types import SimpleNamespace

import numpy as np

DEFAULTS = SimpleNamespace(
    learning_rate=0.001, relative_step=True, warmup_init=False, beta_2_decay=-0.8, beta_2_cap=None,
    step_offset=0, count_updates="state", epsilon_1=1e-30, epsilon_1_mode="add", epsilon_2=1e-3,
    scale_parameter=True, max_parameter_scale=None, clip_threshold=1.0, beta_1=None, momentum_dtype="float32",
    momentum_on="scaled", momentum_use="stored", factored="last_two", min_dim_size_to_factor=0,
    maximize=False, weight_decay=None, weight_decay_on="learning_rate", weight_decay_first=None,
    exclude_from_weight_decay=(), clipnorm=None, global_clipnorm=None, clipvalue=None, use_ema=False,
    ema_momentum=0.99, ema_overwrite_frequency=None, ema_on="update", loss_scale_factor=None,
    gradient_accumulation_steps=None)  # fmt: skip


def bfloat16(x):  # by way of float32, as machines do: eight significant bits, ties to even
    mantissa, exponent = np.frexp(np.asarray(np.float32(x), np.float64))
    return np.ldexp(np.round(mantissa * 256), exponent - 8)


def factored_axes(shape, rule, smallest):  # (row axis, column axis): `row` is the mean over the column axis
    last, by_size = len(shape) - 1, sorted(range(len(shape)), key=lambda axis: (shape[axis], axis))
    pairs = {"last_two": [(last - 1, last)], "largest_two": [by_size[-2:]], False: [],
             "leading_two_or_last_two": [(0, 1), (last - 1, last)]}[rule]  # fmt: skip
    return next((pair for pair in pairs if last > 0 and min(shape[i] for i in pair) >= smallest), None)


class Oracle:
    def __init__(self, params, overrides=(), **knobs):
        self.k, self.leaves, self.calls, self.iterations = SimpleNamespace(**vars(DEFAULTS) | knobs), {}, 0, 0
        for path, p in params.items():
            k = SimpleNamespace(**vars(self.k) | next((o for r, o in overrides if re.search(r, path)), {}))
            excluded = any(re.search(pattern, path) for pattern in k.exclude_from_weight_decay)
            k.weight_decay = 0.0 if excluded or k.weight_decay is None else k.weight_decay
            self.leaves[path] = SimpleNamespace(
                k=k, p=np.array(p, np.float64), dtype=p.dtype, window=[], updates=0,
                axes=factored_axes(p.shape, k.factored, k.min_dim_size_to_factor),
                row=0.0, col=0.0, full=0.0, momentum=0.0, average=0.0)  # fmt: skip

    def step(self, grads, grad_multiplier=1.0, learning_rate=None):  # a gradient may be None
        k, steps = self.k, self.k.gradient_accumulation_steps or 1
        for leaf, g in ((self.leaves[path], g) for path, g in grads.items() if g is not None):
            factor = (-1 if leaf.k.maximize else 1) * grad_multiplier / (k.loss_scale_factor or 1)
            leaf.window.append(factor * np.asarray(g, np.float64))
        updating = (self.calls + 1) % steps == 0
        moving = [leaf for leaf in self.leaves.values() if updating and leaf.window and leaf.p.size]
        for leaf in moving:
            leaf.g, leaf.window, leaf.updates = sum(leaf.window) / steps, [], leaf.updates + 1
            leaf.grad_norm = np.linalg.norm(leaf.g)
        self.global_grad_norm = np.linalg.norm([leaf.grad_norm for leaf in moving])
        for leaf in moving:
            self.update(leaf, leaf.k, leaf.g, learning_rate)
        for leaf in self.leaves.values() if k.use_ema and (updating or k.ema_on == "call") else ():
            momentum = k.ema_momentum if self.iterations else 0.0
            leaf.average = momentum * leaf.average + (1 - momentum) * leaf.p
            if k.ema_overwrite_frequency and (self.iterations + 1) % k.ema_overwrite_frequency == 0:
                leaf.p = leaf.average
        self.calls, self.iterations = self.calls + 1, self.iterations + updating

    def update(self, leaf, k, g, given_rate):
        t = self.iterations + 1 if k.count_updates == "state" else leaf.updates
        own, common = k.learning_rate, self.k.learning_rate
        rate = own if given_rate is None else lambda _: given_rate * (1 if own is common else own / common)
        lr = rate(self.calls) if callable(rate) else 1e-6 * t if k.warmup_init else rate
        capped = k.relative_step == "always" if callable(rate) else k.relative_step
        rho = min(lr, t**-0.5) if capped else lr
        for limit, norm in (k.clipnorm, leaf.grad_norm), (k.global_clipnorm, self.global_grad_norm):
            g = g if limit is None else g * (limit / max(norm, limit))
        g = g if k.clipvalue is None else np.clip(g, -k.clipvalue, k.clipvalue)
        beta_2_cap = 1.0 if k.beta_2_cap is None else k.beta_2_cap  # new: 1 - beta_2, as precise as the leaf
        new = float(leaf.dtype.type(max(max(t - k.step_offset, 1) ** k.beta_2_decay, 1 - beta_2_cap)))
        epsilon = np.finfo(leaf.dtype).eps if k.epsilon_1 is None else k.epsilon_1
        added, floor = (epsilon, 0.0) if k.epsilon_1_mode == "add" else (0.0, epsilon)
        if leaf.axes is None:
            v = leaf.full = (1 - new) * leaf.full + new * (g * g + added)
        else:
            leaf.row = (1 - new) * leaf.row + new * (g * g + added).mean(leaf.axes[1], keepdims=True)
            leaf.col = (1 - new) * leaf.col + new * (g * g + added).mean(leaf.axes[0], keepdims=True)
            mean = np.maximum(leaf.row.mean(leaf.axes[0], keepdims=True), floor)
            v = leaf.row * leaf.col / np.where(mean > 0, mean, 1.0)
        root = np.sqrt(np.maximum(v, floor**2))
        u = np.divide(g, root, out=np.zeros_like(root), where=root > 0)
        leaf.update_rms, leaf.param_rms = (np.sqrt(np.mean(x * x)) for x in (u, leaf.p))
        leaf.clip_factor = 1 / max(1.0, leaf.update_rms / (k.clip_threshold or np.inf))
        w = k.weight_decay * {"learning_rate": lr, "none": 1.0, "step": 0.0}[k.weight_decay_on]
        scale = leaf.param_rms * (1.0 if k.weight_decay_first is False else abs(1 - w))
        scale = min(max(scale, k.epsilon_2), k.max_parameter_scale or np.inf)
        leaf.step_size = rho * (scale if k.scale_parameter else 1.0)
        w = k.weight_decay * leaf.step_size if k.weight_decay_on == "step" else w
        y = u * leaf.clip_factor * (leaf.step_size if k.momentum_on == "scaled" else 1.0)
        if k.beta_1 is not None:
            exact = k.beta_1 * leaf.momentum + (1 - k.beta_1) * y
            leaf.momentum = bfloat16(exact) if k.momentum_dtype == "bfloat16" else exact
            y = leaf.momentum if k.momentum_use == "stored" else exact
        leaf.p = leaf.p - (y * (1.0 if k.momentum_on == "scaled" else leaf.step_size) + w * leaf.p)
