"""The fused engine: PaiNN's energy and forces in Triton kernels with a derivative derived by hand.

docs/fused.md derives what is computed here, with the names of this file. Nothing else in the project knows Triton.

A *group* is the molecules that share a program, ``ROWS`` rows of atoms; a *slice* is ``NF`` of the features. Kernels
have one program for each slice and group and compute whole sums, so that nothing is added by atomics and the same input
gives the same bits. Rows are ``molecule · SLOTS + atom``. Arrays of ``[rows, F]``, *planes*, lie in two workspaces:
``work`` holds FP32, ``low`` what is only ever an operand of a product, in the precision of products.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional

from mlff_exp.batch import AtomicBatch
from mlff_exp.config import Precision
from mlff_exp.neighbors import ALL_PAIRS_MAX_ATOMS
from mlff_exp.painn import BOHR_ANG, CORE_INNER, CORE_OUTER, COULOMB_EV_ANG, NORM_SMOOTHING, Message, PaiNN, Update
from mlff_exp.prediction import EngineError, Prediction

# Constants that kernels read must be of this type.
COULOMB = tl.constexpr(COULOMB_EV_ANG)
SCREENING = tl.constexpr(0.88534 * BOHR_ANG)
EPSILON = tl.constexpr(NORM_SMOOTHING)
INNER = tl.constexpr(CORE_INNER)
CORE_WIDTH = tl.constexpr(CORE_OUTER - CORE_INNER)
PI = tl.constexpr(math.pi)

# Planes of ``work``: those of all layers, then those of each layer.
S, VM, GS, GV, GM, COMMON_PLANES = (tl.constexpr(n) for n in (0, 1, 4, 5, 8, 11))
PHI, VIN, U, W, UW, SV, VV, DA, DH, LAYER_PLANES = (tl.constexpr(n) for n in (0, 3, 6, 9, 12, 13, 14, 15, 16, 17))
# Planes of ``low``.
HIDDEN, NORM, G3, GPRE, GU, GW, GPHI, LOW_PLANES = (tl.constexpr(n) for n in (0, 1, 2, 5, 6, 9, 12, 15))


@triton.jit
def _wait(EARLY: tl.constexpr):
    """Until the kernel before has written everything; then let the next one start, and read its weights, meanwhile."""
    if EARLY:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def _tile(base, plane, rows, columns, F: tl.constexpr, size):
    """Pointers to [rows, columns] of a plane."""
    return base + plane * size + (rows[:, None] * F + columns[None, :])


@triton.jit
def _left(first, K: tl.constexpr, SPLIT: tl.constexpr, LOW: tl.constexpr):
    """Left operand [ROWS, K] from pointers to each row's first number; [SPLIT, ROWS, K / SPLIT] if split."""
    if SPLIT == 1:
        return tl.load(first[:, None] + tl.arange(0, K)[None, :]).to(LOW)
    else:
        k = tl.arange(0, SPLIT)[:, None, None] * (K // SPLIT) + tl.arange(0, K // SPLIT)[None, None, :]
        return tl.load(first[None, :, None] + k).to(LOW)


@triton.jit
def _right(weights, column, F: tl.constexpr, K: tl.constexpr, SPLIT: tl.constexpr):
    """Right operand, weights [K, F][:, column]; [SPLIT, K / SPLIT, NF] if split."""
    if SPLIT == 1:
        return tl.load(weights + tl.arange(0, K)[:, None] * F + column[None, :])
    else:
        k = tl.arange(0, SPLIT)[:, None, None] * (K // SPLIT) + tl.arange(0, K // SPLIT)[None, :, None]
        return tl.load(weights + k * F + column[None, None, :])


@triton.jit
def _total(parts, SPLIT: tl.constexpr):
    """[ROWS, NF] of FP32. Split, every warp sums a part of K, where rows are too few to occupy more than one."""
    if SPLIT == 1:
        return parts
    else:
        return tl.sum(parts, axis=0)


@triton.jit
def _product(left, right, SPLIT: tl.constexpr, IP: tl.constexpr):
    """[ROWS, NF] of FP32."""
    return _total(tl.dot(left, right, input_precision=IP), SPLIT)


@triton.jit
def _add_4(a, b, c, d, e, f, g, h):
    return a + e, b + f, c + g, d + h


@triton.jit
def _add_5(a, b, c, d, e, f, g, h, i, j):
    return a + f, b + g, c + h, d + i, e + j


@triton.jit
def _add_6(a, b, c, d, e, f, g, h, i, j, k, m):
    return a + g, b + h, c + i, d + j, e + k, f + m


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
def _repulsion(d, charge_a, charge_b, contact):
    """Ziegler-Biersack-Littmark repulsion of a pair and its derivative by d."""
    power = tl.exp(0.23 * tl.log(tl.maximum(charge_a, 1.0))) + tl.exp(0.23 * tl.log(tl.maximum(charge_b, 1.0)))
    inverse = power / SCREENING
    r = d * inverse
    e1 = 0.18175 * tl.exp(-3.19980 * r)
    e2 = 0.50986 * tl.exp(-0.94229 * r)
    e3 = 0.28022 * tl.exp(-0.40290 * r)
    e4 = 0.02817 * tl.exp(-0.20162 * r)
    screening = e1 + e2 + e3 + e4
    slope = -(3.19980 * e1 + 0.94229 * e2 + 0.40290 * e3 + 0.20162 * e4) * inverse
    fade, fade_slope = _envelope(d / contact)
    bare = COULOMB * charge_a * charge_b / d
    return bare * screening * fade, bare * (slope * fade + screening * (fade_slope / contact - fade / d))


@triton.jit
def _geometry(
    molecule, first,
    positions, numbers, radius, charge, embedding, phi0, work, element, unit, push, repelled, basis, slope,
    n_systems, n_slots, plane, cutoff,
    F: tl.constexpr, SLOTS: tl.constexpr, RBF: tl.constexpr, N_RBF: tl.constexpr, PARTNERS: tl.constexpr,
    LOW: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Pairs of some atoms b with all atoms a of a molecule: what depends on positions and elements alone.

    ``unit`` r̂_ab and 1/d, [rows b, 4, SLOTS]; ``push``, the repulsion's derivative by d, [rows b, SLOTS]; ``repelled``,
    half of b's repulsion; ``basis`` inputs of the filters and ``slope`` their derivatives, [rows b, SLOTS, RBF]; and
    what layer 0 starts from.
    """
    _wait(EARLY)
    a = tl.arange(0, SLOTS)[None, :]
    b = first + tl.arange(0, PARTNERS)
    row_b = molecule * SLOTS + b
    inside_b = (molecule < n_systems) & (b < n_slots)
    inside = inside_b[:, None] & (a < n_slots)
    own_b = tl.where(inside_b, molecule * n_slots + b, 0)
    own = tl.where(inside, molecule * n_slots + a, 0)
    z_b = tl.where(inside_b, tl.load(numbers + own_b), 0).to(tl.int32)
    z_a = tl.where(inside, tl.load(numbers + own), 0).to(tl.int32)
    x = (tl.load(positions + 3 * own_b)[:, None] - tl.load(positions + 3 * own)).to(tl.float32)
    y = (tl.load(positions + 3 * own_b + 1)[:, None] - tl.load(positions + 3 * own + 1)).to(tl.float32)
    z = (tl.load(positions + 3 * own_b + 2)[:, None] - tl.load(positions + 3 * own + 2)).to(tl.float32)
    paired = (z_a > 0) & (z_b > 0)[:, None] & (a != b[:, None])
    x = tl.where(paired, x, cutoff)
    d = tl.sqrt(x * x + y * y + z * z)
    at = unit + row_b.to(tl.int64)[:, None] * 4 * SLOTS + a
    tl.store(at, x / d)
    tl.store(at + SLOTS, y / d)
    tl.store(at + 2 * SLOTS, z / d)
    tl.store(at + 3 * SLOTS, 1.0 / d)

    contact = tl.load(radius + z_a) + tl.load(radius + z_b)[:, None]
    near, near_slope = _envelope(d / cutoff)
    core, core_slope = _envelope(tl.maximum((d / contact - INNER) / CORE_WIDTH, 0.0))
    e = tl.where(paired, near * (1.0 - core), 0.0)
    e_slope = tl.where(paired, near_slope / cutoff * (1.0 - core) - near * core_slope / (CORE_WIDTH * contact), 0.0)

    n = tl.arange(0, RBF)[None, None, :]
    frequency = (n + 1).to(tl.float32) * (PI / cutoff)
    distance = d[:, :, None]
    scale = tl.sqrt(2.0 / cutoff)
    radial = scale * tl.sin(distance * frequency) / distance
    radial_slope = (scale * frequency * tl.cos(distance * frequency) - radial) / distance
    # After the radial functions a column for the bias, and zeros.
    radial = tl.where(n < N_RBF, radial, tl.where(n == N_RBF, 1.0, 0.0))
    radial_slope = tl.where(n < N_RBF, radial_slope, 0.0)
    where = (row_b.to(tl.int64)[:, None, None] * SLOTS + a[:, :, None]) * RBF + n
    tl.store(basis + where, (radial * e[:, :, None]).to(LOW))
    tl.store(slope + where, (radial_slope * e[:, :, None] + radial * e_slope[:, :, None]).to(LOW))

    energy, derivative = _repulsion(d, tl.load(charge + z_a), tl.load(charge + z_b)[:, None], contact)
    tl.store(push + row_b.to(tl.int64)[:, None] * SLOTS + a, tl.where(paired, derivative, 0.0))
    tl.store(repelled + row_b, 0.5 * tl.sum(tl.where(paired, energy, 0.0).to(tl.float64), axis=1))

    f = tl.arange(0, F)[None, :]
    tl.store(element + row_b, z_b)
    size = tl.cast(plane, tl.int64)
    tl.store(work + S * size + row_b[:, None] * F + f, tl.load(embedding + z_b[:, None] * F + f))
    for part in tl.static_range(3):
        value = tl.load(phi0 + (z_b[:, None] * 3 + part) * F + f)
        tl.store(work + (COMMON_PLANES + PHI + part) * size + row_b[:, None] * F + f, value)


@triton.jit
def _phi(
    index, group, part,
    work, low, weights, bias, plane,
    LAYER: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr, SPLIT: tl.constexpr,
    LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One part p of φ = h W₂ + b₂, for a slice."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    right = _right(weights + part * F * F, column, F, F, SPLIT)
    offset = tl.load(bias + part * F + column)[None, :]
    _wait(EARLY)
    left = _left(low + HIDDEN * size + rows * F, F, SPLIT, LOW)
    tl.store(_tile(work, MINE + PHI + part, rows, column, F, size), offset + _product(left, right, SPLIT, IP))


@triton.jit
def _of_partners(work, plane, partner, column, F: tl.constexpr, size):
    """[WARPS, 1, NF] of a plane. Fewer numbers than threads, so that each thread loads just those it needs."""
    return tl.load(work + plane * size + partner[:, None, None] * F + column[None, None, :])


@triton.jit
def _of_atoms(work, plane, rows, column, F: tl.constexpr, size):
    """[1, ATOMS, NF] of a plane."""
    return tl.load(work + plane * size + rows[None, :, None] * F + column[None, None, :])


@triton.jit
def _message(
    index, group,
    work, unit, basis, filters, plane, n_slots,
    LAYER: tl.constexpr, F: tl.constexpr, SLOTS: tl.constexpr, RBF: tl.constexpr, ATOMS: tl.constexpr,
    NF: tl.constexpr, WARPS: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Messages to some atoms of a molecule, summed, for a slice: s and v after them."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ATOMS + tl.arange(0, ATOMS)
    first = group * ATOMS // SLOTS * SLOTS  # of the molecule
    atom = rows - first
    warp, k = tl.arange(0, WARPS), tl.arange(0, RBF)
    at_filters = filters + warp[:, None, None] * 0 + k[None, :, None] * F + column[None, None, :]
    filters_s = tl.load(at_filters)
    filters_v = tl.load(at_filters + RBF * F)
    filters_r = tl.load(at_filters + 2 * RBF * F)
    _wait(EARLY)
    at_s = _tile(work, S, rows, column, F, size)
    s = tl.load(at_s)
    sum_s = tl.zeros((WARPS, ATOMS, NF), tl.float32)
    sum_x = tl.zeros((WARPS, ATOMS, NF), tl.float32)
    sum_y = tl.zeros((WARPS, ATOMS, NF), tl.float32)
    sum_z = tl.zeros((WARPS, ATOMS, NF), tl.float32)
    for step in tl.range(0, tl.cdiv(n_slots, WARPS)):
        partner = first + step * WARPS + warp
        pair = partner.to(tl.int64)[:, None] * SLOTS + atom[None, :]
        inputs = tl.load(basis + pair[:, :, None] * RBF + k[None, None, :])
        at = unit + partner.to(tl.int64)[:, None] * 4 * SLOTS + atom[None, :]
        unit_x = tl.load(at)[:, :, None]
        unit_y = tl.load(at + SLOTS)[:, :, None]
        unit_z = tl.load(at + 2 * SLOTS)[:, :, None]
        phi_s = _of_partners(work, MINE + PHI, partner, column, F, size)
        phi_r = _of_partners(work, MINE + PHI + 2, partner, column, F, size)
        if LAYER > 0:
            phi_v = _of_partners(work, MINE + PHI + 1, partner, column, F, size)
            v_x = _of_partners(work, MINE + VIN, partner, column, F, size)
            v_y = _of_partners(work, MINE + VIN + 1, partner, column, F, size)
            v_z = _of_partners(work, MINE + VIN + 2, partner, column, F, size)
        sum_s += phi_s * tl.dot(inputs, filters_s, input_precision=IP)
        along = phi_r * tl.dot(inputs, filters_r, input_precision=IP)
        sum_x += along * unit_x
        sum_y += along * unit_y
        sum_z += along * unit_z
        if LAYER > 0:
            through = phi_v * tl.dot(inputs, filters_v, input_precision=IP)
            sum_x += through * v_x
            sum_y += through * v_y
            sum_z += through * v_z
    # One reduction: each one meets all warps.
    sum_s, x, y, z = tl.reduce((sum_s, sum_x, sum_y, sum_z), 0, _add_4)
    tl.store(at_s, s + sum_s)
    if LAYER > 0:
        x += tl.load(_tile(work, MINE + VIN, rows, column, F, size))
        y += tl.load(_tile(work, MINE + VIN + 1, rows, column, F, size))
        z += tl.load(_tile(work, MINE + VIN + 2, rows, column, F, size))
    tl.store(_tile(work, VM, rows, column, F, size), x)
    tl.store(_tile(work, VM + 1, rows, column, F, size), y)
    tl.store(_tile(work, VM + 2, rows, column, F, size), z)


@triton.jit
def _mix(
    index, group,
    work, low, mix, plane,
    LAYER: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr, SPLIT: tl.constexpr,
    LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """u = v U and w = v V for a slice, their product over the axes, and the norms of w."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    right_u = _right(mix, column, F, F, SPLIT)
    right_w = _right(mix + F * F, column, F, F, SPLIT)
    _wait(EARLY)
    left_x = _left(work + VM * size + rows * F, F, SPLIT, LOW)
    left_y = _left(work + (VM + 1) * size + rows * F, F, SPLIT, LOW)
    left_z = _left(work + (VM + 2) * size + rows * F, F, SPLIT, LOW)
    u_x = tl.dot(left_x, right_u, input_precision=IP)
    u_y = tl.dot(left_y, right_u, input_precision=IP)
    u_z = tl.dot(left_z, right_u, input_precision=IP)
    w_x = tl.dot(left_x, right_w, input_precision=IP)
    w_y = tl.dot(left_y, right_w, input_precision=IP)
    w_z = tl.dot(left_z, right_w, input_precision=IP)
    if SPLIT > 1:
        u_x, u_y, u_z, w_x, w_y, w_z = tl.reduce((u_x, u_y, u_z, w_x, w_y, w_z), 0, _add_6)
    tl.store(_tile(work, MINE + U, rows, column, F, size), u_x)
    tl.store(_tile(work, MINE + U + 1, rows, column, F, size), u_y)
    tl.store(_tile(work, MINE + U + 2, rows, column, F, size), u_z)
    tl.store(_tile(work, MINE + W, rows, column, F, size), w_x)
    tl.store(_tile(work, MINE + W + 1, rows, column, F, size), w_y)
    tl.store(_tile(work, MINE + W + 2, rows, column, F, size), w_z)
    tl.store(_tile(work, MINE + UW, rows, column, F, size), u_x * w_x + u_y * w_y + u_z * w_z)
    norm = tl.sqrt(w_x * w_x + w_y * w_y + w_z * w_z + EPSILON)
    tl.store(_tile(low, NORM, rows, column, F, size), norm.to(LOW))


@triton.jit
def _hidden(
    index, group,
    work, low, weights, bias, plane,
    DERIVATIVE: tl.constexpr, WITH_NORM: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr,
    SPLIT: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """silu([s, ‖w‖] W + b), or without the norms, for a slice; its derivative is kept."""
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    of_s = _right(weights, column, F, F, SPLIT)
    if WITH_NORM:
        of_norm = _right(weights + F * F, column, F, F, SPLIT)
    offset = tl.load(bias + column)[None, :]
    _wait(EARLY)
    s = _left(work + S * size + rows * F, F, SPLIT, LOW)
    if WITH_NORM:
        norm = _left(low + NORM * size + rows * F, F, SPLIT, LOW)
    total = tl.dot(s, of_s, input_precision=IP)
    if WITH_NORM:
        total = tl.dot(norm, of_norm, total, input_precision=IP)
    value, derivative = _silu(offset + _total(total, SPLIT))
    tl.store(_tile(low, HIDDEN, rows, column, F, size), value.to(LOW))
    tl.store(_tile(work, DERIVATIVE, rows, column, F, size), derivative)


@triton.jit
def _gate(
    index, group, part,
    work, low, weights, bias, plane,
    LAYER: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr,
    SPLIT: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Gates a W + b for a slice. Part 0: s after the update; part 1: v, which nobody reads after the last layer."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    at_hidden = low + HIDDEN * size + rows * F
    if part == 0:
        right_ss = _right(weights, column, F, F, SPLIT)
        right_sv = _right(weights + F * F, column, F, F, SPLIT)
        bias_ss = tl.load(bias + column)[None, :]
        bias_sv = tl.load(bias + F + column)[None, :]
        _wait(EARLY)
        hidden = _left(at_hidden, F, SPLIT, LOW)
        at_s = _tile(work, S, rows, column, F, size)
        s = tl.load(at_s)
        inner = tl.load(_tile(work, MINE + UW, rows, column, F, size))
        gate_ss = bias_ss + _product(hidden, right_ss, SPLIT, IP)
        gate_sv = bias_sv + _product(hidden, right_sv, SPLIT, IP)
        tl.store(at_s, s + gate_ss + gate_sv * inner)
        tl.store(_tile(work, MINE + SV, rows, column, F, size), gate_sv)
    else:
        right_vv = _right(weights + 2 * F * F, column, F, F, SPLIT)
        bias_vv = tl.load(bias + 2 * F + column)[None, :]
        _wait(EARLY)
        hidden = _left(at_hidden, F, SPLIT, LOW)
        v_x = tl.load(_tile(work, VM, rows, column, F, size))
        v_y = tl.load(_tile(work, VM + 1, rows, column, F, size))
        v_z = tl.load(_tile(work, VM + 2, rows, column, F, size))
        u_x = tl.load(_tile(work, MINE + U, rows, column, F, size))
        u_y = tl.load(_tile(work, MINE + U + 1, rows, column, F, size))
        u_z = tl.load(_tile(work, MINE + U + 2, rows, column, F, size))
        gate_vv = bias_vv + _product(hidden, right_vv, SPLIT, IP)
        tl.store(_tile(work, MINE + VV, rows, column, F, size), gate_vv)
        tl.store(_tile(work, MINE + LAYER_PLANES + VIN, rows, column, F, size), v_x + gate_vv * u_x)
        tl.store(_tile(work, MINE + LAYER_PLANES + VIN + 1, rows, column, F, size), v_y + gate_vv * u_y)
        tl.store(_tile(work, MINE + LAYER_PLANES + VIN + 2, rows, column, F, size), v_z + gate_vv * u_z)


@triton.jit
def _readout(
    index, group,
    work, low, element, weights, bias, out, weights_back, atomic, plane, out_bias,
    LAST: tl.constexpr, F: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr,
    SPLIT: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Energy of each atom, and its derivative by s for a slice."""
    MINE: tl.constexpr = COMMON_PLANES + LAST * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    half = tl.arange(0, HALF)
    right = _right(weights, half, HALF, F, SPLIT)
    back = tl.load(weights_back + half[:, None] * F + column[None, :])
    offset = tl.load(bias + half)[None, :]
    last = tl.load(out + half)[None, :]
    _wait(EARLY)
    s = _left(work + S * size + rows * F, F, SPLIT, LOW)
    inner = tl.load(_tile(work, MINE + UW, rows, column, F, size))
    is_atom = tl.load(element + rows) > 0
    value, derivative = _silu(offset + _product(s, right, SPLIT, IP))
    grad = tl.where(is_atom[:, None], derivative * last, 0.0).to(LOW)
    grad_s = tl.dot(grad, back, input_precision=IP)
    tl.store(_tile(work, GS, rows, column, F, size), grad_s)
    tl.store(_tile(low, G3, rows, column, F, size), grad_s.to(LOW))
    tl.store(_tile(low, G3 + 1, rows, column, F, size), (grad_s * inner).to(LOW))
    if index == 0:
        tl.store(atomic + rows, tl.where(is_atom, tl.sum(value * last, axis=1) + out_bias, 0.0))


@triton.jit
def _hidden_back(
    index, group,
    work, low, weights, plane,
    GRADS: tl.constexpr, PARTS: tl.constexpr, DERIVATIVE: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr,
    NF: tl.constexpr, SPLIT: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Gradient before a silu for a slice: (Σ_part g_part W_partᵀ) silu′."""
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    right_0 = _right(weights, column, F, F, SPLIT)
    right_1 = _right(weights + F * F, column, F, F, SPLIT)
    if PARTS == 3:
        right_2 = _right(weights + 2 * F * F, column, F, F, SPLIT)
    _wait(EARLY)
    derivative = tl.load(_tile(work, DERIVATIVE, rows, column, F, size))
    left_0 = _left(low + GRADS * size + rows * F, F, SPLIT, LOW)
    left_1 = _left(low + (GRADS + 1) * size + rows * F, F, SPLIT, LOW)
    if PARTS == 3:
        left_2 = _left(low + (GRADS + 2) * size + rows * F, F, SPLIT, LOW)
    total = tl.dot(left_1, right_1, tl.dot(left_0, right_0, input_precision=IP), input_precision=IP)
    if PARTS == 3:
        total = tl.dot(left_2, right_2, total, input_precision=IP)
    tl.store(_tile(low, GPRE, rows, column, F, size), (_total(total, SPLIT) * derivative).to(LOW))


@triton.jit
def _gate_back(
    index, group, part,
    work, low, weights, plane,
    LAYER: tl.constexpr, LAST: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr,
    SPLIT: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """For a slice, part 0: gradient by s before the update; part 1: by u and w."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    right = _right(weights + part * F * F, column, F, F, SPLIT)
    _wait(EARLY)
    left = _left(low + GPRE * size + rows * F, F, SPLIT, LOW)
    if part == 0:
        at_s = _tile(work, GS, rows, column, F, size)
        tl.store(at_s, tl.load(at_s) + _product(left, right, SPLIT, IP))
    else:
        # Not from ``GS``, which part 0 changes meanwhile.
        grad_s = tl.load(_tile(low, G3, rows, column, F, size)).to(tl.float32)
        grad_inner = grad_s * tl.load(_tile(work, MINE + SV, rows, column, F, size))
        u_x = tl.load(_tile(work, MINE + U, rows, column, F, size))
        u_y = tl.load(_tile(work, MINE + U + 1, rows, column, F, size))
        u_z = tl.load(_tile(work, MINE + U + 2, rows, column, F, size))
        w_x = tl.load(_tile(work, MINE + W, rows, column, F, size))
        w_y = tl.load(_tile(work, MINE + W + 1, rows, column, F, size))
        w_z = tl.load(_tile(work, MINE + W + 2, rows, column, F, size))
        grad_u_x, grad_u_y, grad_u_z = grad_inner * w_x, grad_inner * w_y, grad_inner * w_z
        if not LAST:
            gate_vv = tl.load(_tile(work, MINE + VV, rows, column, F, size))
            grad_u_x += gate_vv * tl.load(_tile(work, GV, rows, column, F, size))
            grad_u_y += gate_vv * tl.load(_tile(work, GV + 1, rows, column, F, size))
            grad_u_z += gate_vv * tl.load(_tile(work, GV + 2, rows, column, F, size))
        tl.store(_tile(low, GU, rows, column, F, size), grad_u_x.to(LOW))
        tl.store(_tile(low, GU + 1, rows, column, F, size), grad_u_y.to(LOW))
        tl.store(_tile(low, GU + 2, rows, column, F, size), grad_u_z.to(LOW))
        norm = tl.sqrt(w_x * w_x + w_y * w_y + w_z * w_z + EPSILON)
        by_norm = _product(left, right, SPLIT, IP) / norm
        tl.store(_tile(low, GW, rows, column, F, size), (by_norm * w_x + grad_inner * u_x).to(LOW))
        tl.store(_tile(low, GW + 1, rows, column, F, size), (by_norm * w_y + grad_inner * u_y).to(LOW))
        tl.store(_tile(low, GW + 2, rows, column, F, size), (by_norm * w_z + grad_inner * u_z).to(LOW))


@triton.jit
def _vectors_back(
    index, group, axis,
    work, low, weights, plane,
    LAST: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr, SPLIT: tl.constexpr,
    LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Gradient by one component of v between messages and update, for a slice."""
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    right_u = _right(weights, column, F, F, SPLIT)
    right_w = _right(weights + F * F, column, F, F, SPLIT)
    _wait(EARLY)
    left_u = _left(low + (GU + axis) * size + rows * F, F, SPLIT, LOW)
    left_w = _left(low + (GW + axis) * size + rows * F, F, SPLIT, LOW)
    if not LAST:
        before = tl.load(_tile(work, GV + axis, rows, column, F, size))
    products = tl.dot(left_w, right_w, tl.dot(left_u, right_u, input_precision=IP), input_precision=IP)
    total = _total(products, SPLIT)
    if not LAST:
        total += before
    tl.store(_tile(work, GM + axis, rows, column, F, size), total)


@triton.jit
def _pairs_back(
    index, group,
    work, unit, basis, slope, filters, partial, plane, n_slots,
    LAYER: tl.constexpr, LAST: tl.constexpr, F: tl.constexpr, SLOTS: tl.constexpr, RBF: tl.constexpr,
    ATOMS: tl.constexpr, NF: tl.constexpr, WARPS: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Gradients by the pairs, through the messages from some atoms a to their partners b.

    ``partial`` [slices, pairs, 4] sums over layers ∂E/∂d and ∂E/∂r̂_ba of the message from a to b.
    """
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ATOMS + tl.arange(0, ATOMS)
    first = group * ATOMS // SLOTS * SLOTS  # of the molecule
    atom = rows - first
    warp, k = tl.arange(0, WARPS), tl.arange(0, RBF)
    at_filters = filters + warp[:, None, None] * 0 + k[None, :, None] * F + column[None, None, :]
    filters_s = tl.load(at_filters)
    filters_v = tl.load(at_filters + RBF * F)
    filters_r = tl.load(at_filters + 2 * RBF * F)
    of_slice = partial + index * (size // F * SLOTS) * 4
    component = 2 * tl.arange(0, 2)[:, None] + tl.arange(0, 2)[None, :]
    _wait(EARLY)
    phi_s = _of_atoms(work, MINE + PHI, rows, column, F, size)
    phi_r = _of_atoms(work, MINE + PHI + 2, rows, column, F, size)
    if LAYER > 0:
        phi_v = _of_atoms(work, MINE + PHI + 1, rows, column, F, size)
        v_x = phi_v * _of_atoms(work, MINE + VIN, rows, column, F, size)
        v_y = phi_v * _of_atoms(work, MINE + VIN + 1, rows, column, F, size)
        v_z = phi_v * _of_atoms(work, MINE + VIN + 2, rows, column, F, size)
    for step in tl.range(0, tl.cdiv(n_slots, WARPS)):
        partner = first + step * WARPS + warp
        pair = partner.to(tl.int64)[:, None] * SLOTS + atom[None, :]
        where = pair[:, :, None] * RBF + k[None, None, :]
        inputs = tl.load(basis + where)
        slopes = tl.load(slope + where)
        at = unit + partner.to(tl.int64)[:, None] * 4 * SLOTS + atom[None, :]
        here = of_slice + pair[:, :, None, None] * 4 + component[None, None, :, :]
        if not LAST:
            before = tl.load(here)
        grad_s = _of_partners(work, GS, partner, column, F, size)
        grad_x = _of_partners(work, GM, partner, column, F, size)
        grad_y = _of_partners(work, GM + 1, partner, column, F, size)
        grad_z = _of_partners(work, GM + 2, partner, column, F, size)
        # Products first: what is multiplied by them then lies as they do, and moves through no shared memory.
        weight_r = tl.dot(inputs, filters_r, input_precision=IP) * phi_r
        slope_r = tl.dot(slopes, filters_r, input_precision=IP) * phi_r
        by_d = tl.dot(slopes, filters_s, input_precision=IP) * phi_s * grad_s
        if LAYER > 0:
            slope_v = tl.dot(slopes, filters_v, input_precision=IP)
            by_d += slope_v * v_x * grad_x + slope_v * v_y * grad_y + slope_v * v_z * grad_z
        # The message goes from a to b: against r̂_ab.
        by_d -= slope_r * grad_x * tl.load(at)[:, :, None]
        by_d -= slope_r * grad_y * tl.load(at + SLOTS)[:, :, None]
        by_d -= slope_r * grad_z * tl.load(at + 2 * SLOTS)[:, :, None]
        by_x, by_y, by_z = weight_r * grad_x, weight_r * grad_y, weight_r * grad_z
        by_d, by_x, by_y, by_z = tl.reduce((by_d, by_x, by_y, by_z), 2, _add_4)
        total = tl.join(tl.join(by_d, by_y), tl.join(by_x, by_z))
        if not LAST:
            total += before
        tl.store(here, total)


@triton.jit
def _senders_back(
    index, group,
    work, low, unit, basis, filters, plane, n_slots,
    LAYER: tl.constexpr, F: tl.constexpr, SLOTS: tl.constexpr, RBF: tl.constexpr, ATOMS: tl.constexpr,
    NF: tl.constexpr, WARPS: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Gradients by what some atoms sent to their partners, and by v before the messages."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ATOMS + tl.arange(0, ATOMS)
    first = group * ATOMS // SLOTS * SLOTS  # of the molecule
    atom = rows - first
    warp, k = tl.arange(0, WARPS), tl.arange(0, RBF)
    at_filters = filters + warp[:, None, None] * 0 + k[None, :, None] * F + column[None, None, :]
    filters_s = tl.load(at_filters)
    filters_v = tl.load(at_filters + RBF * F)
    filters_r = tl.load(at_filters + 2 * RBF * F)
    _wait(EARLY)
    sent_s = tl.zeros((WARPS, ATOMS, NF), tl.float32)
    sent_r = tl.zeros((WARPS, ATOMS, NF), tl.float32)
    sent_x = tl.zeros((WARPS, ATOMS, NF), tl.float32)
    sent_y = tl.zeros((WARPS, ATOMS, NF), tl.float32)
    sent_z = tl.zeros((WARPS, ATOMS, NF), tl.float32)
    for step in tl.range(0, tl.cdiv(n_slots, WARPS)):
        partner = first + step * WARPS + warp
        pair = partner.to(tl.int64)[:, None] * SLOTS + atom[None, :]
        inputs = tl.load(basis + pair[:, :, None] * RBF + k[None, None, :])
        at = unit + partner.to(tl.int64)[:, None] * 4 * SLOTS + atom[None, :]
        grad_x = _of_partners(work, GM, partner, column, F, size)
        grad_y = _of_partners(work, GM + 1, partner, column, F, size)
        grad_z = _of_partners(work, GM + 2, partner, column, F, size)
        sent_s += tl.dot(inputs, filters_s, input_precision=IP) * _of_partners(work, GS, partner, column, F, size)
        filter_v = tl.dot(inputs, filters_v, input_precision=IP)
        sent_x += filter_v * grad_x
        sent_y += filter_v * grad_y
        sent_z += filter_v * grad_z
        # Against r̂_ab, as the message went.
        filter_r = tl.dot(inputs, filters_r, input_precision=IP)
        sent_r -= filter_r * grad_x * tl.load(at)[:, :, None]
        sent_r -= filter_r * grad_y * tl.load(at + SLOTS)[:, :, None]
        sent_r -= filter_r * grad_z * tl.load(at + 2 * SLOTS)[:, :, None]
    sent_s, sent_r, x, y, z = tl.reduce((sent_s, sent_r, sent_x, sent_y, sent_z), 0, _add_5)
    own_x = tl.load(_tile(work, MINE + VIN, rows, column, F, size))
    own_y = tl.load(_tile(work, MINE + VIN + 1, rows, column, F, size))
    own_z = tl.load(_tile(work, MINE + VIN + 2, rows, column, F, size))
    through = tl.load(_tile(work, MINE + PHI + 1, rows, column, F, size))
    tl.store(_tile(low, GPHI, rows, column, F, size), sent_s.to(LOW))
    tl.store(_tile(low, GPHI + 1, rows, column, F, size), (x * own_x + y * own_y + z * own_z).to(LOW))
    tl.store(_tile(low, GPHI + 2, rows, column, F, size), sent_r.to(LOW))
    x = through * x + tl.load(_tile(work, GM, rows, column, F, size))
    y = through * y + tl.load(_tile(work, GM + 1, rows, column, F, size))
    z = through * z + tl.load(_tile(work, GM + 2, rows, column, F, size))
    tl.store(_tile(work, GV, rows, column, F, size), x)
    tl.store(_tile(work, GV + 1, rows, column, F, size), y)
    tl.store(_tile(work, GV + 2, rows, column, F, size), z)


@triton.jit
def _scalars_back(
    index, group,
    work, low, weights, plane,
    LAYER: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr, SPLIT: tl.constexpr,
    LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Gradient by s before the layer for a slice, and by the gates of the layer below."""
    BELOW: tl.constexpr = COMMON_PLANES + (LAYER - 1) * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    right = _right(weights, column, F, F, SPLIT)
    _wait(EARLY)
    left = _left(low + GPRE * size + rows * F, F, SPLIT, LOW)
    at_s = _tile(work, GS, rows, column, F, size)
    before = tl.load(at_s)
    inner = tl.load(_tile(work, BELOW + UW, rows, column, F, size))
    grad_vv = tl.load(_tile(work, BELOW + U, rows, column, F, size)) * tl.load(_tile(work, GV, rows, column, F, size))
    for axis in tl.static_range(1, 3):
        u = tl.load(_tile(work, BELOW + U + axis, rows, column, F, size))
        grad_vv += u * tl.load(_tile(work, GV + axis, rows, column, F, size))
    tl.store(_tile(low, G3 + 2, rows, column, F, size), grad_vv.to(LOW))
    grad_s = before + _product(left, right, SPLIT, IP)
    tl.store(at_s, grad_s)
    tl.store(_tile(low, G3, rows, column, F, size), grad_s.to(LOW))
    tl.store(_tile(low, G3 + 1, rows, column, F, size), (grad_s * inner).to(LOW))


@triton.jit
def _forces(
    molecule, first,
    element, atomic, repelled, reference, unit, push, partial, energy, forces, n_slots, plane,
    SLICES: tl.constexpr, F: tl.constexpr, SLOTS: tl.constexpr, ATOMS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Forces on some atoms a: what their messages and those of their partners b say; with the first, the energy."""
    a = first + tl.arange(0, ATOMS)
    b = tl.arange(0, SLOTS)
    row_a, row_b = molecule * SLOTS + a, molecule * SLOTS + b
    slices = partial + tl.arange(0, SLICES)[None, :, None] * (tl.cast(plane, tl.int64) // F * SLOTS) * 4
    pair = (row_b.to(tl.int64)[None, :] * SLOTS + a[:, None])[:, None, :]  # the message from a to b
    there = slices + pair * 4
    back = slices + (row_a.to(tl.int64)[:, None] * SLOTS + b[None, :])[:, None, :] * 4
    _wait(EARLY)
    z_a = tl.load(element + row_a)
    z_b = tl.load(element + row_b)
    paired = ((z_a > 0)[:, None] & (z_b > 0)[None, :] & (a[:, None] != b[None, :]))[:, None, :]
    at = unit + (row_b.to(tl.int64)[None, :] * 4 * SLOTS + a[:, None])[:, None, :]
    x, y, z, inverse = tl.load(at), tl.load(at + SLOTS), tl.load(at + 2 * SLOTS), tl.load(at + 3 * SLOTS)
    by_d = tl.load(there, paired, 0.0) + tl.load(back, paired, 0.0)
    by_x = tl.load(there + 1, paired, 0.0) - tl.load(back + 1, paired, 0.0)
    by_y = tl.load(there + 2, paired, 0.0) - tl.load(back + 2, paired, 0.0)
    by_z = tl.load(there + 3, paired, 0.0) - tl.load(back + 3, paired, 0.0)
    by_d += tl.where(tl.arange(0, SLICES)[None, :, None] == 0, tl.load(push + pair), 0.0)
    # ∂d/∂x_a = −r̂_ab, and r̂_ba turns as x_a moves across it.
    radial = by_d + (by_x * x + by_y * y + by_z * z) * inverse
    total_x = tl.sum(tl.sum((radial * x - by_x * inverse).to(tl.float64), axis=2), axis=1)
    total_y = tl.sum(tl.sum((radial * y - by_y * inverse).to(tl.float64), axis=2), axis=1)
    total_z = tl.sum(tl.sum((radial * z - by_z * inverse).to(tl.float64), axis=2), axis=1)
    out, inside = forces + (molecule * n_slots + a) * 3, a < n_slots
    tl.store(out, tl.where(z_a > 0, total_x, 0.0), inside)
    tl.store(out + 1, tl.where(z_a > 0, total_y, 0.0), inside)
    tl.store(out + 2, tl.where(z_a > 0, total_z, 0.0), inside)
    if first == 0:
        each = tl.load(atomic + row_b).to(tl.float64) + tl.load(repelled + row_b) + tl.load(reference + z_b)
        tl.store(energy + molecule, tl.sum(tl.where(z_b > 0, each, 0.0)))


# What a kernel computes, in the order of an evaluation: these once, those of a layer forward and backward for each.
GEOMETRY, READOUT, FORCES = (tl.constexpr(n) for n in (0, 7, 14))
HIDDEN_OF_PHI, PHI_OF_HIDDEN, MESSAGE, MIX, HIDDEN_OF_GATES, GATE = (tl.constexpr(n) for n in range(1, 7))
GATES_BACK, GATE_BACK, VECTORS_BACK, MESSAGE_BACK, PHI_BACK, SCALARS_BACK = (tl.constexpr(n) for n in range(8, 14))
# Matrices of one layer in ``weights``, each F · F numbers; after them the filters.
W1, W1_BACK, W2, W2_BACK, MIXED, MIXED_BACK, WA, WA_BACK, WB, WB_BACK, FILTERS = (
    tl.constexpr(n) for n in (0, 1, 2, 5, 8, 10, 12, 14, 16, 19, 22)
)
# Vectors of one layer in ``offsets``, F numbers each.
B1, B2, BA, BB, LAYER_OFFSETS = (tl.constexpr(n) for n in (0, 1, 4, 5, 8))


STAGE_NAMES = (
    "geometry", "hidden_of_phi", "phi_of_hidden", "message", "mix", "hidden_of_gates", "gate", "readout",
    "gates_back", "gate_back", "vectors_back", "message_back", "phi_back", "scalars_back", "forces",
)  # fmt: skip


def _kernel_name(specialization: Any) -> str:
    """What profilers call a kernel: its stage."""
    return f"fused_{STAGE_NAMES[specialization.constants['STAGE']]}"


@triton.jit(repr=_kernel_name)
def _stage(
    positions, numbers, weights, offsets, radius, charge, embedding, phi0, reference,
    work, low, element, unit, push, repelled, basis, slope, atomic, partial, energy, forces,
    n_systems, n_slots, plane, cutoff, out_bias,
    STAGE: tl.constexpr, LAYER: tl.constexpr, LAYERS: tl.constexpr, F: tl.constexpr, HALF: tl.constexpr,
    SLOTS: tl.constexpr, ROWS: tl.constexpr, RBF: tl.constexpr, N_RBF: tl.constexpr, NF: tl.constexpr,
    SPLIT: tl.constexpr, PAIR_NF: tl.constexpr, WARPS: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """One stage of all molecules: programs are [slices, groups, parts of a slice]."""
    index, group, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    LAST: tl.constexpr = LAYER == LAYERS - 1
    SIZE: tl.constexpr = FILTERS * F * F + 3 * RBF * F
    mine = weights + LAYER * SIZE
    bias = offsets + LAYER * LAYER_OFFSETS * F
    filters = mine + FILTERS * F * F
    if STAGE == GEOMETRY:
        _geometry(
            group, index, positions, numbers, radius, charge, embedding, phi0, work, element, unit,
            push, repelled, basis, slope, n_systems, n_slots, plane, cutoff, F, SLOTS, RBF, N_RBF, 1, LOW, EARLY,
        )  # fmt: skip
    elif STAGE == HIDDEN_OF_PHI:
        _hidden(
            index, group, work, low, mine + W1 * F * F, bias + B1 * F, plane,
            MINE + DH, False, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == PHI_OF_HIDDEN:
        _phi(
            index, group, part, work, low, mine + W2 * F * F, bias + B2 * F, plane,
            LAYER, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == MESSAGE:
        _message(
            index, group, work, unit, basis, filters, plane, n_slots,
            LAYER, F, SLOTS, RBF, 16, PAIR_NF, WARPS, IP, EARLY,
        )  # fmt: skip
    elif STAGE == MIX:
        _mix(index, group, work, low, mine + MIXED * F * F, plane, LAYER, F, ROWS, NF, SPLIT, LOW, IP, EARLY)
    elif STAGE == HIDDEN_OF_GATES:
        _hidden(
            index, group, work, low, mine + WA * F * F, bias + BA * F, plane,
            MINE + DA, True, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == GATE:
        _gate(
            index, group, part, work, low, mine + WB * F * F, bias + BB * F, plane,
            LAYER, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == READOUT:
        into = weights + LAYERS * SIZE
        ends = offsets + LAYERS * LAYER_OFFSETS * F
        _readout(
            index, group, work, low, element, into, ends, ends + HALF, into + F * HALF, atomic, plane, out_bias,
            LAYERS - 1, F, HALF, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == GATES_BACK:
        _hidden_back(
            index, group, work, low, mine + WB_BACK * F * F, plane,
            G3, 2 if LAST else 3, MINE + DA, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == GATE_BACK:
        _gate_back(
            index, group, part, work, low, mine + WA_BACK * F * F, plane,
            LAYER, LAST, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == VECTORS_BACK:
        _vectors_back(
            index, group, part, work, low, mine + MIXED_BACK * F * F, plane, LAST, F, ROWS, NF, SPLIT, LOW, IP, EARLY
        )
    elif STAGE == MESSAGE_BACK:
        if part == 0:
            _pairs_back(
                index, group, work, unit, basis, slope, filters, partial, plane, n_slots,
                LAYER, LAST, F, SLOTS, RBF, 16, PAIR_NF, WARPS, IP, EARLY,
            )  # fmt: skip
        elif LAYER > 0:
            _senders_back(
                index, group, work, low, unit, basis, filters, plane, n_slots,
                LAYER, F, SLOTS, RBF, 16, PAIR_NF, WARPS, LOW, IP, EARLY,
            )  # fmt: skip
    elif STAGE == PHI_BACK:
        _hidden_back(
            index, group, work, low, mine + W2_BACK * F * F, plane,
            GPHI, 3, MINE + DH, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == SCALARS_BACK:
        _scalars_back(index, group, work, low, mine + W1_BACK * F * F, plane, LAYER, F, ROWS, NF, SPLIT, LOW, IP, EARLY)
    else:
        _forces(
            group, index, element, atomic, repelled, reference, unit, push, partial, energy, forces,
            n_slots, plane, F // PAIR_NF, F, SLOTS, 1, EARLY,
        )  # fmt: skip


def _parts(stage: int, last: bool, first: bool) -> int:
    """How many programs share a slice of a stage; of the first and last layer some are not needed."""
    if stage == PHI_OF_HIDDEN.value or stage == VECTORS_BACK.value:
        return 3
    both = stage == GATE_BACK.value or (stage == GATE.value and not last) or (stage == MESSAGE_BACK.value and not first)
    return 2 if both else 1


def _stages(n_layers: int) -> list[tuple[int, int]]:
    """(stage, layer) in the order of an evaluation."""
    found = [(GEOMETRY.value, 0)]
    for layer in range(n_layers):
        found += [(stage, layer) for stage in range(1, 7) if layer > 0 or stage > PHI_OF_HIDDEN.value]
    found.append((READOUT.value, 0))
    for layer in reversed(range(n_layers)):
        found += [(stage, layer) for stage in range(8, 14) if layer > 0 or stage < PHI_BACK.value]
    return [*found, (FORCES.value, 0)]


@dataclass(frozen=True)
class Shape:
    """How a batch is laid over the chip.

    Attributes:
        slots: rows of one molecule; a power of two.
        molecules: that share a program.
        columns: features of one program.
        warps: of one program.
        split: whether each warp sums a part of a product.
        pair_columns: features of one program of messages.
        pair_warps: of one program of messages; each takes one partner at a time.
        early: whether a kernel starts before the one ahead of it has ended, where the GPU can (Hopper).
    """

    slots: int
    molecules: int
    columns: int
    warps: int
    split: bool
    pair_columns: int
    pair_warps: int
    early: bool


def shape_for(n_systems: int, n_slots: int, precision: Precision) -> Shape:
    """Wide for few molecules, each layer spread over the chip; for many, as many share a program as fill its tiles.

    The numbers are the fastest of those tried on an H100 (docs/fused.md).

    Raises:
        EngineError: more slots than the kernels hold.
    """
    if n_slots > ALL_PAIRS_MAX_ATOMS:
        raise EngineError(
            f"engine 'fused' takes molecules of up to {ALL_PAIRS_MAX_ATOMS} atoms; the largest of this batch has "
            f"{n_slots}: use engine 'cuda_graph'"
        )
    slots, half = max(16, triton.next_power_of_2(n_slots)), precision == "fp16_autocast"
    if n_systems <= FEW_MOLECULES:
        return Shape(slots, 1, 16, 4, slots <= 32 and not half, 16 if half else 8, 4, n_systems <= FOR_EARLY)
    return Shape(slots, 64 // slots, 32 if half else 16, 4, False, 16 if half else 8, 2, False)


FEW_MOLECULES = 32
FOR_EARLY = 4  # molecules whose kernels leave multiprocessors free for the next one
PRODUCTS: dict[Precision, tuple[torch.dtype, Any, str]] = {
    # Three products of TF32 halves are as exact as one of FP32, and tensor cores do them.
    "fp32": (torch.float32, tl.float32, "tf32x3"),
    "tf32": (torch.float32, tl.float32, "tf32"),
    "fp16_autocast": (torch.float16, tl.float16, "tf32"),
}


class FusedEngine:
    """Energy and forces in a few dozen kernels, without autograd; `CudaGraphEngine` captures it.

    Args:
        model: frozen, on the device.
        precision: of its products.
        device: where batches are.
        shape: for every batch, instead of what suits it.

    Raises:
        EngineError: a precision that it does not have.
    """

    name = "fused"
    uses_cuda_graphs = False
    capturable = None

    def __init__(self, model: PaiNN, precision: Precision, device: torch.device, shape: Shape | None = None) -> None:
        if precision not in PRODUCTS:
            raise EngineError(f"engine 'fused' has no precision {precision!r}: use one of {', '.join(PRODUCTS)}")
        self.precision, self.device, self.cutoff = precision, device, model.architecture.cutoff
        self.compile_s, self.evaluations = 0.0, 0
        self._shape = shape
        self._weights = _Weights.of(model, PRODUCTS[precision][0], device)
        self._plans: dict[tuple[int, int], _Plan] = {}

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
            EngineError: periodic systems, or more atoms than it or its shape takes.
        """
        if batch.shifts is not None:
            raise EngineError("engine 'fused' takes no periodic systems: use engine 'cuda_graph'")
        self.evaluations += batch.n_systems
        plan = self._plans.get((batch.n_systems, batch.n_slots))
        if plan is not None:
            return plan(batch)
        shape = self._shape or shape_for(batch.n_systems, batch.n_slots, self.precision)
        if shape.slots < batch.n_slots:
            raise EngineError(f"engine 'fused': a shape of {shape.slots} slots can't hold {batch.n_slots} atoms")
        started = time.perf_counter()
        plan = _Plan(self._weights, self.precision, shape, batch)
        prediction = plan(batch)
        self.compile_s += time.perf_counter() - started
        self._plans[batch.n_systems, batch.n_slots] = plan
        return prediction


@dataclass(frozen=True)
class _Weights:
    """Weights as the kernels read them: operands of products as [in, out], features padded to a power of two.

    Attributes:
        tensors: ``weights``, ``offsets`` and the tables by atomic number.
    """

    features: int
    half: int
    n_rbf: int
    rbf: int
    n_layers: int
    cutoff: float
    tensors: tuple[Tensor, ...]
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

        operands, vectors = [], []
        for module, other in zip(model.messages, model.updates, strict=True):
            message, update = cast(Message, module), cast(Update, other)
            first, second = _linear(message.scalar_net, 0), _linear(message.scalar_net, 2)
            hidden, gates = _linear(update.scalar_net, 0), _linear(update.scalar_net, 2)
            filters = torch.cat([message.filter_net.weight, message.filter_net.bias.unsqueeze(-1)], dim=-1)
            for parts in (
                first.weight.view(1, n, n),
                second.weight.view(3, n, n),
                update.mix.weight.view(2, n, n),
                hidden.weight.view(n, 2, n).transpose(0, 1),
                gates.weight.view(3, n, n),
            ):  # [parts, out, in]: forward as [in, out], backward as they are
                operands += [padded(parts.transpose(1, 2), features, features), padded(parts, features, features)]
            operands.append(padded(filters.view(3, n, n_rbf + 1).transpose(1, 2), rbf, features))
            vectors += [
                padded(bias.view(-1, n), features) for bias in (first.bias, second.bias, hidden.bias, gates.bias)
            ]
        with torch.no_grad():
            phi0 = cast(Message, model.messages[0]).scalar_net(model.embedding.weight).view(-1, 3, n)
        into, out = _linear(model.readout, 0), _linear(model.readout, 2)
        operands += [padded(into.weight.t(), features, half), padded(into.weight, half, features)]
        vectors += [padded(into.bias, half), padded(out.weight.view(-1), half)]
        element = model.element_index  # of each atomic number: kernels need not look it up
        return _Weights(
            features=features,
            half=half,
            n_rbf=n_rbf,
            rbf=rbf,
            n_layers=model.architecture.n_interactions,
            cutoff=model.architecture.cutoff,
            tensors=(
                torch.cat([values.flatten() for values in operands]).to(low),
                torch.cat([values.flatten() for values in vectors]),
                model.covalent_radius[element].float().to(device),
                model.nuclear_charge[element].float().to(device),
                padded(model.embedding.weight[element], features),
                padded(phi0[element], features),
                model.reference_energies[element].to(device),
            ),
            out_bias=float(out.bias.detach()),
        )


def _linear(layers: nn.Sequential, index: int) -> nn.Linear:
    return cast(nn.Linear, layers[index])


class _Plan:
    """Buffers and launches for one shape of batch."""

    def __init__(self, weights: _Weights, precision: Precision, shape: Shape, batch: AtomicBatch) -> None:
        self._weights, self._shape = weights, shape
        low, product, arithmetic = PRODUCTS[precision]
        self._n_systems, self._n_slots = batch.n_systems, batch.n_slots
        device, features, slots = batch.positions.device, weights.features, shape.slots
        self._groups = -(-batch.n_systems // shape.molecules)
        rows = shape.molecules * slots
        self._rows = self._groups * rows
        slices = features // shape.pair_columns

        def zeros(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*sizes, device=device, dtype=dtype)

        self._buffers = (
            zeros(COMMON_PLANES.value + weights.n_layers * LAYER_PLANES.value, self._rows, features),  # work
            zeros(LOW_PLANES.value, self._rows, features, dtype=low),  # low
            zeros(self._rows, dtype=torch.int32),  # element
            zeros(self._rows, 4, slots),  # unit
            zeros(self._rows, slots),  # push
            zeros(self._rows, dtype=torch.float64),  # repelled
            zeros(self._rows, slots, weights.rbf, dtype=low),  # basis
            zeros(self._rows, slots, weights.rbf, dtype=low),  # slope
            zeros(self._rows),  # atomic
            zeros(slices, self._rows, slots, 4),  # partial
        )
        # Each part of a sum is at least what a tensor core takes at once.
        split = min(shape.warps, features // 16) if shape.split else 1
        self._options: dict[str, Any] = {
            "LAYERS": weights.n_layers, "F": features, "HALF": weights.half, "SLOTS": slots, "ROWS": rows,
            "RBF": weights.rbf, "N_RBF": weights.n_rbf, "NF": shape.columns, "SPLIT": split,
            "PAIR_NF": shape.pair_columns, "WARPS": shape.pair_warps, "LOW": product, "IP": arithmetic,
        }  # fmt: skip
        early = shape.early and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
        self._early = {"EARLY": True, "launch_pdl": True} if early else {"EARLY": False}

    def __call__(self, batch: AtomicBatch) -> Prediction:
        weights, shape, device = self._weights, self._shape, batch.positions.device
        energy = torch.empty(self._n_systems, dtype=torch.float64, device=device)
        forces = torch.empty(len(batch.positions), 3, dtype=torch.float64, device=device)
        arguments = (
            batch.positions, batch.atomic_numbers, *weights.tensors, *self._buffers, energy, forces,
            self._n_systems, self._n_slots, self._rows * weights.features, weights.cutoff, weights.out_bias,
        )  # fmt: skip
        n_layers, slices = weights.n_layers, weights.features // shape.columns
        for stage, layer in _stages(n_layers):
            parts = _parts(stage, layer == n_layers - 1, layer == 0)
            grid, warps = (slices, self._groups, parts), shape.warps
            if stage in (MESSAGE.value, MESSAGE_BACK.value):
                grid, warps = (weights.features // shape.pair_columns, self._rows // 16, parts), shape.pair_warps
            elif stage == GEOMETRY.value:
                grid = (shape.slots, self._rows // shape.slots, 1)
            elif stage == FORCES.value:
                grid, warps = (self._n_slots, self._n_systems, 1), 2
            _stage[grid](*arguments, STAGE=stage, LAYER=layer, num_warps=warps, **self._options, **self._early)
        return Prediction(energy, forces)
