"""The Triton kernels of the fused engine: PaiNN's energy and forces, with a derivative derived by hand.

docs/fused.md derives the equations, with the names of this file. There are two forms. `stage_kernel` computes one stage
of all molecules, spread over the GPU. `molecule_kernel` computes all stages of a molecule in one program. Every sum is
computed completely by one program: there are no atomic additions, and the same input gives the same bits.

Words of the staged form: a *group* is the molecules that share a program, with ``ROWS`` rows of atoms. A *slice* is
``NF`` of the features. A kernel has one program for each slice and group. Rows are ``molecule · SLOTS + atom``. A
*plane* is an array ``[rows, F]`` in one of two workspaces: ``work`` holds FP32; ``low`` holds operands of products, in
the precision of products.
"""

from __future__ import annotations

import math
from typing import Any

import triton
import triton.language as tl

from mlff_exp.models import BOHR_ANG, CORE_INNER, CORE_OUTER, COULOMB_EV_ANG, NORM_SMOOTHING

# Triton kernels read only constants of type ``tl.constexpr``.
COULOMB = tl.constexpr(COULOMB_EV_ANG)
SCREENING = tl.constexpr(0.88534 * BOHR_ANG)
EPSILON = tl.constexpr(NORM_SMOOTHING)
INNER = tl.constexpr(CORE_INNER)
CORE_WIDTH = tl.constexpr(CORE_OUTER - CORE_INNER)
PI = tl.constexpr(math.pi)
AHEAD = tl.constexpr(4)  # partners, or groups of partners, in flight: one is used while the others are loaded

# With fewer rows than this all operands are loaded before the first product; with more, registers hold only one.
MANY_ROWS = tl.constexpr(64)

# Value of ``EARLY`` in `_wait` when the data were written by the same program.
HERE = tl.constexpr(2)

# Planes of ``work``: first those that all layers share, then those of each layer.
# What a stage changes has one plane for the old values and one for the new: other programs may still read the old ones.
S, SM, VM, GS, GSM, GV, GM, COMMON_PLANES = (tl.constexpr(n) for n in (0, 1, 2, 5, 6, 7, 13, 16))
VIN, UW, PHI, LAYER_PLANES = (tl.constexpr(n) for n in (0, 3, 4, 7))
# Planes of ``low``.
HIDDEN, NORM, G3, GPRE, GU, GW, GPHI, LOW_PLANES = (tl.constexpr(n) for n in (0, 1, 2, 5, 6, 9, 12, 15))
# Planes that each layer stores for the backward pass: results of products or of silu, which autocast rounds as well.
U, W, SV, VV, DA, DH, KEPT_PLANES = (tl.constexpr(n) for n in (0, 3, 6, 7, 8, 9, 10))


@triton.jit
def _wait(EARLY: tl.constexpr):
    """Wait until the data to be read next are written.

    If ``EARLY``, the previous kernel writes them; if `HERE`, other threads of this program. The caller loads weights
    before waiting. After waiting the next kernel may start, and load its weights at the same time.
    """
    if EARLY == HERE:
        tl.debug_barrier()
    elif EARLY:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def _tile(base, plane, rows, columns, F: tl.constexpr, size):
    """Return pointers to [rows, columns] of a plane."""
    return base + plane * size + (rows[:, None] * F + columns[None, :])


@triton.jit
def _read_tile(base, plane, rows, columns, F: tl.constexpr, size):
    """Load [rows, columns] of a plane as FP32."""
    return tl.load(_tile(base, plane, rows, columns, F, size)).to(tl.float32)


@triton.jit
def _left(first, K: tl.constexpr, SPLIT: tl.constexpr, LOW: tl.constexpr):
    """Load the left operand [ROWS, K] from pointers to the start of each row; [SPLIT, ROWS, K / SPLIT] if split."""
    if SPLIT == 1:
        return tl.load(first[:, None] + tl.arange(0, K)[None, :]).to(LOW)
    else:
        k = tl.arange(0, SPLIT)[:, None, None] * (K // SPLIT) + tl.arange(0, K // SPLIT)[None, None, :]
        return tl.load(first[None, :, None] + k).to(LOW)


@triton.jit
def _right(weights, column, F: tl.constexpr, K: tl.constexpr, SPLIT: tl.constexpr):
    """Load the right operand, weights [K, F][:, column]; [SPLIT, K / SPLIT, NF] if split."""
    if SPLIT == 1:
        return tl.load(weights + tl.arange(0, K)[:, None] * F + column[None, :])
    else:
        k = tl.arange(0, SPLIT)[:, None, None] * (K // SPLIT) + tl.arange(0, K // SPLIT)[None, :, None]
        return tl.load(weights + k * F + column[None, None, :])


@triton.jit
def _total(parts, SPLIT: tl.constexpr):
    """Add up a product, [ROWS, NF] FP32. If split, each warp sums a part of K, where rows occupy only one warp."""
    if SPLIT == 1:
        return parts
    else:
        return tl.sum(parts, axis=0)


@triton.jit
def _product(left, right, SPLIT: tl.constexpr, IP: tl.constexpr):
    """Compute a product, [ROWS, NF] FP32."""
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
    """Compute silu(x) and its derivative."""
    sigmoid = 1.0 / (1.0 + tl.exp(-x))
    value = x * sigmoid
    return value, sigmoid * (1.0 + x - value)


@triton.jit
def _envelope(x):
    """Compute 1 − 28x⁶ + 48x⁷ − 21x⁸ up to x = 1, and its derivative."""
    gap = tl.maximum(1.0 - x, 0.0)
    rest = 1.0 + x * (3.0 + x * (6.0 + x * (10.0 + x * (15.0 + x * 21.0))))
    square = x * x
    return gap * gap * gap * rest, -168.0 * square * square * x * gap * gap


@triton.jit
def _repulsion(d, charge_a, charge_b, contact):
    """Compute the Ziegler-Biersack-Littmark repulsion of a pair and its derivative with respect to d."""
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
def _sin_cos_pi(n, x):
    """Compute sin(π n x) and cos(π n x) for integer n, by minimax polynomials on half a period, to a few ulp."""
    nearest = tl.floor(n * x + 0.5)
    r = tl.fma(n, x, -nearest)
    sign = 1.0 - 2.0 * (nearest - 2.0 * tl.floor(0.5 * nearest))
    q = r * r
    sine = 2.550031375775832 + q * (-0.5980451650124143 + q * 0.07722011083020307)
    sine = r * (3.141592580043299 + q * (-5.167706878836036 + q * sine))
    cosine = 4.058709164301675 + q * (-1.3352120561436849 + q * (0.2349375562688918 - q * 0.024396711850498708))
    cosine = 0.9999999997806465 + q * (-4.934802137227262 + q * cosine)
    return sign * sine, sign * cosine


@triton.jit
def _geometry(
    molecule, first,
    positions, numbers, radius, charge, element, unit, push, repelled, basis, slope, n_systems, n_slots, cutoff,
    SLOTS: tl.constexpr, RBF: tl.constexpr, N_RBF: tl.constexpr, PARTNERS: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """Compute what depends only on positions and elements, for pairs of some atoms b with all atoms a of a molecule.

    Writes ``element`` [SLOTS]; ``unit``, r̂_ab and 1/d, [SLOTS b, 4, SLOTS]; ``push``, the derivative of the repulsion
    with respect to d, [SLOTS b, SLOTS]; ``repelled``, half of the repulsion of b, [SLOTS]; ``basis``, the inputs of the
    filters, and ``slope``, their derivatives, [SLOTS b, SLOTS, RBF]. Returns the atomic numbers of b.
    """
    a = tl.arange(0, SLOTS)[None, :]
    b = first + tl.arange(0, PARTNERS)
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
    # Atoms that are no pair get a large finite distance and a factor of zero, so that a NaN elsewhere does not spread.
    x = tl.where(paired, x, cutoff)
    y = tl.where(paired, y, 0.0)
    z = tl.where(paired, z, 0.0)
    d = tl.sqrt(x * x + y * y + z * z)
    inverse = 1.0 / d
    at = unit + b[:, None] * 4 * SLOTS + a
    tl.store(at, x * inverse)
    tl.store(at + SLOTS, y * inverse)
    tl.store(at + 2 * SLOTS, z * inverse)
    tl.store(at + 3 * SLOTS, inverse)

    contact = tl.load(radius + z_a) + tl.load(radius + z_b)[:, None]
    near, near_slope = _envelope(d / cutoff)
    core, core_slope = _envelope(tl.maximum((d / contact - INNER) / CORE_WIDTH, 0.0))
    e = tl.where(paired, near * (1.0 - core), 0.0)
    e_slope = tl.where(paired, near_slope / cutoff * (1.0 - core) - near * core_slope / (CORE_WIDTH * contact), 0.0)

    n = tl.arange(0, RBF)[None, None, :]
    order = (n + 1).to(tl.float32)
    sine, cosine = _sin_cos_pi(order, (d / cutoff)[:, :, None])
    scale = tl.sqrt(2.0 / cutoff)
    radial = scale * sine * inverse[:, :, None]
    radial_slope = (scale * (PI / cutoff) * order * cosine - radial) * inverse[:, :, None]
    # The radial functions are followed by a column for the bias and by zeros.
    radial = tl.where(n < N_RBF, radial, tl.where(n == N_RBF, 1.0, 0.0))
    radial_slope = tl.where(n < N_RBF, radial_slope, 0.0)
    where = (b[:, None, None] * SLOTS + a[:, :, None]) * RBF + n
    tl.store(basis + where, (radial * e[:, :, None]).to(LOW))
    tl.store(slope + where, (radial_slope * e[:, :, None] + radial * e_slope[:, :, None]).to(LOW))

    energy, derivative = _repulsion(d, tl.load(charge + z_a), tl.load(charge + z_b)[:, None], contact)
    tl.store(push + b[:, None] * SLOTS + a, tl.where(paired, derivative, 0.0))
    tl.store(repelled + b, 0.5 * tl.sum(tl.where(paired, energy, 0.0).to(tl.float64), axis=1))
    tl.store(element + b, z_b)
    return z_b


@triton.jit
def _first_features(rows, kind, embedding, phi0, work, plane, F: tl.constexpr):
    """Load s and φ of layer 0 for some atoms from tables: they depend on the elements only."""
    f = tl.arange(0, F)[None, :]
    size = tl.cast(plane, tl.int64)
    tl.store(work + S * size + rows[:, None] * F + f, tl.load(embedding + kind[:, None] * F + f))
    for part in tl.static_range(3):
        value = tl.load(phi0 + (kind[:, None] * 3 + part) * F + f)
        tl.store(work + (COMMON_PLANES + PHI + part) * size + rows[:, None] * F + f, value)


@triton.jit
def _hidden(
    index, group,
    work, low, weights, bias, plane,
    DERIVATIVE: tl.constexpr, WITH_NORM: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr,
    SPLIT: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Compute a slice of silu([s, ‖w‖] W + b), or of silu(s W + b) without norms; the derivative is stored."""
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    of_s = _right(weights, column, F, F, SPLIT)
    if WITH_NORM:
        of_norm = _right(weights + F * F, column, F, F, SPLIT)
    offset = tl.load(bias + column)[None, :]
    _wait(EARLY)
    if WITH_NORM:
        s = _left(work + SM * size + rows * F, F, SPLIT, LOW)
        norm = _left(low + NORM * size + rows * F, F, SPLIT, LOW)
        total = tl.dot(norm, of_norm, tl.dot(s, of_s, input_precision=IP), input_precision=IP)
    else:
        total = tl.dot(_left(work + S * size + rows * F, F, SPLIT, LOW), of_s, input_precision=IP)
    value, derivative = _silu(offset + _total(total, SPLIT))
    tl.store(_tile(low, HIDDEN, rows, column, F, size), value.to(LOW))
    tl.store(_tile(low, DERIVATIVE, rows, column, F, size), derivative)


@triton.jit
def _phi(
    index, group,
    work, low, weights, bias, plane,
    LAYER: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr, SPLIT: tl.constexpr,
    LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Compute the three parts of φ = h W₂ + b₂ for a slice; messages need no other slice."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    right_s = _right(weights, column, F, F, SPLIT)
    right_v = _right(weights + F * F, column, F, F, SPLIT)
    right_r = _right(weights + 2 * F * F, column, F, F, SPLIT)
    bias_s = tl.load(bias + column)[None, :]
    bias_v = tl.load(bias + F + column)[None, :]
    bias_r = tl.load(bias + 2 * F + column)[None, :]
    _wait(EARLY)
    left = _left(low + HIDDEN * size + rows * F, F, SPLIT, LOW)
    tl.store(_tile(work, MINE + PHI, rows, column, F, size), bias_s + _product(left, right_s, SPLIT, IP))
    tl.store(_tile(work, MINE + PHI + 1, rows, column, F, size), bias_v + _product(left, right_v, SPLIT, IP))
    tl.store(_tile(work, MINE + PHI + 2, rows, column, F, size), bias_r + _product(left, right_r, SPLIT, IP))


@triton.jit
def _of_partners(base, plane, partner, column, F: tl.constexpr, size):
    """Load [PARTNERS, 1, NF] of a plane as FP32. With fewer numbers than threads, each thread loads only its own."""
    return tl.load(base + plane * size + partner[:, None, None] * F + column[None, None, :]).to(tl.float32)


@triton.jit
def _of_atoms(base, plane, rows, column, F: tl.constexpr, size):
    """Load [1, ATOMS, NF] of a plane as FP32."""
    return tl.load(base + plane * size + rows[None, :, None] * F + column[None, None, :]).to(tl.float32)


@triton.jit
def _message(
    index, group,
    work, unit, basis, filters, plane, n_slots,
    LAYER: tl.constexpr, F: tl.constexpr, SLOTS: tl.constexpr, RBF: tl.constexpr, ATOMS: tl.constexpr,
    NF: tl.constexpr, PARTNERS: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Sum the messages to some atoms of a molecule for a slice, and store the new s and v."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ATOMS + tl.arange(0, ATOMS)
    first = group * ATOMS // SLOTS * SLOTS  # of the molecule
    atom = rows - first
    one, k = tl.arange(0, PARTNERS), tl.arange(0, RBF)
    at_filters = filters + one[:, None, None] * 0 + k[None, :, None] * F + column[None, None, :]
    filters_s = tl.load(at_filters)
    filters_v = tl.load(at_filters + RBF * F)
    filters_r = tl.load(at_filters + 2 * RBF * F)
    _wait(EARLY)
    s = tl.load(_tile(work, S, rows, column, F, size))
    sum_s = tl.zeros((PARTNERS, ATOMS, NF), tl.float32)
    sum_x = tl.zeros((PARTNERS, ATOMS, NF), tl.float32)
    sum_y = tl.zeros((PARTNERS, ATOMS, NF), tl.float32)
    sum_z = tl.zeros((PARTNERS, ATOMS, NF), tl.float32)
    for step in tl.range(0, tl.cdiv(n_slots, PARTNERS), num_stages=AHEAD):
        partner = first + step * PARTNERS + one
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
    # One reduction for all sums: each reduction synchronises all warps.
    sum_s, x, y, z = tl.reduce((sum_s, sum_x, sum_y, sum_z), 0, _add_4)
    tl.store(_tile(work, SM, rows, column, F, size), s + sum_s)
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
    """Compute u = v U and w = v V for a slice, their product summed over the axes, and the norms of w."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    KEPT: tl.constexpr = LOW_PLANES + LAYER * KEPT_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    right_u = _right(mix, column, F, F, SPLIT)
    right_w = _right(mix + F * F, column, F, F, SPLIT)
    _wait(EARLY)
    left_x = _left(work + VM * size + rows * F, F, SPLIT, LOW)
    if ROWS < MANY_ROWS:
        left_y = _left(work + (VM + 1) * size + rows * F, F, SPLIT, LOW)
        left_z = _left(work + (VM + 2) * size + rows * F, F, SPLIT, LOW)
    u_x = tl.dot(left_x, right_u, input_precision=IP)
    w_x = tl.dot(left_x, right_w, input_precision=IP)
    if ROWS >= MANY_ROWS:
        left_y = _left(work + (VM + 1) * size + rows * F, F, SPLIT, LOW)
    u_y = tl.dot(left_y, right_u, input_precision=IP)
    w_y = tl.dot(left_y, right_w, input_precision=IP)
    if ROWS >= MANY_ROWS:
        left_z = _left(work + (VM + 2) * size + rows * F, F, SPLIT, LOW)
    u_z = tl.dot(left_z, right_u, input_precision=IP)
    w_z = tl.dot(left_z, right_w, input_precision=IP)
    if SPLIT > 1:
        u_x, u_y, u_z, w_x, w_y, w_z = tl.reduce((u_x, u_y, u_z, w_x, w_y, w_z), 0, _add_6)
    tl.store(_tile(low, KEPT + U, rows, column, F, size), u_x)
    tl.store(_tile(low, KEPT + U + 1, rows, column, F, size), u_y)
    tl.store(_tile(low, KEPT + U + 2, rows, column, F, size), u_z)
    tl.store(_tile(low, KEPT + W, rows, column, F, size), w_x)
    tl.store(_tile(low, KEPT + W + 1, rows, column, F, size), w_y)
    tl.store(_tile(low, KEPT + W + 2, rows, column, F, size), w_z)
    tl.store(_tile(work, MINE + UW, rows, column, F, size), u_x * w_x + u_y * w_y + u_z * w_z)
    norm = tl.sqrt(w_x * w_x + w_y * w_y + w_z * w_z + EPSILON)
    tl.store(_tile(low, NORM, rows, column, F, size), norm.to(LOW))


@triton.jit
def _gate(
    index, group, part,
    work, low, weights, bias, plane,
    LAYER: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr,
    SPLIT: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Compute the gates for a slice. Part 0 updates s; part 1 updates v, which the last layer does not need."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    KEPT: tl.constexpr = LOW_PLANES + LAYER * KEPT_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    of_gates = weights + WB * F * F
    # Part 1 does not need the second gate.
    right_first = _right(of_gates + part * 2 * F * F, column, F, F, SPLIT)
    right_sv = _right(of_gates + F * F, column, F, F, SPLIT)
    bias_first = tl.load(bias + (BB + part * 2) * F + column)[None, :]
    bias_sv = tl.load(bias + (BB + 1) * F + column)[None, :]
    _wait(EARLY)
    hidden = _left(low + HIDDEN * size + rows * F, F, SPLIT, LOW)
    if part == 0:
        s = tl.load(_tile(work, SM, rows, column, F, size))
        inner = tl.load(_tile(work, MINE + UW, rows, column, F, size))
        gate_ss = bias_first + _product(hidden, right_first, SPLIT, IP)
        gate_sv = bias_sv + _product(hidden, right_sv, SPLIT, IP)
        tl.store(_tile(work, S, rows, column, F, size), s + gate_ss + gate_sv * inner)
        tl.store(_tile(low, KEPT + SV, rows, column, F, size), gate_sv)
    else:
        v_x = tl.load(_tile(work, VM, rows, column, F, size))
        v_y = tl.load(_tile(work, VM + 1, rows, column, F, size))
        v_z = tl.load(_tile(work, VM + 2, rows, column, F, size))
        u_x = _read_tile(low, KEPT + U, rows, column, F, size)
        u_y = _read_tile(low, KEPT + U + 1, rows, column, F, size)
        u_z = _read_tile(low, KEPT + U + 2, rows, column, F, size)
        gate_vv = bias_first + _product(hidden, right_first, SPLIT, IP)
        tl.store(_tile(low, KEPT + VV, rows, column, F, size), gate_vv)
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
    """Compute the energy of each atom, and its derivative with respect to s for a slice."""
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
    low, weights, plane,
    GRADS: tl.constexpr, PARTS: tl.constexpr, DERIVATIVE: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr,
    NF: tl.constexpr, SPLIT: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Compute a slice of the gradient before the silu of a hidden layer, (Σ_part g_part W_partᵀ) silu′."""
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    right_0 = _right(weights, column, F, F, SPLIT)
    right_1 = _right(weights + F * F, column, F, F, SPLIT)
    if PARTS == 3:
        right_2 = _right(weights + 2 * F * F, column, F, F, SPLIT)
    _wait(EARLY)
    derivative = _read_tile(low, DERIVATIVE, rows, column, F, size)
    left_0 = _left(low + GRADS * size + rows * F, F, SPLIT, LOW)
    if ROWS < MANY_ROWS:
        left_1 = _left(low + (GRADS + 1) * size + rows * F, F, SPLIT, LOW)
        if PARTS == 3:
            left_2 = _left(low + (GRADS + 2) * size + rows * F, F, SPLIT, LOW)
    total = tl.dot(left_0, right_0, input_precision=IP)
    if ROWS >= MANY_ROWS:
        left_1 = _left(low + (GRADS + 1) * size + rows * F, F, SPLIT, LOW)
    total = tl.dot(left_1, right_1, total, input_precision=IP)
    if PARTS == 3:
        if ROWS >= MANY_ROWS:
            left_2 = _left(low + (GRADS + 2) * size + rows * F, F, SPLIT, LOW)
        total = tl.dot(left_2, right_2, total, input_precision=IP)
    tl.store(_tile(low, GPRE, rows, column, F, size), (_total(total, SPLIT) * derivative).to(LOW))


@triton.jit
def _gate_back(
    index, group, part,
    work, low, weights, plane,
    LAYER: tl.constexpr, LAST: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr,
    NF: tl.constexpr, SPLIT: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Compute gradients for a slice. Part 0: with respect to s before the update; part 1: with respect to u and w."""
    KEPT: tl.constexpr = LOW_PLANES + LAYER * KEPT_PLANES
    ABOVE: tl.constexpr = GV + (LAYER + 1) % 2 * 3
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    right = _right(weights + (WA_BACK + part) * F * F, column, F, F, SPLIT)
    _wait(EARLY)
    left = _left(low + GPRE * size + rows * F, F, SPLIT, LOW)
    grad_s = tl.load(_tile(work, GS, rows, column, F, size))
    if part == 0:
        tl.store(_tile(work, GSM, rows, column, F, size), grad_s + _product(left, right, SPLIT, IP))
    else:
        grad_inner = grad_s * _read_tile(low, KEPT + SV, rows, column, F, size)
        u_x = _read_tile(low, KEPT + U, rows, column, F, size)
        u_y = _read_tile(low, KEPT + U + 1, rows, column, F, size)
        u_z = _read_tile(low, KEPT + U + 2, rows, column, F, size)
        w_x = _read_tile(low, KEPT + W, rows, column, F, size)
        w_y = _read_tile(low, KEPT + W + 1, rows, column, F, size)
        w_z = _read_tile(low, KEPT + W + 2, rows, column, F, size)
        grad_u_x, grad_u_y, grad_u_z = grad_inner * w_x, grad_inner * w_y, grad_inner * w_z
        if not LAST:
            gate_vv = _read_tile(low, KEPT + VV, rows, column, F, size)
            grad_u_x += gate_vv * tl.load(_tile(work, ABOVE, rows, column, F, size))
            grad_u_y += gate_vv * tl.load(_tile(work, ABOVE + 1, rows, column, F, size))
            grad_u_z += gate_vv * tl.load(_tile(work, ABOVE + 2, rows, column, F, size))
        tl.store(_tile(low, GU, rows, column, F, size), grad_u_x.to(LOW))
        tl.store(_tile(low, GU + 1, rows, column, F, size), grad_u_y.to(LOW))
        tl.store(_tile(low, GU + 2, rows, column, F, size), grad_u_z.to(LOW))
        norm = tl.sqrt(w_x * w_x + w_y * w_y + w_z * w_z + EPSILON)
        by_norm = _product(left, right, SPLIT, IP) / norm
        tl.store(_tile(low, GW, rows, column, F, size), (by_norm * w_x + grad_inner * u_x).to(LOW))
        tl.store(_tile(low, GW + 1, rows, column, F, size), (by_norm * w_y + grad_inner * u_y).to(LOW))
        tl.store(_tile(low, GW + 2, rows, column, F, size), (by_norm * w_z + grad_inner * u_z).to(LOW))


@triton.jit
def _vector_back(left_u, left_w, right_u, right_w, at_above, LAST: tl.constexpr, SPLIT: tl.constexpr, IP: tl.constexpr):
    """Compute the gradient with respect to one component of v between messages and update."""
    total = _total(tl.dot(left_w, right_w, tl.dot(left_u, right_u, input_precision=IP), input_precision=IP), SPLIT)
    if not LAST:
        total += tl.load(at_above)
    return total


@triton.jit
def _vectors_back(
    index, group, axis,
    work, low, weights, plane,
    LAYER: tl.constexpr, LAST: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr,
    SPLIT: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Compute one component of that gradient for a slice."""
    ABOVE: tl.constexpr = GV + (LAYER + 1) % 2 * 3
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    right_u = _right(weights, column, F, F, SPLIT)
    right_w = _right(weights + F * F, column, F, F, SPLIT)
    _wait(EARLY)
    left_u = _left(low + (GU + axis) * size + rows * F, F, SPLIT, LOW)
    left_w = _left(low + (GW + axis) * size + rows * F, F, SPLIT, LOW)
    above = _tile(work, ABOVE + axis, rows, column, F, size)
    total = _vector_back(left_u, left_w, right_u, right_w, above, LAST, SPLIT, IP)
    tl.store(_tile(work, GM + axis, rows, column, F, size), total)


@triton.jit
def _all_vectors_back(
    index, group,
    work, low, weights, plane,
    LAYER: tl.constexpr, LAST: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr,
    SPLIT: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Compute all components of that gradient for a slice; the backward pass of messages needs no other slice."""
    ABOVE: tl.constexpr = GV + (LAYER + 1) % 2 * 3
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    right_u = _right(weights, column, F, F, SPLIT)
    right_w = _right(weights + F * F, column, F, F, SPLIT)
    _wait(EARLY)
    # All operands are loaded before the first product needs one.
    u_x = _left(low + GU * size + rows * F, F, SPLIT, LOW)
    u_y = _left(low + (GU + 1) * size + rows * F, F, SPLIT, LOW)
    u_z = _left(low + (GU + 2) * size + rows * F, F, SPLIT, LOW)
    w_x = _left(low + GW * size + rows * F, F, SPLIT, LOW)
    w_y = _left(low + (GW + 1) * size + rows * F, F, SPLIT, LOW)
    w_z = _left(low + (GW + 2) * size + rows * F, F, SPLIT, LOW)
    above = _tile(work, ABOVE, rows, column, F, size)
    x = _vector_back(u_x, w_x, right_u, right_w, above, LAST, SPLIT, IP)
    y = _vector_back(u_y, w_y, right_u, right_w, above + size, LAST, SPLIT, IP)
    z = _vector_back(u_z, w_z, right_u, right_w, above + 2 * size, LAST, SPLIT, IP)
    tl.store(_tile(work, GM, rows, column, F, size), x)
    tl.store(_tile(work, GM + 1, rows, column, F, size), y)
    tl.store(_tile(work, GM + 2, rows, column, F, size), z)


@triton.jit
def _pairs_back(
    index, group,
    work, unit, basis, slope, filters, partial, plane, n_slots,
    LAYER: tl.constexpr, LAST: tl.constexpr, F: tl.constexpr, SLOTS: tl.constexpr, RBF: tl.constexpr,
    ATOMS: tl.constexpr, NF: tl.constexpr, PARTNERS: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Compute gradients with respect to pairs, through the messages from some atoms a to their partners b.

    ``partial`` [slices, pairs, 4] sums ∂E/∂d and ∂E/∂r̂_ba of the message from a to b over the layers.
    """
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ATOMS + tl.arange(0, ATOMS)
    first = group * ATOMS // SLOTS * SLOTS  # of the molecule
    atom = rows - first
    one, k = tl.arange(0, PARTNERS), tl.arange(0, RBF)
    at_filters = filters + one[:, None, None] * 0 + k[None, :, None] * F + column[None, None, :]
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
    for step in tl.range(0, tl.cdiv(n_slots, PARTNERS), num_stages=AHEAD):
        partner = first + step * PARTNERS + one
        pair = partner.to(tl.int64)[:, None] * SLOTS + atom[None, :]
        where = pair[:, :, None] * RBF + k[None, None, :]
        inputs = tl.load(basis + where)
        slopes = tl.load(slope + where)
        at = unit + partner.to(tl.int64)[:, None] * 4 * SLOTS + atom[None, :]
        here = of_slice + pair[:, :, None, None] * 4 + component[None, None, :, :]
        if not LAST:
            before = tl.load(here)
        grad_s = _of_partners(work, GSM, partner, column, F, size)
        grad_x = _of_partners(work, GM, partner, column, F, size)
        grad_y = _of_partners(work, GM + 1, partner, column, F, size)
        grad_z = _of_partners(work, GM + 2, partner, column, F, size)
        # Products come first: their factors then have the same layout, and need no transfer through shared memory.
        weight_r = tl.dot(inputs, filters_r, input_precision=IP) * phi_r
        slope_r = tl.dot(slopes, filters_r, input_precision=IP) * phi_r
        by_d = tl.dot(slopes, filters_s, input_precision=IP) * phi_s * grad_s
        if LAYER > 0:
            slope_v = tl.dot(slopes, filters_v, input_precision=IP)
            by_d += slope_v * v_x * grad_x + slope_v * v_y * grad_y + slope_v * v_z * grad_z
        # The message goes from a to b, opposite to r̂_ab.
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
    NF: tl.constexpr, PARTNERS: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Compute gradients with respect to what some atoms sent to their partners, and to v before the messages."""
    MINE: tl.constexpr = COMMON_PLANES + LAYER * LAYER_PLANES
    # A plane of its own: programs of pairs may still read the plane of the layer above.
    GV_MINE: tl.constexpr = GV + LAYER % 2 * 3
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ATOMS + tl.arange(0, ATOMS)
    first = group * ATOMS // SLOTS * SLOTS  # of the molecule
    atom = rows - first
    one, k = tl.arange(0, PARTNERS), tl.arange(0, RBF)
    at_filters = filters + one[:, None, None] * 0 + k[None, :, None] * F + column[None, None, :]
    filters_s = tl.load(at_filters)
    filters_v = tl.load(at_filters + RBF * F)
    filters_r = tl.load(at_filters + 2 * RBF * F)
    _wait(EARLY)
    sent_s = tl.zeros((PARTNERS, ATOMS, NF), tl.float32)
    sent_r = tl.zeros((PARTNERS, ATOMS, NF), tl.float32)
    sent_x = tl.zeros((PARTNERS, ATOMS, NF), tl.float32)
    sent_y = tl.zeros((PARTNERS, ATOMS, NF), tl.float32)
    sent_z = tl.zeros((PARTNERS, ATOMS, NF), tl.float32)
    for step in tl.range(0, tl.cdiv(n_slots, PARTNERS), num_stages=AHEAD):
        partner = first + step * PARTNERS + one
        pair = partner.to(tl.int64)[:, None] * SLOTS + atom[None, :]
        inputs = tl.load(basis + pair[:, :, None] * RBF + k[None, None, :])
        at = unit + partner.to(tl.int64)[:, None] * 4 * SLOTS + atom[None, :]
        grad_x = _of_partners(work, GM, partner, column, F, size)
        grad_y = _of_partners(work, GM + 1, partner, column, F, size)
        grad_z = _of_partners(work, GM + 2, partner, column, F, size)
        sent_s += tl.dot(inputs, filters_s, input_precision=IP) * _of_partners(work, GSM, partner, column, F, size)
        filter_v = tl.dot(inputs, filters_v, input_precision=IP)
        sent_x += filter_v * grad_x
        sent_y += filter_v * grad_y
        sent_z += filter_v * grad_z
        # Opposite to r̂_ab, as the message.
        filter_r = tl.dot(inputs, filters_r, input_precision=IP)
        sent_r -= filter_r * grad_x * tl.load(at)[:, :, None]
        sent_r -= filter_r * grad_y * tl.load(at + SLOTS)[:, :, None]
        sent_r -= filter_r * grad_z * tl.load(at + 2 * SLOTS)[:, :, None]
    sent_s, sent_r, x, y, z = tl.reduce((sent_s, sent_r, sent_x, sent_y, sent_z), 0, _add_5)
    own_x = tl.load(_tile(work, MINE + VIN, rows, column, F, size))
    own_y = tl.load(_tile(work, MINE + VIN + 1, rows, column, F, size))
    own_z = tl.load(_tile(work, MINE + VIN + 2, rows, column, F, size))
    through = _read_tile(work, MINE + PHI + 1, rows, column, F, size)
    tl.store(_tile(low, GPHI, rows, column, F, size), sent_s.to(LOW))
    tl.store(_tile(low, GPHI + 1, rows, column, F, size), (x * own_x + y * own_y + z * own_z).to(LOW))
    tl.store(_tile(low, GPHI + 2, rows, column, F, size), sent_r.to(LOW))
    x = through * x + tl.load(_tile(work, GM, rows, column, F, size))
    y = through * y + tl.load(_tile(work, GM + 1, rows, column, F, size))
    z = through * z + tl.load(_tile(work, GM + 2, rows, column, F, size))
    tl.store(_tile(work, GV_MINE, rows, column, F, size), x)
    tl.store(_tile(work, GV_MINE + 1, rows, column, F, size), y)
    tl.store(_tile(work, GV_MINE + 2, rows, column, F, size), z)


@triton.jit
def _scalars_back(
    index, group,
    work, low, weights, plane,
    LAYER: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, NF: tl.constexpr,
    SPLIT: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Compute the gradient with respect to s before the layer for a slice, and to the gates of the layer below."""
    BELOW: tl.constexpr = COMMON_PLANES + (LAYER - 1) * LAYER_PLANES
    KEPT_BELOW: tl.constexpr = LOW_PLANES + (LAYER - 1) * KEPT_PLANES
    GV_MINE: tl.constexpr = GV + LAYER % 2 * 3
    size = tl.cast(plane, tl.int64)
    column = index * NF + tl.arange(0, NF)
    rows = group * ROWS + tl.arange(0, ROWS)
    right = _right(weights + W1_BACK * F * F, column, F, F, SPLIT)
    _wait(EARLY)
    left = _left(low + GPRE * size + rows * F, F, SPLIT, LOW)
    before = tl.load(_tile(work, GSM, rows, column, F, size))
    inner = tl.load(_tile(work, BELOW + UW, rows, column, F, size))
    grad_vv = tl.zeros((ROWS, NF), tl.float32)
    for axis in tl.static_range(3):
        u = _read_tile(low, KEPT_BELOW + U + axis, rows, column, F, size)
        grad_vv += u * tl.load(_tile(work, GV_MINE + axis, rows, column, F, size))
    grad_s = before + _product(left, right, SPLIT, IP)
    tl.store(_tile(work, GS, rows, column, F, size), grad_s)
    tl.store(_tile(low, G3, rows, column, F, size), grad_s.to(LOW))
    tl.store(_tile(low, G3 + 1, rows, column, F, size), (grad_s * inner).to(LOW))
    tl.store(_tile(low, G3 + 2, rows, column, F, size), grad_vv.to(LOW))


@triton.jit
def _store_forces(by_d, by_x, by_y, by_z, unit, forces, inside, SLOTS: tl.constexpr):
    """Store forces on some atoms a from the gradients of their pairs, [atoms, SLOTS b], zero where there is no pair."""
    x, y, z, inverse = tl.load(unit), tl.load(unit + SLOTS), tl.load(unit + 2 * SLOTS), tl.load(unit + 3 * SLOTS)
    # ∂d/∂x_a = −r̂_ab; the part of a displacement of a that is normal to r̂_ba rotates r̂_ba.
    radial = by_d + (by_x * x + by_y * y + by_z * z) * inverse
    tl.store(forces, tl.sum((radial * x - by_x * inverse).to(tl.float64), axis=1), inside)
    tl.store(forces + 1, tl.sum((radial * y - by_y * inverse).to(tl.float64), axis=1), inside)
    tl.store(forces + 2, tl.sum((radial * z - by_z * inverse).to(tl.float64), axis=1), inside)


@triton.jit
def _forces(
    molecule, first,
    element, atomic, repelled, reference, unit, push, partial, energy, forces, n_slots, plane,
    SLICES: tl.constexpr, F: tl.constexpr, SLOTS: tl.constexpr, ATOMS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Compute forces on some atoms a from messages in both directions; the first program adds up the energy."""
    a = first + tl.arange(0, ATOMS)
    b = tl.arange(0, SLOTS)
    row_a, row_b = molecule * SLOTS + a, molecule * SLOTS + b
    slices = partial + tl.arange(0, SLICES)[None, :, None] * (tl.cast(plane, tl.int64) // F * SLOTS) * 4
    pair = row_b.to(tl.int64)[None, :] * SLOTS + a[:, None]  # the message from a to b
    there = slices + pair[:, None, :] * 4
    back = slices + (row_a.to(tl.int64)[:, None] * SLOTS + b[None, :])[:, None, :] * 4
    _wait(EARLY)
    z_a = tl.load(element + row_a)
    z_b = tl.load(element + row_b)
    paired = ((z_a > 0)[:, None] & (z_b > 0)[None, :] & (a[:, None] != b[None, :]))[:, None, :]
    at = unit + row_b.to(tl.int64)[None, :] * 4 * SLOTS + a[:, None]
    by_d = tl.load(there, paired, 0.0) + tl.load(back, paired, 0.0)
    by_x = tl.load(there + 1, paired, 0.0) - tl.load(back + 1, paired, 0.0)
    by_y = tl.load(there + 2, paired, 0.0) - tl.load(back + 2, paired, 0.0)
    by_z = tl.load(there + 3, paired, 0.0) - tl.load(back + 3, paired, 0.0)
    by_d, by_x, by_y, by_z = tl.reduce((by_d, by_x, by_y, by_z), 1, _add_4)
    _store_forces(
        by_d + tl.load(push + pair), by_x, by_y, by_z, at, forces + (molecule * n_slots + a) * 3, a < n_slots, SLOTS
    )
    if first == 0:
        each = tl.load(atomic + row_b).to(tl.float64) + tl.load(repelled + row_b) + tl.load(reference + z_b)
        tl.store(energy + molecule, tl.sum(tl.where(z_b > 0, each, 0.0)))


# The stages in the order of an evaluation. Some run once; those of a layer run forward and backward for each layer.
GEOMETRY, READOUT, FORCES = (tl.constexpr(n) for n in (0, 7, 14))
HIDDEN_OF_PHI, PHI_OF_HIDDEN, MESSAGE, MIX, HIDDEN_OF_GATES, GATE = (tl.constexpr(n) for n in range(1, 7))
GATES_BACK, GATE_BACK, VECTORS_BACK, MESSAGE_BACK, PHI_BACK, SCALARS_BACK = (tl.constexpr(n) for n in range(8, 14))
# Matrices of one layer in ``weights``, each F · F numbers; the filters follow.
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
    """Return the name of a kernel for profilers: that of its stage."""
    return f"fused_{STAGE_NAMES[specialization.constants['STAGE']]}"


@triton.jit(repr=_kernel_name, do_not_specialize=["n_systems"])
def stage_kernel(
    positions, numbers, weights, offsets, radius, charge, embedding, phi0, reference,
    work, low, element, unit, push, repelled, basis, slope, atomic, partial, energy, forces,
    n_systems, n_slots, plane, cutoff, out_bias,
    STAGE: tl.constexpr, LAYER: tl.constexpr, LAYERS: tl.constexpr, F: tl.constexpr, HALF: tl.constexpr,
    SLOTS: tl.constexpr, ROWS: tl.constexpr, RBF: tl.constexpr, N_RBF: tl.constexpr, NF: tl.constexpr,
    SPLIT: tl.constexpr, PAIR_NF: tl.constexpr, PARTNERS: tl.constexpr, JOINS: tl.constexpr,
    LOW: tl.constexpr, IP: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Compute one stage of all molecules; programs are [slices, groups, parts of a slice].

    If it ``JOINS``, a stage whose slices depend only on the same slice of the previous stage computes that stage first,
    for all rows of its molecule.
    """
    index, group, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    KEPT: tl.constexpr = LOW_PLANES + LAYER * KEPT_PLANES
    LAST: tl.constexpr = LAYER == LAYERS - 1
    SIZE: tl.constexpr = FILTERS * F * F + 3 * RBF * F
    mine = weights + LAYER * SIZE
    bias = offsets + LAYER * LAYER_OFFSETS * F
    filters = mine + FILTERS * F * F
    if STAGE == GEOMETRY:
        _wait(EARLY)
        row = group * SLOTS
        pairs = row.to(tl.int64) * SLOTS
        kind = _geometry(
            group, index, positions, numbers, radius, charge, element + row, unit + 4 * pairs, push + pairs,
            repelled + row, basis + pairs * RBF, slope + pairs * RBF, n_systems, n_slots, cutoff,
            SLOTS, RBF, N_RBF, 1, LOW,
        )  # fmt: skip
        _first_features(row + index + tl.arange(0, 1), kind, embedding, phi0, work, plane, F)
    elif STAGE == HIDDEN_OF_PHI:
        _hidden(
            index, group, work, low, mine + W1 * F * F, bias + B1 * F, plane,
            KEPT + DH, False, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == PHI_OF_HIDDEN:
        _phi(
            index, group, work, low, mine + W2 * F * F, bias + B2 * F, plane, LAYER, F, ROWS, NF, SPLIT, LOW, IP, EARLY
        )
    elif STAGE == MESSAGE:
        PHI_FIRST: tl.constexpr = JOINS and LAYER > 0
        if PHI_FIRST:
            _phi(
                index, group * 16 // ROWS, work, low, mine + W2 * F * F, bias + B2 * F, plane,
                LAYER, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
            )  # fmt: skip
        _message(
            index, group, work, unit, basis, filters, plane, n_slots,
            LAYER, F, SLOTS, RBF, 16, PAIR_NF, PARTNERS, IP, HERE if PHI_FIRST else EARLY,
        )  # fmt: skip
    elif STAGE == MIX:
        _mix(index, group, work, low, mine + MIXED * F * F, plane, LAYER, F, ROWS, NF, SPLIT, LOW, IP, EARLY)
    elif STAGE == HIDDEN_OF_GATES:
        _hidden(
            index, group, work, low, mine + WA * F * F, bias + BA * F, plane,
            KEPT + DA, True, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == GATE:
        _gate(index, group, part, work, low, mine, bias, plane, LAYER, F, ROWS, NF, SPLIT, LOW, IP, EARLY)
    elif STAGE == READOUT:
        into = weights + LAYERS * SIZE
        ends = offsets + LAYERS * LAYER_OFFSETS * F
        _readout(
            index, group, work, low, element, into, ends, ends + HALF, into + F * HALF, atomic, plane, out_bias,
            LAYERS - 1, F, HALF, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == GATES_BACK:
        _hidden_back(
            index, group, low, mine + WB_BACK * F * F, plane,
            G3, 2 if LAST else 3, KEPT + DA, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == GATE_BACK:
        _gate_back(index, group, part, work, low, mine, plane, LAYER, LAST, F, ROWS, NF, SPLIT, LOW, IP, EARLY)
    elif STAGE == VECTORS_BACK:
        _vectors_back(
            index, group, part, work, low, mine + MIXED_BACK * F * F, plane,
            LAYER, LAST, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == MESSAGE_BACK:
        if JOINS:
            _all_vectors_back(
                index, group * 16 // ROWS, work, low, mine + MIXED_BACK * F * F, plane,
                LAYER, LAST, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
            )  # fmt: skip
        if part == 0:
            _pairs_back(
                index, group, work, unit, basis, slope, filters, partial, plane, n_slots,
                LAYER, LAST, F, SLOTS, RBF, 16, PAIR_NF, PARTNERS, IP, HERE if JOINS else EARLY,
            )  # fmt: skip
        elif LAYER > 0:
            _senders_back(
                index, group, work, low, unit, basis, filters, plane, n_slots,
                LAYER, F, SLOTS, RBF, 16, PAIR_NF, PARTNERS, LOW, IP, HERE if JOINS else EARLY,
            )  # fmt: skip
    elif STAGE == PHI_BACK:
        _hidden_back(
            index, group, low, mine + W2_BACK * F * F, plane,
            GPHI, 3, KEPT + DH, F, ROWS, NF, SPLIT, LOW, IP, EARLY,
        )  # fmt: skip
    elif STAGE == SCALARS_BACK:
        _scalars_back(index, group, work, low, mine, plane, LAYER, F, ROWS, NF, SPLIT, LOW, IP, EARLY)
    else:
        _forces(
            group, index, element, atomic, repelled, reference, unit, push, partial, energy, forces,
            n_slots, plane, F // PAIR_NF, F, SLOTS, 1, EARLY,
        )  # fmt: skip


# All stages of a molecule in one program, with rows for its atoms and planes [ATOMS, F] of scratch memory. For each
# layer, ``kept`` stores the data of the backward pass in the precision of products, and ``shared`` stores in FP32 what
# atoms read from each other.
ATOMS = tl.constexpr(16)
KEPT_PHI, MOLECULE_PLANES = (tl.constexpr(n) for n in (10, 13))  # after the planes that both forms store
SHARED_GS, SHARED_GM, SHARED_V = (tl.constexpr(n) for n in (1, 2, 5))  # the last for each layer


@triton.jit
def _weights(weights, K: tl.constexpr, F: tl.constexpr):
    """Load a matrix [K, F]."""
    return tl.load(weights + tl.arange(0, K)[:, None] * F + tl.arange(0, F)[None, :])


@triton.jit
def _square(weights, matrix, F: tl.constexpr):
    """Load one of a layer's matrices [F, F]."""
    return _weights(weights + matrix * F * F, F, F)


@triton.jit
def _bias(offsets, which, F: tl.constexpr):
    """Load a vector [1, F]."""
    return tl.load(offsets + which * F + tl.arange(0, F))[None, :]


@triton.jit
def _filters(weights, part, F: tl.constexpr, RBF: tl.constexpr):
    """Load filters [RBF, F]."""
    k = tl.arange(0, RBF)
    return tl.load(weights + FILTERS * F * F + (part * RBF + k[:, None]) * F + tl.arange(0, F)[None, :])


@triton.jit
def _times(left, right, LOW: tl.constexpr, IP: tl.constexpr):
    """Compute left [ATOMS, K] · right [K, F] in FP32."""
    return tl.dot(left.to(LOW), right, input_precision=IP)


@triton.jit
def _at(base, plane, F: tl.constexpr):
    """Return pointers to a plane [ATOMS, F]."""
    return base + (plane * ATOMS + tl.arange(0, ATOMS)[:, None]) * F + tl.arange(0, F)[None, :]


@triton.jit
def _read(base, plane, F: tl.constexpr):
    """Load a plane [ATOMS, F] as FP32."""
    return tl.load(_at(base, plane, F)).to(tl.float32)


@triton.jit
def _row(base, row, F: tl.constexpr):
    """Load a row [1, F] as FP32. There are fewer numbers than threads, and each thread loads only its own."""
    return tl.load(base + row * F + tl.arange(0, F)[None, :]).to(tl.float32)


@triton.jit
def _layer(
    s, v_x, v_y, v_z, kept, shared, element, unit, basis, weights, offsets, phi0, n_slots,
    LAYER: tl.constexpr, LAST: tl.constexpr, F: tl.constexpr, RBF: tl.constexpr,
    LOW: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """Compute messages and update of one layer; weights are loaded some products before they are needed."""
    a, k = tl.arange(0, ATOMS), tl.arange(0, RBF)
    filters_s, filters_r = _filters(weights, 0, F, RBF), _filters(weights, 2, F, RBF)
    if LAYER > 0:
        filters_v = _filters(weights, 1, F, RBF)
        right = _square(weights, W1, F)
        right_s, right_v, right_r = (
            _square(weights, W2, F),
            _square(weights, W2 + 1, F),
            _square(weights, W2 + 2, F),
        )
        hidden, derivative = _silu(_times(s, right, LOW, IP) + _bias(offsets, B1, F))
        tl.store(_at(kept, DH, F), derivative.to(LOW))
        phi_s = _times(hidden, right_s, LOW, IP) + _bias(offsets, B2, F)
        phi_v = _times(hidden, right_v, LOW, IP) + _bias(offsets, B2 + 1, F)
        phi_r = _times(hidden, right_r, LOW, IP) + _bias(offsets, B2 + 2, F)
        tl.store(_at(kept, KEPT_PHI, F), phi_s.to(LOW))
        tl.store(_at(kept, KEPT_PHI + 1, F), phi_v.to(LOW))
        tl.store(_at(kept, KEPT_PHI + 2, F), phi_r.to(LOW))
        tl.store(_at(shared, SHARED_V + 3 * LAYER, F), v_x)
        tl.store(_at(shared, SHARED_V + 3 * LAYER + 1, F), v_y)
        tl.store(_at(shared, SHARED_V + 3 * LAYER + 2, F), v_z)
        tl.debug_barrier()
    right_u, right_w = _square(weights, MIXED, F), _square(weights, MIXED + 1, F)
    for b in tl.range(0, n_slots, num_stages=AHEAD):
        inputs = tl.load(basis + (b * ATOMS + a[:, None]) * RBF + k[None, :])
        if LAYER > 0:
            of_s = _row(kept, KEPT_PHI * ATOMS + b, F)
            of_r = _row(kept, (KEPT_PHI + 2) * ATOMS + b, F)
            through = _row(kept, (KEPT_PHI + 1) * ATOMS + b, F) * tl.dot(inputs, filters_v, input_precision=IP)
            v_x += through * _row(shared, (SHARED_V + 3 * LAYER) * ATOMS + b, F)
            v_y += through * _row(shared, (SHARED_V + 3 * LAYER + 1) * ATOMS + b, F)
            v_z += through * _row(shared, (SHARED_V + 3 * LAYER + 2) * ATOMS + b, F)
        else:
            kind = tl.load(element + b)
            of_s = _row(phi0, 3 * kind, F)
            of_r = _row(phi0, 3 * kind + 2, F)
        s += of_s * tl.dot(inputs, filters_s, input_precision=IP)
        along = of_r * tl.dot(inputs, filters_r, input_precision=IP)
        at = unit + b * 4 * ATOMS + a[:, None]
        v_x += along * tl.load(at)
        v_y += along * tl.load(at + ATOMS)
        v_z += along * tl.load(at + 2 * ATOMS)

    right_s, right_n = _square(weights, WA, F), _square(weights, WA + 1, F)
    u_x = _times(v_x, right_u, LOW, IP)
    u_y = _times(v_y, right_u, LOW, IP)
    u_z = _times(v_z, right_u, LOW, IP)
    w_x = _times(v_x, right_w, LOW, IP)
    w_y = _times(v_y, right_w, LOW, IP)
    w_z = _times(v_z, right_w, LOW, IP)
    right_ss, right_sv = _square(weights, WB, F), _square(weights, WB + 1, F)
    tl.store(_at(kept, U, F), u_x.to(LOW))
    tl.store(_at(kept, U + 1, F), u_y.to(LOW))
    tl.store(_at(kept, U + 2, F), u_z.to(LOW))
    tl.store(_at(kept, W, F), w_x.to(LOW))
    tl.store(_at(kept, W + 1, F), w_y.to(LOW))
    tl.store(_at(kept, W + 2, F), w_z.to(LOW))
    inner = u_x * w_x + u_y * w_y + u_z * w_z
    norm = tl.sqrt(w_x * w_x + w_y * w_y + w_z * w_z + EPSILON)
    total = _times(s, right_s, LOW, IP) + _times(norm, right_n, LOW, IP)
    if not LAST:
        right_vv = _square(weights, WB + 2, F)
    hidden, derivative = _silu(total + _bias(offsets, BA, F))
    tl.store(_at(kept, DA, F), derivative.to(LOW))
    gate_sv = _times(hidden, right_sv, LOW, IP) + _bias(offsets, BB + 1, F)
    tl.store(_at(kept, SV, F), gate_sv.to(LOW))
    s += _times(hidden, right_ss, LOW, IP) + _bias(offsets, BB, F) + gate_sv * inner
    if not LAST:
        gate_vv = _times(hidden, right_vv, LOW, IP) + _bias(offsets, BB + 2, F)
        tl.store(_at(kept, VV, F), gate_vv.to(LOW))
        v_x += gate_vv * u_x
        v_y += gate_vv * u_y
        v_z += gate_vv * u_z
    return s, v_x, v_y, v_z


@triton.jit
def _update_back(
    grad_s, grad_x, grad_y, grad_z, kept, weights,
    LAST: tl.constexpr, F: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """Compute gradients with respect to s and v between messages and update, from those after it.

    After the last update there is no gradient with respect to v.
    """
    right_ss, right_sv = _square(weights, WB_BACK, F), _square(weights, WB_BACK + 1, F)
    if not LAST:
        right_vv = _square(weights, WB_BACK + 2, F)
    u_x, u_y, u_z = _read(kept, U, F), _read(kept, U + 1, F), _read(kept, U + 2, F)
    w_x, w_y, w_z = _read(kept, W, F), _read(kept, W + 1, F), _read(kept, W + 2, F)
    right_s, right_n = _square(weights, WA_BACK, F), _square(weights, WA_BACK + 1, F)
    inner = u_x * w_x + u_y * w_y + u_z * w_z
    total = _times(grad_s, right_ss, LOW, IP)
    total += _times(grad_s * inner, right_sv, LOW, IP)
    if not LAST:
        grad_vv = grad_x * u_x + grad_y * u_y + grad_z * u_z
        total += _times(grad_vv, right_vv, LOW, IP)
    before = total * _read(kept, DA, F)
    right_u, right_w = _square(weights, MIXED_BACK, F), _square(weights, MIXED_BACK + 1, F)
    grad_inner = grad_s * _read(kept, SV, F)
    grad_s += _times(before, right_s, LOW, IP)
    norm = tl.sqrt(w_x * w_x + w_y * w_y + w_z * w_z + EPSILON)
    by_norm = _times(before, right_n, LOW, IP) / norm
    if LAST:
        grad_x = _times(grad_inner * w_x, right_u, LOW, IP)
        grad_y = _times(grad_inner * w_y, right_u, LOW, IP)
        grad_z = _times(grad_inner * w_z, right_u, LOW, IP)
    else:
        gate_vv = _read(kept, VV, F)
        grad_x += _times(grad_inner * w_x + gate_vv * grad_x, right_u, LOW, IP)
        grad_y += _times(grad_inner * w_y + gate_vv * grad_y, right_u, LOW, IP)
        grad_z += _times(grad_inner * w_z + gate_vv * grad_z, right_u, LOW, IP)
    grad_x += _times(by_norm * w_x + grad_inner * u_x, right_w, LOW, IP)
    grad_y += _times(by_norm * w_y + grad_inner * u_y, right_w, LOW, IP)
    grad_z += _times(by_norm * w_z + grad_inner * u_z, right_w, LOW, IP)
    return grad_s, grad_x, grad_y, grad_z


@triton.jit
def _sums_of_warps(by_d, by_x, by_y, by_z, WARPS: tl.constexpr):
    """Compute [ATOMS, WARPS, 2, 2], sums over the columns of a product that each warp has, so that no warp waits."""
    ATOMS: tl.constexpr = by_d.shape[0]
    REPEATS: tl.constexpr = by_d.shape[1] // (8 * WARPS)
    shape: tl.constexpr = (ATOMS, REPEATS, WARPS, 8)
    by_d, by_x = tl.reshape(by_d, shape), tl.reshape(by_x, shape)
    by_y, by_z = tl.reshape(by_y, shape), tl.reshape(by_z, shape)
    by_d, by_x, by_y, by_z = tl.reduce((by_d, by_x, by_y, by_z), 1, _add_4)
    by_d, by_x, by_y, by_z = tl.reduce((by_d, by_x, by_y, by_z), 2, _add_4)
    return tl.join(tl.join(by_d, by_y), tl.join(by_x, by_z))


@triton.jit
def _molecule_pairs_back(
    kept, shared, element, unit, basis, slope, partial, filters_s, filters_v, filters_r, phi0, n_slots,
    LAYER: tl.constexpr, LAST: tl.constexpr, F: tl.constexpr, RBF: tl.constexpr, WARPS: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """Compute `_pairs_back` in one program; ``partial`` [WARPS, b, a, 4] has a sum for each warp, so none waits."""
    a, k = tl.arange(0, ATOMS), tl.arange(0, RBF)
    if LAYER > 0:
        phi_s, phi_r = _read(kept, KEPT_PHI, F), _read(kept, KEPT_PHI + 2, F)
        phi_v = _read(kept, KEPT_PHI + 1, F)
        sent_x = phi_v * _read(shared, SHARED_V + 3 * LAYER, F)
        sent_y = phi_v * _read(shared, SHARED_V + 3 * LAYER + 1, F)
        sent_z = phi_v * _read(shared, SHARED_V + 3 * LAYER + 2, F)
    else:
        of_kind = phi0 + 3 * tl.load(element + a)[:, None] * F + tl.arange(0, F)[None, :]
        phi_s, phi_r = tl.load(of_kind), tl.load(of_kind + 2 * F)
    component = 2 * tl.arange(0, 2)[:, None] + tl.arange(0, 2)[None, :]
    for b in tl.range(0, n_slots, num_stages=AHEAD):
        where = (b * ATOMS + a[:, None]) * RBF + k[None, :]
        inputs, slopes = tl.load(basis + where), tl.load(slope + where)
        here = partial + ((tl.arange(0, WARPS)[None, :] * ATOMS + b) * ATOMS + a[:, None])[:, :, None, None] * 4
        here += component[None, None, :, :]
        if not LAST:
            before = tl.load(here)
        grad_s = _row(shared, SHARED_GS * ATOMS + b, F)
        grad_x = _row(shared, SHARED_GM * ATOMS + b, F)
        grad_y = _row(shared, (SHARED_GM + 1) * ATOMS + b, F)
        grad_z = _row(shared, (SHARED_GM + 2) * ATOMS + b, F)
        weight_r = tl.dot(inputs, filters_r, input_precision=IP) * phi_r
        slope_r = tl.dot(slopes, filters_r, input_precision=IP) * phi_r
        by_d = tl.dot(slopes, filters_s, input_precision=IP) * phi_s * grad_s
        if LAYER > 0:
            through = sent_x * grad_x + sent_y * grad_y + sent_z * grad_z
            by_d += tl.dot(slopes, filters_v, input_precision=IP) * through
        # The message goes from a to b, opposite to r̂_ab.
        at = unit + b * 4 * ATOMS + a[:, None]
        by_d -= slope_r * (grad_x * tl.load(at) + grad_y * tl.load(at + ATOMS) + grad_z * tl.load(at + 2 * ATOMS))
        total = _sums_of_warps(by_d, weight_r * grad_x, weight_r * grad_y, weight_r * grad_z, WARPS)
        if not LAST:
            total += before
        tl.store(here, total)


@triton.jit
def _molecule_senders_back(
    kept, shared, unit, basis, filters_s, filters_v, filters_r, n_slots,
    LAYER: tl.constexpr, F: tl.constexpr, RBF: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """Compute `_senders_back` in one program: gradients of three parts of φ, and of three components of v."""
    a, k = tl.arange(0, ATOMS), tl.arange(0, RBF)
    sent_s = tl.zeros((ATOMS, F), tl.float32)
    sent_r = tl.zeros((ATOMS, F), tl.float32)
    x = tl.zeros((ATOMS, F), tl.float32)
    y = tl.zeros((ATOMS, F), tl.float32)
    z = tl.zeros((ATOMS, F), tl.float32)
    for b in tl.range(0, n_slots, num_stages=AHEAD):
        inputs = tl.load(basis + (b * ATOMS + a[:, None]) * RBF + k[None, :])
        grad_x = _row(shared, SHARED_GM * ATOMS + b, F)
        grad_y = _row(shared, (SHARED_GM + 1) * ATOMS + b, F)
        grad_z = _row(shared, (SHARED_GM + 2) * ATOMS + b, F)
        sent_s += tl.dot(inputs, filters_s, input_precision=IP) * _row(shared, SHARED_GS * ATOMS + b, F)
        filter_v = tl.dot(inputs, filters_v, input_precision=IP)
        x += filter_v * grad_x
        y += filter_v * grad_y
        z += filter_v * grad_z
        # Opposite to r̂_ab, as the message.
        at = unit + b * 4 * ATOMS + a[:, None]
        filter_r = tl.dot(inputs, filters_r, input_precision=IP)
        sent_r -= filter_r * (grad_x * tl.load(at) + grad_y * tl.load(at + ATOMS) + grad_z * tl.load(at + 2 * ATOMS))
    sent_v = x * _read(shared, SHARED_V + 3 * LAYER, F)
    sent_v += y * _read(shared, SHARED_V + 3 * LAYER + 1, F)
    sent_v += z * _read(shared, SHARED_V + 3 * LAYER + 2, F)
    phi_v = _read(kept, KEPT_PHI + 1, F)
    x = phi_v * x + _read(shared, SHARED_GM, F)
    y = phi_v * y + _read(shared, SHARED_GM + 1, F)
    z = phi_v * z + _read(shared, SHARED_GM + 2, F)
    return sent_s, sent_v, sent_r, x, y, z


@triton.jit
def _layer_back(
    grad_s, grad_x, grad_y, grad_z, kept, shared, element, unit, basis, slope, partial, weights, phi0, n_slots,
    LAYER: tl.constexpr, LAST: tl.constexpr, F: tl.constexpr, RBF: tl.constexpr, WARPS: tl.constexpr,
    LOW: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """Compute gradients with respect to s and v before a layer, and to its pairs in ``partial``."""
    grad_s, grad_x, grad_y, grad_z = _update_back(
        grad_s, grad_x, grad_y, grad_z, kept, weights, LAST, F, LOW, IP
    )  # fmt: skip
    filters_s, filters_v = _filters(weights, 0, F, RBF), _filters(weights, 1, F, RBF)
    filters_r = _filters(weights, 2, F, RBF)
    tl.store(_at(shared, SHARED_GS, F), grad_s)
    tl.store(_at(shared, SHARED_GM, F), grad_x)
    tl.store(_at(shared, SHARED_GM + 1, F), grad_y)
    tl.store(_at(shared, SHARED_GM + 2, F), grad_z)
    tl.debug_barrier()
    _molecule_pairs_back(
        kept, shared, element, unit, basis, slope, partial, filters_s, filters_v, filters_r, phi0, n_slots,
        LAYER, LAST, F, RBF, WARPS, IP,
    )  # fmt: skip
    if LAYER > 0:
        sent_s, sent_v, sent_r, grad_x, grad_y, grad_z = _molecule_senders_back(
            kept, shared, unit, basis, filters_s, filters_v, filters_r, n_slots, LAYER, F, RBF, IP
        )
        total = _times(sent_s, _square(weights, W2_BACK, F), LOW, IP)
        total += _times(sent_v, _square(weights, W2_BACK + 1, F), LOW, IP)
        total += _times(sent_r, _square(weights, W2_BACK + 2, F), LOW, IP)
        before = total * _read(kept, DH, F)
        grad_s = _times(before, _square(weights, W1_BACK, F), LOW, IP)
        grad_s += _read(shared, SHARED_GS, F)
        tl.debug_barrier()  # wait until all threads have read what the layer below overwrites
    return grad_s, grad_x, grad_y, grad_z


@triton.jit
def _advance(values, rates, by, inside):
    """Add to values: values += by · rates, [ATOMS, 3] FP64."""
    x, y, z = tl.load(values, inside, 0.0), tl.load(values + 1, inside, 0.0), tl.load(values + 2, inside, 0.0)
    x += by * tl.load(rates, inside, 0.0)
    y += by * tl.load(rates + 1, inside, 0.0)
    z += by * tl.load(rates + 2, inside, 0.0)
    tl.debug_barrier()  # wait until all threads have read: several threads compute the same values
    tl.store(values, x, inside)
    tl.store(values + 1, y, inside)
    tl.store(values + 2, z, inside)
    tl.debug_barrier()


@triton.jit(repr=lambda specialization: "fused_molecule", do_not_specialize=["n_systems", "n_steps"])
def molecule_kernel(
    positions, numbers, weights, offsets, radius, charge, embedding, phi0, reference,
    kept, shared, element, unit, push, repelled, basis, slope, partial, energy, forces,
    velocities, masses, timestep, n_steps, n_systems, n_slots, cutoff, out_bias,
    LAYERS: tl.constexpr, F: tl.constexpr, HALF: tl.constexpr, RBF: tl.constexpr, N_RBF: tl.constexpr,
    WARPS: tl.constexpr, MOVES: tl.constexpr, LOW: tl.constexpr, IP: tl.constexpr,
):  # fmt: skip
    """Compute all stages of a molecule; a program processes several molecules in turn if there are more than programs.

    Does one evaluation, or ``n_steps`` of velocity Verlet in ``positions``, ``velocities`` and ``forces``, which hold
    the start. The two half kicks between two steps are done as one. Scratch memory belongs to the program.
    """
    SIZE: tl.constexpr = FILTERS * F * F + 3 * RBF * F
    PAIRS: tl.constexpr = ATOMS * ATOMS
    program = tl.program_id(0).to(tl.int64)
    kept += program * LAYERS * MOLECULE_PLANES * ATOMS * F
    shared += program * (SHARED_V + 3 * LAYERS) * ATOMS * F
    element, repelled = element + program * ATOMS, repelled + program * ATOMS
    unit, push = unit + program * 4 * PAIRS, push + program * PAIRS
    basis, slope = basis + program * PAIRS * RBF, slope + program * PAIRS * RBF
    partial += program * WARPS * PAIRS * 4
    a, b = tl.arange(0, ATOMS), tl.arange(0, ATOMS)
    column, half = tl.arange(0, F), tl.arange(0, HALF)
    into, ends = weights + LAYERS * SIZE, offsets + LAYERS * LAYER_OFFSETS * F
    for molecule in tl.range(tl.program_id(0), n_systems, tl.num_programs(0)):
        inside = a < n_slots
        if MOVES:
            at = (molecule * n_slots + a) * 3
            dt = tl.load(timestep)
            per_mass = dt / tl.load(masses + molecule * n_slots + a, inside, 1.0)
        for step in tl.range(0, n_steps):
            if MOVES:
                _advance(velocities + at, forces + at, tl.where(step == 0, 0.5, 1.0) * per_mass, inside)
                _advance(positions + at, velocities + at, dt, inside)
            for first in tl.range(0, n_slots, 4):
                _geometry(
                    molecule, first, positions, numbers, radius, charge, element, unit, push, repelled, basis, slope,
                    n_systems, n_slots, cutoff, ATOMS, RBF, N_RBF, 4, LOW,
                )  # fmt: skip
            tl.debug_barrier()
            kind = tl.load(element + a)
            is_atom = kind > 0
            s = tl.load(embedding + kind[:, None] * F + column[None, :])
            v_x = tl.zeros((ATOMS, F), tl.float32)
            v_y = tl.zeros((ATOMS, F), tl.float32)
            v_z = tl.zeros((ATOMS, F), tl.float32)
            for layer in tl.static_range(LAYERS):
                s, v_x, v_y, v_z = _layer(
                    s, v_x, v_y, v_z, kept + layer * MOLECULE_PLANES * ATOMS * F, shared, element, unit, basis,
                    weights + layer * SIZE, offsets + layer * LAYER_OFFSETS * F, phi0, n_slots,
                    layer, layer == LAYERS - 1, F, RBF, LOW, IP,
                )  # fmt: skip
            tl.debug_barrier()
            right, back = _weights(into, F, HALF), _weights(into + F * HALF, HALF, F)
            value, derivative = _silu(_times(s, right, LOW, IP) + tl.load(ends + half)[None, :])
            last = tl.load(ends + HALF + half)[None, :]
            each = tl.sum(value * last, axis=1).to(tl.float64) + out_bias
            each += tl.load(repelled + a) + tl.load(reference + kind)
            tl.store(energy + molecule, tl.sum(tl.where(is_atom, each, 0.0)))
            grad_s = _times(tl.where(is_atom[:, None], derivative * last, 0.0), back, LOW, IP)
            grad_x, grad_y, grad_z = v_x, v_y, v_z  # values of the last update, which are not used
            for down in tl.static_range(LAYERS):
                grad_s, grad_x, grad_y, grad_z = _layer_back(
                    grad_s, grad_x, grad_y, grad_z, kept + (LAYERS - 1 - down) * MOLECULE_PLANES * ATOMS * F, shared,
                    element, unit, basis, slope, partial, weights + (LAYERS - 1 - down) * SIZE, phi0, n_slots,
                    LAYERS - 1 - down, down == 0, F, RBF, WARPS, LOW, IP,
                )  # fmt: skip
            tl.debug_barrier()
            paired = is_atom[:, None] & (tl.load(element + b) > 0)[None, :] & (a[:, None] != b[None, :])
            pair = b[None, :] * ATOMS + a[:, None]  # the message from a to b
            there, other = partial + pair * 4, partial + (a[:, None] * ATOMS + b[None, :]) * 4
            by_d = tl.load(push + pair, paired, 0.0)
            by_x = tl.zeros((ATOMS, ATOMS), tl.float32)
            by_y = tl.zeros((ATOMS, ATOMS), tl.float32)
            by_z = tl.zeros((ATOMS, ATOMS), tl.float32)
            for _ in tl.range(WARPS):
                by_d += tl.load(there, paired, 0.0) + tl.load(other, paired, 0.0)
                by_x += tl.load(there + 1, paired, 0.0) - tl.load(other + 1, paired, 0.0)
                by_y += tl.load(there + 2, paired, 0.0) - tl.load(other + 2, paired, 0.0)
                by_z += tl.load(there + 3, paired, 0.0) - tl.load(other + 3, paired, 0.0)
                there += PAIRS * 4
                other += PAIRS * 4
            _store_forces(
                by_d, by_x, by_y, by_z, unit + b[None, :] * 4 * ATOMS + a[:, None],
                forces + (molecule * n_slots + a) * 3, inside, ATOMS,
            )  # fmt: skip
            tl.debug_barrier()  # wait until all threads have read what the next evaluation overwrites
        if MOVES:
            _advance(velocities + at, forces + at, 0.5 * per_mass, inside)
