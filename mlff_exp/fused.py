"""The fused engine: PaiNN's energy and forces in Triton kernels with a derivative derived by hand.

docs/fused.md derives what is computed here, with the names of this file. Nothing else in the project knows Triton.

A *group* is the molecules that share a program, ``ROWS`` rows of atoms; a *slice* is ``NF`` of the features. Every kernel
has one program for each slice and group, and computes whole sums over features, so that nothing is added by atomics
and the same input gives the same bits. Rows are ``molecule · SLOTS + atom``. Arrays of ``[rows, F]`` (a *plane*) live in
two workspaces: ``work`` holds FP32, ``low`` what is only ever an operand of a product, in the precision of products.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from mlff_exp.batch import AtomicBatch
from mlff_exp.config import Precision
from mlff_exp.engine import EngineError, Prediction
from mlff_exp.neighbors import ALL_PAIRS_MAX_ATOMS
from mlff_exp.painn import BOHR_ANG, CORE_INNER, CORE_OUTER, COULOMB_EV_ANG, NORM_SMOOTHING, PaiNN

# Constants that kernels read must be of this type.
COULOMB = tl.constexpr(COULOMB_EV_ANG)
SCREENING = tl.constexpr(0.88534 * BOHR_ANG)
EPSILON = tl.constexpr(NORM_SMOOTHING)
INNER = tl.constexpr(CORE_INNER)
CORE_WIDTH = tl.constexpr(CORE_OUTER - CORE_INNER)
PI = tl.constexpr(math.pi)

# Planes of ``work``: those of all layers, then those of each layer.
S, VM, GS, GV, COMMON_PLANES = (tl.constexpr(n) for n in (0, 1, 4, 5, 8))
PHI, VIN, U, W, SV, VV, DA, DH, LAYER_PLANES = (tl.constexpr(n) for n in (0, 3, 6, 9, 12, 13, 14, 15, 16))
# Planes of ``low``.
HIDDEN, NORM, G3, GPRE, GU, GW, GPHI, LOW_PLANES = (tl.constexpr(n) for n in (0, 1, 2, 5, 6, 9, 12, 15))
TILE = tl.constexpr(64)  # rows of pairs at a time: what a warp group's tensor cores take


@triton.jit
def _tile(base, plane, rows, columns, F: tl.constexpr, size):
    """Pointers to [rows, columns] of a plane."""
    return base + plane * size + (rows[:, None] * F + columns[None, :])


@triton.jit
def _product(total, left, weights, column, F: tl.constexpr, K: tl.constexpr, KB: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr):
    """total [ROWS, NF] + left [ROWS, K] · weights [K, F][:, column]; ``left`` points to each row's first number."""
    for start in tl.static_range(0, K, KB):
        k = start + tl.arange(0, KB)
        a = tl.load(left[:, None] + k[None, :]).to(LOW)
        b = tl.load(weights + k[:, None] * F + column[None, :])
        total = tl.dot(a, b, total, input_precision=IP)
    return total


@triton.jit
def _silu(x):
    """silu(x) and its derivative."""
    sigmoid = 1.0 / (1.0 + tl.exp(-x))
    value = x * sigmoid
    return value, sigmoid * (1.0 + x - value)


@triton.jit
def _envelope(x):
    """1 − 28x⁶ + 48x⁷ − 21x⁸ up to x = 1, and its derivative."""
    gap = tl.maximum(1.0 - x, 0.0)
    rest = 1.0 + x * (3.0 + x * (6.0 + x * (10.0 + x * (15.0 + x * 21.0))))
    square = x * x
    return gap * gap * gap * rest, -168.0 * square * square * x * gap * gap


@triton.jit
def _vector(positions, first, second, apart):
    """x_second − x_first of rows of ``positions``, FP32 of an FP64 difference, and the distance; ``apart`` if alone."""
    x = (tl.load(positions + 3 * second) - tl.load(positions + 3 * first)).to(tl.float32)
    y = (tl.load(positions + 3 * second + 1) - tl.load(positions + 3 * first + 1)).to(tl.float32)
    z = (tl.load(positions + 3 * second + 2) - tl.load(positions + 3 * first + 2)).to(tl.float32)
    return x, y, z


@triton.jit
def _geometry(
    positions, numbers, element_index, radius, embedding, phi0, work, element, unit, basis, slope,
    n_systems, n_slots, plane, cutoff,
    F: tl.constexpr, SLOTS: tl.constexpr, RBF: tl.constexpr, N_RBF: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """Pairs of one atom b with all atoms a of its molecule: r̂_ab, inputs of the filters and their derivatives by d.

    And what layer 0 starts from, which depends on the element alone.
    """
    row_b = tl.program_id(0)
    molecule, b = row_b // SLOTS, row_b % SLOTS
    a = tl.arange(0, SLOTS)
    inside_b = (molecule < n_systems) & (b < n_slots)
    inside = inside_b & (a < n_slots)
    own_b = tl.where(inside_b, molecule * n_slots + b, 0)
    own = tl.where(inside, molecule * n_slots + a, 0)
    z_b = tl.load(numbers + own_b)
    element_b = tl.where(inside_b, tl.load(element_index + z_b), 0)
    element_a = tl.where(inside, tl.load(element_index + tl.load(numbers + own)), 0)
    x, y, z = _vector(positions, own, own_b, cutoff)
    paired = (element_a > 0) & (element_b > 0) & (a != b)
    x = tl.where(paired, x, cutoff)
    y = tl.where(paired, y, 0.0)
    z = tl.where(paired, z, 0.0)
    d = tl.sqrt(x * x + y * y + z * z)
    pair = row_b.to(tl.int64) * SLOTS + a
    tl.store(unit + row_b.to(tl.int64) * 3 * SLOTS + a, x / d)
    tl.store(unit + row_b.to(tl.int64) * 3 * SLOTS + SLOTS + a, y / d)
    tl.store(unit + row_b.to(tl.int64) * 3 * SLOTS + 2 * SLOTS + a, z / d)

    contact = tl.load(radius + element_a) + tl.load(radius + element_b)
    near, near_slope = _envelope(d / cutoff)
    core, core_slope = _envelope(tl.maximum((d / contact - INNER) / CORE_WIDTH, 0.0))
    e = tl.where(paired, near * (1.0 - core), 0.0)
    e_slope = tl.where(paired, near_slope / cutoff * (1.0 - core) - near * core_slope / (CORE_WIDTH * contact), 0.0)

    n = tl.arange(0, RBF)
    frequency = (n + 1).to(tl.float32) * (PI / cutoff)
    phase = d[:, None] * frequency[None, :]
    scale = tl.sqrt(2.0 / cutoff)
    radial = scale * tl.sin(phase) / d[:, None]
    radial_slope = (scale * frequency[None, :] * tl.cos(phase) - radial) / d[:, None]
    # After the radial functions a column for the bias, and zeros.
    radial = tl.where(n[None, :] < N_RBF, radial, tl.where(n[None, :] == N_RBF, 1.0, 0.0))
    radial_slope = tl.where(n[None, :] < N_RBF, radial_slope, 0.0)
    where = pair[:, None] * RBF + n[None, :]
    tl.store(basis + where, (radial * e[:, None]).to(LOW))
    tl.store(slope + where, (radial_slope * e[:, None] + radial * e_slope[:, None]).to(LOW))

    f = tl.arange(0, F)
    tl.store(element + row_b, element_b)
    size = tl.cast(plane, tl.int64)
    tl.store(work + S * size + row_b * F + f, tl.load(embedding + element_b * F + f))
    for part in tl.static_range(3):
        value = tl.load(phi0 + (element_b * 3 + part) * F + f)
        tl.store(work + (COMMON_PLANES + PHI + part) * size + row_b * F + f, value)


@triton.jit
def _pairs(step, group, MOLECULES: tl.constexpr, SLOTS: tl.constexpr):
    """For a tile of pairs: row of the atom a within the program, row of its partner b, and number of the pair.

    A tile is all atoms of one program's molecules with ``SPLIT`` partners each.
    """
    ROWS: tl.constexpr = MOLECULES * SLOTS
    SPLIT: tl.constexpr = TILE // ROWS
    r = tl.arange(0, TILE)
    row = r % ROWS
    molecule = group * MOLECULES + row // SLOTS
    partner = molecule * SLOTS + step * SPLIT + r // ROWS
    return row, partner, row % SLOTS


@triton.jit
def _filters(inputs, weights, k, column, F: tl.constexpr, RBF: tl.constexpr, IP: tl.constexpr):
    """Filters of a tile for s, v and r: inputs [TILE, RBF] · weights [3, RBF, F][:, :, column]."""
    at = weights + k[:, None] * F + column[None, :]
    return (
        tl.dot(inputs, tl.load(at), input_precision=IP),
        tl.dot(inputs, tl.load(at + RBF * F), input_precision=IP),
        tl.dot(inputs, tl.load(at + 2 * RBF * F), input_precision=IP),
    )


@triton.jit
def _over_partners(x, ROWS: tl.constexpr, NF: tl.constexpr):
    """[TILE, NF] to [ROWS, NF]."""
    if ROWS == TILE:
        return x
    return tl.sum(tl.reshape(x, (TILE // ROWS, ROWS, NF)), axis=0)


@triton.jit
def _message(
    work, low, unit, basis, w2, b2, filters, plane, n_slots,
    LAYER: tl.constexpr, F: tl.constexpr, SLOTS: tl.constexpr, MOLECULES: tl.constexpr, RBF: tl.constexpr,
    NF: tl.constexpr, KB: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """φ = h W₂ + b₂ for a slice, and the sums of messages over partners: s and v after them."""
    ROWS: tl.constexpr = MOLECULES * SLOTS
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = tl.program_id(0) * NF + tl.arange(0, NF)
    group = tl.program_id(1)
    rows = group * ROWS + tl.arange(0, ROWS)
    if LAYER > 0:
        for part in tl.static_range(3):
            phi = tl.zeros((ROWS, NF), tl.float32) + tl.load(b2 + part * F + column)[None, :]
            phi = _product(phi, low + HIDDEN * size + rows * F, w2 + part * F * F, column, F, F, KB, LOW, IP)
            tl.store(_tile(work, MINE + PHI + part, rows, column, F, size), phi)
        tl.debug_barrier()

    k = tl.arange(0, RBF)
    sum_s = tl.zeros((TILE, NF), tl.float32)
    sum_x = tl.zeros((TILE, NF), tl.float32)
    sum_y = tl.zeros((TILE, NF), tl.float32)
    sum_z = tl.zeros((TILE, NF), tl.float32)
    for step in tl.range(0, tl.cdiv(n_slots, TILE // ROWS)):
        row, partner, atom = _pairs(step, group, MOLECULES, SLOTS)
        pair = partner.to(tl.int64) * SLOTS + atom
        inputs = tl.load(basis + pair[:, None] * RBF + k[None, :])
        filter_s, filter_v, filter_r = _filters(inputs, filters, k, column, F, RBF, IP)
        sum_s += filter_s * tl.load(_tile(work, MINE + PHI, partner, column, F, size))
        along = filter_r * tl.load(_tile(work, MINE + PHI + 2, partner, column, F, size))
        at = unit + partner.to(tl.int64) * 3 * SLOTS + atom
        sum_x += along * tl.load(at)[:, None]
        sum_y += along * tl.load(at + SLOTS)[:, None]
        sum_z += along * tl.load(at + 2 * SLOTS)[:, None]
        if LAYER > 0:
            through = filter_v * tl.load(_tile(work, MINE + PHI + 1, partner, column, F, size))
            sum_x += through * tl.load(_tile(work, MINE + VIN, partner, column, F, size))
            sum_y += through * tl.load(_tile(work, MINE + VIN + 1, partner, column, F, size))
            sum_z += through * tl.load(_tile(work, MINE + VIN + 2, partner, column, F, size))
    at_s = _tile(work, S, rows, column, F, size)
    tl.store(at_s, tl.load(at_s) + _over_partners(sum_s, ROWS, NF))
    x = _over_partners(sum_x, ROWS, NF)
    y = _over_partners(sum_y, ROWS, NF)
    z = _over_partners(sum_z, ROWS, NF)
    if LAYER > 0:
        x += tl.load(_tile(work, MINE + VIN, rows, column, F, size))
        y += tl.load(_tile(work, MINE + VIN + 1, rows, column, F, size))
        z += tl.load(_tile(work, MINE + VIN + 2, rows, column, F, size))
    tl.store(_tile(work, VM, rows, column, F, size), x)
    tl.store(_tile(work, VM + 1, rows, column, F, size), y)
    tl.store(_tile(work, VM + 2, rows, column, F, size), z)


@triton.jit
def _mix(
    work, low, mix, plane,
    LAYER: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr, KB: tl.constexpr,
    LOW: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """u = v U and w = v V for a slice, and the norms of w."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = tl.program_id(0) * NF + tl.arange(0, NF)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    square = tl.zeros((ROWS, NF), tl.float32) + EPSILON
    for axis in tl.static_range(3):
        v = work + (VM + axis) * size + rows * F
        u = tl.zeros((ROWS, NF), tl.float32)
        w = tl.zeros((ROWS, NF), tl.float32)
        for start in tl.static_range(0, F, KB):
            k = start + tl.arange(0, KB)
            a = tl.load(v[:, None] + k[None, :]).to(LOW)
            at = mix + k[:, None] * F + column[None, :]
            u = tl.dot(a, tl.load(at), u, input_precision=IP)
            w = tl.dot(a, tl.load(at + F * F), w, input_precision=IP)
        tl.store(_tile(work, MINE + U + axis, rows, column, F, size), u)
        tl.store(_tile(work, MINE + W + axis, rows, column, F, size), w)
        square += w * w
    tl.store(_tile(low, NORM, rows, column, F, size), tl.sqrt(square).to(LOW))


@triton.jit
def _hidden(
    work, low, weights, bias, plane,
    DERIVATIVE: tl.constexpr, WITH_NORM: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr,
    KB: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """silu([s, ‖w‖] W + b), or without the norms, for a slice; its derivative is kept."""
    size = tl.cast(plane, tl.int64)
    column = tl.program_id(0) * NF + tl.arange(0, NF)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS, NF), tl.float32) + tl.load(bias + column)[None, :]
    total = _product(total, work + S * size + rows * F, weights, column, F, F, KB, LOW, IP)
    if WITH_NORM:
        total = _product(total, low + NORM * size + rows * F, weights + F * F, column, F, F, KB, LOW, IP)
    value, derivative = _silu(total)
    tl.store(_tile(low, HIDDEN, rows, column, F, size), value.to(LOW))
    tl.store(_tile(work, DERIVATIVE, rows, column, F, size), derivative)


@triton.jit
def _inner(work, MINE: tl.constexpr, rows, column, F: tl.constexpr, size):
    """⟨u, w⟩ over the axes."""
    total = tl.load(_tile(work, MINE + U, rows, column, F, size)) * tl.load(_tile(work, MINE + W, rows, column, F, size))
    for axis in tl.static_range(1, 3):
        u = tl.load(_tile(work, MINE + U + axis, rows, column, F, size))
        total += u * tl.load(_tile(work, MINE + W + axis, rows, column, F, size))
    return total


@triton.jit
def _gate(
    work, low, weights, bias, plane,
    LAYER: tl.constexpr, LAST: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr,
    KB: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """Gates a W + b for a slice, and s and v after the update. The last layer's v is not needed."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = tl.program_id(0) * NF + tl.arange(0, NF)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    hidden = low + HIDDEN * size + rows * F
    zero = tl.zeros((ROWS, NF), tl.float32)
    gate_ss = _product(zero + tl.load(bias + column)[None, :], hidden, weights, column, F, F, KB, LOW, IP)
    gate_sv = _product(
        zero + tl.load(bias + F + column)[None, :], hidden, weights + F * F, column, F, F, KB, LOW, IP
    )
    tl.store(_tile(work, MINE + SV, rows, column, F, size), gate_sv)
    at_s = _tile(work, S, rows, column, F, size)
    tl.store(at_s, tl.load(at_s) + gate_ss + gate_sv * _inner(work, MINE, rows, column, F, size))
    if not LAST:
        gate_vv = _product(
            zero + tl.load(bias + 2 * F + column)[None, :], hidden, weights + 2 * F * F, column, F, F, KB, LOW, IP
        )
        tl.store(_tile(work, MINE + VV, rows, column, F, size), gate_vv)
        for axis in tl.static_range(3):
            v = tl.load(_tile(work, VM + axis, rows, column, F, size))
            u = tl.load(_tile(work, MINE + U + axis, rows, column, F, size))
            tl.store(_tile(work, MINE + LAYER_PLANES + VIN + axis, rows, column, F, size), v + gate_vv * u)


@triton.jit
def _readout(
    work, low, element, weights, bias, out, weights_back, atomic, plane, out_bias,
    LAST: tl.constexpr, F: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr,
    KB: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """Energy of each atom, and its derivative by s for a slice."""
    MINE: tl.constexpr = COMMON_PLANES + LAST * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = tl.program_id(0) * NF + tl.arange(0, NF)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    half = tl.arange(0, HALF)
    total = tl.zeros((ROWS, HALF), tl.float32) + tl.load(bias + half)[None, :]
    total = _product(total, work + S * size + rows * F, weights, half, HALF, F, KB, LOW, IP)
    value, derivative = _silu(total)
    last = tl.load(out + half)[None, :]
    is_atom = tl.load(element + rows) > 0
    if tl.program_id(0) == 0:
        tl.store(atomic + rows, tl.where(is_atom, tl.sum(value * last, axis=1) + out_bias, 0.0))
    grad = tl.where(is_atom[:, None], derivative * last, 0.0).to(LOW)
    back = tl.load(weights_back + half[:, None] * F + column[None, :])
    grad_s = tl.dot(grad, back, input_precision=IP)
    tl.store(_tile(work, GS, rows, column, F, size), grad_s)
    tl.store(_tile(low, G3, rows, column, F, size), grad_s.to(LOW))
    tl.store(
        _tile(low, G3 + 1, rows, column, F, size),
        (grad_s * _inner(work, MINE, rows, column, F, size)).to(LOW),
    )


@triton.jit
def _hidden_back(
    work, low, weights, plane,
    GRADS: tl.constexpr, PARTS: tl.constexpr, DERIVATIVE: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr,
    NF: tl.constexpr, KB: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """Gradient before a silu for a slice: (Σ_part g_part W_partᵀ) silu′."""
    size = tl.cast(plane, tl.int64)
    column = tl.program_id(0) * NF + tl.arange(0, NF)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS, NF), tl.float32)
    for part in tl.static_range(PARTS):
        left = low + (GRADS + part) * size + rows * F
        total = _product(total, left, weights + part * F * F, column, F, F, KB, LOW, IP)
    total *= tl.load(_tile(work, DERIVATIVE, rows, column, F, size))
    tl.store(_tile(low, GPRE, rows, column, F, size), total.to(LOW))


@triton.jit
def _gate_back(
    work, low, weights, plane,
    LAYER: tl.constexpr, LAST: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr,
    KB: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """Gradients by s before the update, and by u and w, for a slice."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = tl.program_id(0) * NF + tl.arange(0, NF)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    left = low + GPRE * size + rows * F
    at_s = _tile(work, GS, rows, column, F, size)
    grad_s = tl.load(at_s)
    grad_inner = grad_s * tl.load(_tile(work, MINE + SV, rows, column, F, size))
    tl.store(at_s, _product(grad_s, left, weights, column, F, F, KB, LOW, IP))
    zero = tl.zeros((ROWS, NF), tl.float32)
    grad_norm = _product(zero, left, weights + F * F, column, F, F, KB, LOW, IP)
    square = zero + EPSILON
    for axis in tl.static_range(3):
        w = tl.load(_tile(work, MINE + W + axis, rows, column, F, size))
        square += w * w
    by_norm = grad_norm / tl.sqrt(square)
    for axis in tl.static_range(3):
        u = tl.load(_tile(work, MINE + U + axis, rows, column, F, size))
        w = tl.load(_tile(work, MINE + W + axis, rows, column, F, size))
        grad_u = grad_inner * w
        if not LAST:
            gate_vv = tl.load(_tile(work, MINE + VV, rows, column, F, size))
            grad_u += gate_vv * tl.load(_tile(work, GV + axis, rows, column, F, size))
        tl.store(_tile(low, GU + axis, rows, column, F, size), grad_u.to(LOW))
        tl.store(_tile(low, GW + axis, rows, column, F, size), (by_norm * w + grad_inner * u).to(LOW))


@triton.jit
def _message_back(
    work, low, unit, basis, slope, mix_back, filters, partial, plane, n_slots,
    LAYER: tl.constexpr, LAST: tl.constexpr, F: tl.constexpr, SLOTS: tl.constexpr, MOLECULES: tl.constexpr,
    RBF: tl.constexpr, NF: tl.constexpr, KB: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """Gradient by v after the messages for a slice; by what each atom a sent to its partners b; and by the pairs.

    ``partial`` [slices, 4, pairs] sums over layers ∂E/∂d and ∂E/∂r̂_ba of the message from a to b.
    """
    ROWS: tl.constexpr = MOLECULES * SLOTS
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = tl.program_id(0) * NF + tl.arange(0, NF)
    group = tl.program_id(1)
    rows = group * ROWS + tl.arange(0, ROWS)
    for axis in tl.static_range(3):
        at_v = _tile(work, GV + axis, rows, column, F, size)
        grad = tl.zeros((ROWS, NF), tl.float32)
        if not LAST:
            grad += tl.load(at_v)
        grad = _product(grad, low + (GU + axis) * size + rows * F, mix_back, column, F, F, KB, LOW, IP)
        grad = _product(grad, low + (GW + axis) * size + rows * F, mix_back + F * F, column, F, F, KB, LOW, IP)
        tl.store(at_v, grad)
    tl.debug_barrier()

    k = tl.arange(0, RBF)
    n_pairs = size // F * SLOTS
    of_slice = partial + tl.program_id(0) * 4 * n_pairs
    sent_s = tl.zeros((TILE, NF), tl.float32)
    sent_r = tl.zeros((TILE, NF), tl.float32)
    sent_x = tl.zeros((TILE, NF), tl.float32)
    sent_y = tl.zeros((TILE, NF), tl.float32)
    sent_z = tl.zeros((TILE, NF), tl.float32)
    for step in tl.range(0, tl.cdiv(n_slots, TILE // ROWS)):
        row, partner, atom = _pairs(step, group, MOLECULES, SLOTS)
        own = group * ROWS + row
        pair = partner.to(tl.int64) * SLOTS + atom
        where = pair[:, None] * RBF + k[None, :]
        filter_s, filter_v, filter_r = _filters(tl.load(basis + where), filters, k, column, F, RBF, IP)
        slope_s, slope_v, slope_r = _filters(tl.load(slope + where), filters, k, column, F, RBF, IP)
        grad_s = tl.load(_tile(work, GS, partner, column, F, size))
        grad_x = tl.load(_tile(work, GV, partner, column, F, size))
        grad_y = tl.load(_tile(work, GV + 1, partner, column, F, size))
        grad_z = tl.load(_tile(work, GV + 2, partner, column, F, size))
        # The message goes from a to b: against r̂_ab.
        at = unit + partner.to(tl.int64) * 3 * SLOTS + atom
        along = -(
            grad_x * tl.load(at)[:, None] + grad_y * tl.load(at + SLOTS)[:, None] + grad_z * tl.load(at + 2 * SLOTS)[:, None]
        )
        phi_s = tl.load(_tile(work, MINE + PHI, own, column, F, size))
        phi_r = tl.load(_tile(work, MINE + PHI + 2, own, column, F, size))
        by_distance = phi_s * grad_s * slope_s + phi_r * along * slope_r
        if LAYER > 0:
            sent_s += filter_s * grad_s
            sent_r += filter_r * along
            sent_x += filter_v * grad_x
            sent_y += filter_v * grad_y
            sent_z += filter_v * grad_z
            phi_v = tl.load(_tile(work, MINE + PHI + 1, own, column, F, size))
            overlap = grad_x * tl.load(_tile(work, MINE + VIN, own, column, F, size))
            overlap += grad_y * tl.load(_tile(work, MINE + VIN + 1, own, column, F, size))
            overlap += grad_z * tl.load(_tile(work, MINE + VIN + 2, own, column, F, size))
            by_distance += phi_v * overlap * slope_v
        weight = phi_r * filter_r
        here = of_slice + pair
        total_d = tl.sum(by_distance, axis=1)
        total_x = tl.sum(weight * grad_x, axis=1)
        total_y = tl.sum(weight * grad_y, axis=1)
        total_z = tl.sum(weight * grad_z, axis=1)
        if not LAST:
            total_d += tl.load(here)
            total_x += tl.load(here + n_pairs)
            total_y += tl.load(here + 2 * n_pairs)
            total_z += tl.load(here + 3 * n_pairs)
        tl.store(here, total_d)
        tl.store(here + n_pairs, total_x)
        tl.store(here + 2 * n_pairs, total_y)
        tl.store(here + 3 * n_pairs, total_z)
    if LAYER > 0:
        tl.debug_barrier()  # all have read the gradients that now change
        x = _over_partners(sent_x, ROWS, NF)
        y = _over_partners(sent_y, ROWS, NF)
        z = _over_partners(sent_z, ROWS, NF)
        by_phi_v = x * tl.load(_tile(work, MINE + VIN, rows, column, F, size))
        by_phi_v += y * tl.load(_tile(work, MINE + VIN + 1, rows, column, F, size))
        by_phi_v += z * tl.load(_tile(work, MINE + VIN + 2, rows, column, F, size))
        tl.store(_tile(low, GPHI, rows, column, F, size), _over_partners(sent_s, ROWS, NF).to(LOW))
        tl.store(_tile(low, GPHI + 1, rows, column, F, size), by_phi_v.to(LOW))
        tl.store(_tile(low, GPHI + 2, rows, column, F, size), _over_partners(sent_r, ROWS, NF).to(LOW))
        phi_v = tl.load(_tile(work, MINE + PHI + 1, rows, column, F, size))
        at_x = _tile(work, GV, rows, column, F, size)
        at_y = _tile(work, GV + 1, rows, column, F, size)
        at_z = _tile(work, GV + 2, rows, column, F, size)
        tl.store(at_x, tl.load(at_x) + phi_v * x)
        tl.store(at_y, tl.load(at_y) + phi_v * y)
        tl.store(at_z, tl.load(at_z) + phi_v * z)


@triton.jit
def _scalars_back(
    work, low, weights, plane,
    LAYER: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr, KB: tl.constexpr,
    LOW: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """Gradient by s before the layer for a slice, and by the gates of the layer below."""
    BELOW: tl.constexpr = COMMON_PLANES + (LAYER - 1) * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = tl.program_id(0) * NF + tl.arange(0, NF)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    at_s = _tile(work, GS, rows, column, F, size)
    grad_s = _product(tl.load(at_s), low + GPRE * size + rows * F, weights, column, F, F, KB, LOW, IP)
    tl.store(at_s, grad_s)
    tl.store(_tile(low, G3, rows, column, F, size), grad_s.to(LOW))
    grad_sv = grad_s * _inner(work, BELOW, rows, column, F, size)
    tl.store(_tile(low, G3 + 1, rows, column, F, size), grad_sv.to(LOW))
    grad_vv = tl.zeros((ROWS, NF), tl.float32)
    for axis in tl.static_range(3):
        u = tl.load(_tile(work, BELOW + U + axis, rows, column, F, size))
        grad_vv += u * tl.load(_tile(work, GV + axis, rows, column, F, size))
    tl.store(_tile(low, G3 + 2, rows, column, F, size), grad_vv.to(LOW))


@triton.jit
def _forces(
    positions, element, atomic, charge, radius, reference, partial, energy, forces, n_slots, plane,
    SLICES: tl.constexpr, F: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Energy of a molecule and forces on its atoms: the network's pairs, and the repulsion."""
    molecule = tl.program_id(0)
    a = tl.arange(0, SLOTS)[:, None]
    b = tl.arange(0, SLOTS)[None, :]
    n_pairs = tl.cast(plane, tl.int64) // F * SLOTS
    row = molecule * SLOTS
    element_a = tl.load(element + row + a)
    element_b = tl.load(element + row + b)
    paired = (element_a > 0) & (element_b > 0) & (a != b)
    own_a = molecule * n_slots + tl.minimum(a, n_slots - 1)
    own_b = molecule * n_slots + tl.minimum(b, n_slots - 1)
    x, y, z = _vector(positions, own_b, own_a, 0.0)
    x = tl.where(paired, x, 1.0)  # r_ba = x_a − x_b
    d = tl.sqrt(x * x + y * y + z * z)
    x, y, z = x / d, y / d, z / d

    there = (row + b).to(tl.int64) * SLOTS + a  # the message from a to b
    back = (row + a).to(tl.int64) * SLOTS + b
    by_d = tl.zeros((SLOTS, SLOTS), tl.float32)
    by_x = tl.zeros((SLOTS, SLOTS), tl.float32)
    by_y = tl.zeros((SLOTS, SLOTS), tl.float32)
    by_z = tl.zeros((SLOTS, SLOTS), tl.float32)
    for number in tl.static_range(SLICES):
        of_slice = partial + number * 4 * n_pairs
        by_d += tl.load(of_slice + there, paired, 0.0) + tl.load(of_slice + back, paired, 0.0)
        by_x += tl.load(of_slice + n_pairs + there, paired, 0.0) - tl.load(of_slice + n_pairs + back, paired, 0.0)
        by_y += tl.load(of_slice + 2 * n_pairs + there, paired, 0.0) - tl.load(of_slice + 2 * n_pairs + back, paired, 0.0)
        by_z += tl.load(of_slice + 3 * n_pairs + there, paired, 0.0) - tl.load(of_slice + 3 * n_pairs + back, paired, 0.0)

    charge_a = tl.load(charge + element_a)
    charge_b = tl.load(charge + element_b)
    power = tl.exp(0.23 * tl.log(tl.maximum(charge_a, 1.0))) + tl.exp(0.23 * tl.log(tl.maximum(charge_b, 1.0)))
    inverse = power / SCREENING
    contact = tl.load(radius + element_a) + tl.load(radius + element_b)
    r = d * inverse
    e1 = 0.18175 * tl.exp(-3.19980 * r)
    e2 = 0.50986 * tl.exp(-0.94229 * r)
    e3 = 0.28022 * tl.exp(-0.40290 * r)
    e4 = 0.02817 * tl.exp(-0.20162 * r)
    screening = e1 + e2 + e3 + e4
    screening_slope = -(3.19980 * e1 + 0.94229 * e2 + 0.40290 * e3 + 0.20162 * e4) * inverse
    fade, fade_slope = _envelope(d / contact)
    bare = tl.where(paired, COULOMB * charge_a * charge_b / d, 0.0)
    repulsion = bare * screening * fade
    by_d += bare * (screening_slope * fade + screening * fade_slope / contact - screening * fade / d)

    radial = by_d - (by_x * x + by_y * y + by_z * z) / d
    is_atom = (tl.arange(0, SLOTS) < n_slots) & (tl.load(element + row + tl.arange(0, SLOTS)) > 0)
    at = forces + (molecule * n_slots + tl.arange(0, SLOTS)) * 3
    inside = tl.arange(0, SLOTS) < n_slots
    force_x = -tl.sum((radial * x + by_x / d).to(tl.float64), axis=1)
    force_y = -tl.sum((radial * y + by_y / d).to(tl.float64), axis=1)
    force_z = -tl.sum((radial * z + by_z / d).to(tl.float64), axis=1)
    tl.store(at, tl.where(is_atom, force_x, 0.0), inside)
    tl.store(at + 1, tl.where(is_atom, force_y, 0.0), inside)
    tl.store(at + 2, tl.where(is_atom, force_z, 0.0), inside)
    pairs = 0.5 * tl.sum(repulsion.to(tl.float64), axis=1)
    learned = tl.load(atomic + row + tl.arange(0, SLOTS)).to(tl.float64)
    of_element = tl.load(reference + tl.load(element + row + tl.arange(0, SLOTS)))
    tl.store(energy + molecule, tl.sum(tl.where(is_atom, learned + pairs + of_element, 0.0)))


@dataclass(frozen=True)
class Shape:
    """How a batch is laid over the chip.

    Attributes:
        slots: rows of one molecule; a power of two.
        molecules: in one program.
        slice_features: columns of one program.
        warps: of one program.
    """

    slots: int
    molecules: int
    slice_features: int
    warps: int = 4


def shape_for(n_systems: int, n_slots: int, features: int) -> Shape:
    """Wide for few molecules, each layer spread over the chip; for many, as many as a tile holds share a program.

    Raises:
        EngineError: more slots than the kernels hold.
    """
    if n_slots > ALL_PAIRS_MAX_ATOMS:
        raise EngineError(
            f"engine 'fused' takes molecules of up to {ALL_PAIRS_MAX_ATOMS} atoms; the largest of this batch has "
            f"{n_slots}: use engine 'cuda_graph'"
        )
    slots = max(16, triton.next_power_of_2(n_slots))
    few = n_systems <= FEW_MOLECULES
    return Shape(slots, 1 if few else TILE.value // slots, min(features, 16 if few else 32))


FEW_MOLECULES = 16
PRODUCTS: dict[Precision, tuple[torch.dtype, Any, str]] = {
    # Three products of TF32 halves are as exact as one of FP32, and tensor cores do them.
    "fp32": (torch.float32, tl.float32, "tf32x3"),
    "tf32": (torch.float32, tl.float32, "tf32"),
    "fp16_autocast": (torch.float16, tl.float16, "tf32"),
}


class FusedEngine:
    """Energy and forces in a few dozen kernels, without autograd; `CudaGraphEngine` captures it.

    Raises:
        EngineError: a precision that it does not have.
    """

    name = "fused"
    uses_cuda_graphs = False

    def __init__(self, model: PaiNN, precision: Precision, device: torch.device) -> None:
        if precision not in PRODUCTS:
            raise EngineError(f"engine 'fused' has no precision {precision!r}: use one of {', '.join(PRODUCTS)}")
        self.precision, self.device, self.cutoff = precision, device, model.architecture.cutoff
        self.compile_s = 0.0
        self._weights = _Weights.of(model, PRODUCTS[precision][0], device)
        self._plans: dict[tuple[int, int], _Plan] = {}

    @property
    def capturable(self) -> FusedEngine:
        """It only launches kernels."""
        return self

    @property
    def compiled_graphs(self) -> int:
        """One for each shape of batch so far."""
        return len(self._plans)

    def has_graph(self, batch: AtomicBatch) -> bool:
        """Whether this shape has run."""
        return (batch.n_systems, batch.n_slots) in self._plans

    def __call__(self, batch: AtomicBatch) -> Prediction:
        """Energy and forces.

        Raises:
            EngineError: periodic systems, or more atoms than it takes.
        """
        if batch.shifts is not None:
            raise EngineError("engine 'fused' takes no periodic systems: use engine 'cuda_graph'")
        plan = self._plans.get((batch.n_systems, batch.n_slots))
        if plan is not None:
            return plan(batch)
        shape = shape_for(batch.n_systems, batch.n_slots, self._weights.features)
        started = time.perf_counter()
        plan = _Plan(self._weights, self.precision, shape, batch)
        prediction = plan(batch)
        self.compile_s += time.perf_counter() - started
        self._plans[batch.n_systems, batch.n_slots] = plan
        return prediction


@dataclass(frozen=True)
class _Weights:
    """Weights as the kernels read them: operands of products as [in, out], features padded to a power of two."""

    features: int
    n_rbf: int
    rbf: int
    cutoff: float
    layers: tuple[dict[str, Tensor], ...]
    tables: dict[str, Tensor]
    readout: dict[str, Tensor]
    out_bias: float

    @staticmethod
    def of(model: PaiNN, low: torch.dtype, device: torch.device) -> _Weights:
        n, n_rbf = model.architecture.n_features, model.architecture.n_rbf
        features, rbf = max(32, triton.next_power_of_2(n)), max(16, triton.next_power_of_2(n_rbf + 1))
        half = max(16, triton.next_power_of_2(n // 2))

        def padded(values: Tensor, *sizes: int) -> Tensor:
            """Zeros at the end of the last axes."""
            missing = [size - there for size, there in zip(sizes, values.shape[-len(sizes) :], strict=True)]
            pad = [number for count in reversed(missing) for number in (0, count)]
            return functional.pad(values.detach().float(), pad).to(device).contiguous()

        def operand(values: Tensor, *sizes: int) -> Tensor:
            return padded(values, *sizes).to(low)

        layers = []
        for message, update in zip(model.messages, model.updates, strict=True):
            first, second = message.scalar_net[0], message.scalar_net[2]
            hidden, gates = update.scalar_net[0], update.scalar_net[2]
            w2 = second.weight.view(3, n, n)
            mix = update.mix.weight.view(2, n, n)
            wa = hidden.weight.view(n, 2, n).transpose(0, 1)  # [part, out, in]
            wb = gates.weight.view(3, n, n)
            filters = torch.cat([message.filter_net.weight, message.filter_net.bias.unsqueeze(-1)], dim=-1)
            layers.append(
                {
                    "w1": operand(first.weight.t(), features, features),
                    "b1": padded(first.bias, features),
                    "w1_back": operand(first.weight, features, features),
                    "w2": operand(w2.transpose(1, 2), features, features),
                    "b2": padded(second.bias.view(3, n), features),
                    "w2_back": operand(w2, features, features),
                    "filters": operand(filters.view(3, n, n_rbf + 1).transpose(1, 2), rbf, features),
                    "mix": operand(mix.transpose(1, 2), features, features),
                    "mix_back": operand(mix, features, features),
                    "wa": operand(wa.transpose(1, 2), features, features),
                    "ba": padded(hidden.bias, features),
                    "wa_back": operand(wa, features, features),
                    "wb": operand(wb.transpose(1, 2), features, features),
                    "bb": padded(gates.bias.view(3, n), features),
                    "wb_back": operand(wb, features, features),
                }
            )
        with torch.no_grad():
            phi0 = model.messages[0].scalar_net(model.embedding.weight).view(-1, 3, n)
        into, out = model.readout[0], model.readout[2]
        return _Weights(
            features=features,
            n_rbf=n_rbf,
            rbf=rbf,
            cutoff=model.architecture.cutoff,
            layers=tuple(layers),
            tables={
                "element_index": model.element_index.to(device),
                "radius": model.covalent_radius.float().to(device),
                "charge": model.nuclear_charge.float().to(device),
                "reference": model.reference_energies.to(device),
                "embedding": padded(model.embedding.weight, features),
                "phi0": padded(phi0, features),
            },
            readout={
                "weights": operand(into.weight.t(), features, half),
                "bias": padded(into.bias, half),
                "out": padded(out.weight.view(-1), half),
                "back": operand(into.weight, half, features),
            },
            out_bias=float(out.bias.detach()),
        )


class _Plan:
    """Buffers and launches for one shape of batch."""

    def __init__(self, weights: _Weights, precision: Precision, shape: Shape, batch: AtomicBatch) -> None:
        self._weights, self._shape = weights, shape
        low, product, arithmetic = PRODUCTS[precision]
        self._n_systems, self._n_slots = batch.n_systems, batch.n_slots
        device, features, slots = batch.positions.device, weights.features, shape.slots
        self._groups = -(-batch.n_systems // shape.molecules)
        self._rows = self._groups * shape.molecules * slots
        self._slices = features // shape.slice_features
        n_layers = len(weights.layers)
        planes = COMMON_PLANES.value + n_layers * LAYER_PLANES.value
        self._work = torch.zeros(planes, self._rows, features, device=device)
        self._low = torch.zeros(LOW_PLANES.value, self._rows, features, device=device, dtype=low)
        self._basis, self._slope = torch.zeros(2, self._rows, slots, weights.rbf, device=device, dtype=low)
        self._unit = torch.zeros(self._rows, 3, slots, device=device)
        self._element = torch.zeros(self._rows, dtype=torch.int32, device=device)
        self._atomic = torch.zeros(self._rows, device=device)
        self._partial = torch.zeros(self._slices, 4, self._rows, slots, device=device)
        common = {"F": features, "LOW": product}
        dense = {
            **common, "ROWS": shape.molecules * slots, "NF": shape.slice_features, "KB": min(features, 128),
            "IP": arithmetic, "num_warps": shape.warps,
        }  # fmt: skip
        self._dense = dense
        self._pairs = {
            **{key: value for key, value in dense.items() if key != "ROWS"},
            "SLOTS": slots, "MOLECULES": shape.molecules, "RBF": weights.rbf,
        }  # fmt: skip
        self._geometry = {**common, "SLOTS": slots, "RBF": weights.rbf, "N_RBF": weights.n_rbf, "num_warps": 4}
        self._forces = {"SLICES": self._slices, "F": features, "SLOTS": slots, "num_warps": 4 if slots < 64 else 8}

    def __call__(self, batch: AtomicBatch) -> Prediction:
        weights, work, low = self._weights, self._work, self._low
        tables, readout, n_slots = weights.tables, weights.readout, self._n_slots
        plane = self._rows * weights.features
        grid, last = (self._slices, self._groups), len(weights.layers) - 1
        dense, pairs = self._dense, self._pairs
        energy = torch.empty(self._n_systems, dtype=torch.float64, device=work.device)
        forces = torch.empty(len(batch.positions), 3, dtype=torch.float64, device=work.device)

        _geometry[(self._rows,)](
            batch.positions, batch.atomic_numbers, tables["element_index"], tables["radius"], tables["embedding"],
            tables["phi0"], work, self._element, self._unit, self._basis, self._slope,
            self._n_systems, n_slots, plane, weights.cutoff, **self._geometry,
        )  # fmt: skip
        for index, layer in enumerate(weights.layers):
            planes = COMMON_PLANES.value + index * LAYER_PLANES.value
            if index > 0:
                _hidden[grid](
                    work, low, layer["w1"], layer["b1"], plane, DERIVATIVE=planes + DH.value, WITH_NORM=False, **dense
                )
            _message[grid](
                work, low, self._unit, self._basis, layer["w2"], layer["b2"], layer["filters"], plane, n_slots,
                LAYER=index, **pairs,
            )  # fmt: skip
            _mix[grid](work, low, layer["mix"], plane, LAYER=index, **dense)
            _hidden[grid](
                work, low, layer["wa"], layer["ba"], plane, DERIVATIVE=planes + DA.value, WITH_NORM=True, **dense
            )
            _gate[grid](work, low, layer["wb"], layer["bb"], plane, LAYER=index, LAST=index == last, **dense)
        _readout[grid](
            work, low, self._element, readout["weights"], readout["bias"], readout["out"], readout["back"],
            self._atomic, plane, weights.out_bias, LAST=last, HALF=readout["bias"].shape[0], **dense,
        )  # fmt: skip
        for index in reversed(range(last + 1)):
            layer, planes = weights.layers[index], COMMON_PLANES.value + index * LAYER_PLANES.value
            _hidden_back[grid](
                work, low, layer["wb_back"], plane,
                GRADS=G3.value, PARTS=2 if index == last else 3, DERIVATIVE=planes + DA.value, **dense,
            )  # fmt: skip
            _gate_back[grid](work, low, layer["wa_back"], plane, LAYER=index, LAST=index == last, **dense)
            _message_back[grid](
                work, low, self._unit, self._basis, self._slope, layer["mix_back"], layer["filters"], self._partial,
                plane, n_slots, LAYER=index, LAST=index == last, **pairs,
            )  # fmt: skip
            if index > 0:
                _hidden_back[grid](
                    work, low, layer["w2_back"], plane,
                    GRADS=GPHI.value, PARTS=3, DERIVATIVE=planes + DH.value, **dense,
                )  # fmt: skip
                _scalars_back[grid](work, low, layer["w1_back"], plane, LAYER=index, **dense)
        _forces[(self._n_systems,)](
            batch.positions, self._element, self._atomic, tables["charge"], tables["radius"], tables["reference"],
            self._partial, energy, forces, n_slots, plane, **self._forces,
        )  # fmt: skip
        return Prediction(energy, forces)
