#!/usr/bin/env python3
"""Makes tests/data/format/golden.json from docs/formats.md: inputs and expected bits of every format.

Written from that page alone, with numpy; it shares no code and no table with the C++ sources. How to read the
file:
  hex strings   f32, u32: 8 digits a value; f16, bf16: 4 digits a value; no separators
  codes         integers, in the order of x
  NaN           where the expected value is NaN, any NaN is right
Usage: python tools/make_golden_vectors.py [OUT]     needs numpy
"""

import json
import pathlib
import sys

import numpy as np

F32, F16, U32 = np.float32, np.float16, np.uint32
ONE_SEED = 20240607


# ---- text of bits -------------------------------------------------------------------------------------------

def hex32(values):
    return "".join(f"{v:08x}" for v in np.asarray(values, F32).view(U32).ravel())


def hex16(values):
    return "".join(f"{v:04x}" for v in np.asarray(values, F16).view(np.uint16).ravel())


def from_bits(*bits):
    return np.array(bits, U32).view(F32)


# ---- the page, section by section -----------------------------------------------------------------------------

def to_f16(x):
    """Section 1. numpy's conversion is the one described: half to even, subnormals, overflow to infinity."""
    return np.asarray(x, F32).astype(F16)


def to_bf16_bits(x):
    """Section 1, in integers."""
    out = []
    for bits in np.asarray(x, F32).view(U32).ravel().tolist():
        low, high = bits & 0xFFFF, bits >> 16
        if bits & 0x7FFFFFFF > 0x7F800000:
            out.append(high | 0x40)
        else:
            out.append(high + (1 if low > 0x8000 or low == 0x8000 and high & 1 else 0))
    return out


def absmax(x):
    return F32(np.max(np.abs(x))) if np.isfinite(x).all() else F32(np.nan)


def codes_of(x, s, low, high):
    """Section 2: q = clamp(rne(x * inv), low, high); a product that is not a number has code 0."""
    product = x.astype(F32) * (F32(1) / F32(s))
    product = np.where(np.isnan(product), F32(0), product)
    return np.clip(np.rint(product), low, high).astype(np.int64)


def split(x, group):
    step = group or len(x)
    return [x[i:i + step] for i in range(0, len(x), step)]


def int4_scale(x, clip):
    largest = absmax(x)
    return F32(1) if largest == 0 else F32(largest * F32(F32(clip) / F32(7)))


def int4_weight(x, group, clip):
    scales, codes, values = [], [], []
    for part in split(x, group):
        s = max(to_f16(int4_scale(part, clip))[()], F16(2.0 ** -24))
        q = codes_of(part, F32(s), -8, 7)
        scales.append(s)
        codes += q.tolist()
        values += (F32(s) * q.astype(F32)).tolist()
    return scales, codes, values


def progressive_weight(x, group, clip):
    """Section 2: wanted scales, the row's scale, multipliers, and only then the codes."""
    parts = split(x, group)
    wanted = np.array([absmax(part) * F32(F32(clip) / F32(7)) for part in parts], F32)
    s_row = F32(1) if wanted.max() == 0 else max(F32(wanted.max() / F32(15)), F32(2.0 ** -126))
    multipliers = [int(np.clip(np.rint(F32(w / s_row)), 1, 15)) for w in wanted]
    codes, values = [], []
    for part, m in zip(parts, multipliers):
        s = F32(s_row * F32(m))
        q = codes_of(part, s, -8, 7)
        codes += q.tolist()
        values += (s * q.astype(F32)).tolist()
    return s_row, multipliers, codes, values


def int4_activation(x, group, clip):
    scales, codes, values = [], [], []
    for part in split(x, group):
        s = int4_scale(part, clip)
        q = codes_of(part, s, -8, 7)
        scales.append(s)
        codes += q.tolist()
        values += (s * q.astype(F32)).tolist()
    return scales, codes, values


def int8(x):
    largest = absmax(x)
    s = F32(1) if largest == 0 else F32(largest / F32(127))
    q = codes_of(x, s, -127, 127)
    return [s], q.tolist(), (s * q.astype(F32)).tolist()


E2M1 = [0, 1, 2, 3, 4, 6, 8, 12]  # twice the values, by pattern


def fp4_codes(x, h):
    """Section 2: the nearest code, found by comparing distances; a tie takes the even pattern."""
    product = x.astype(F32) * (F32(1) / F32(h))
    out = []
    for value in product.tolist():
        if value != value:
            out.append(0)
            continue
        distance, odd, magnitude = min((abs(abs(value) - m), p % 2, m) for p, m in enumerate(E2M1))
        out.append(12 if abs(value) > 12 else magnitude)
        out[-1] *= -1 if value < 0 else 1
    return out


def e4m3_table():
    """Value of every pattern that is not negative and no NaN."""
    return [m * 2.0 ** -9 if e == 0 else (8 + m) * 2.0 ** (e - 10) for e in range(16) for m in range(8)][:127]


def to_e4m3(x):
    """The nearest value of the table, ties to the even pattern."""
    x = float(x)
    if x > 448:
        return 126
    return min((abs(value - x), pattern % 2, pattern) for pattern, value in enumerate(e4m3_table()))[2]


def e8m0(largest):
    return max(int(np.frexp(np.float64(largest))[1]) - 1 - 2, -127) + 127


def fp4(x, kind, group, clip, weight):
    """Section 2, FP4: stored scales (None for inputs of e2m1, which have none), G, steps, codes, values."""
    whole = absmax(x)
    g = F32(1) if whole == 0 else F32(F32(2688) / F32(max(whole, F32(2.0 ** -114)) if whole == whole else whole))
    stored, steps, codes, values = [], [], [], []
    for part in split(x, group):
        largest = absmax(part)
        bits = None
        if kind == "nvfp4":
            if largest != largest or g != g:
                h = F32(np.nan)
            else:
                wanted = F32(F32(F32(largest * F32(clip)) / F32(6)) * g)
                bits = 56 if largest == 0 else max(to_e4m3(wanted), 1)
                h = F32(F32(e4m3_table()[bits] / 2) / g)
        elif largest != largest:
            h = F32(np.nan)
        elif kind == "mxfp4":
            bits = 127 if largest == 0 else e8m0(largest)
            h = F32(2.0 ** (bits - 128))
        elif weight:
            s = F16(1) if largest == 0 else max(to_f16(F32(largest * F32(F32(clip) / F32(6))))[()], F16(2.0 ** -24))
            bits = int(s.view(np.uint16))
            h = F32(F32(s) / F32(2))
        else:
            h = F32(0.5) if largest == 0 else F32(largest * F32(F32(clip) / F32(12)))
        q = fp4_codes(part, h)
        stored.append(bits)
        steps.append(h)
        codes += q
        values += (h * np.array(q, F32)).tolist()
    return stored, g, steps, codes, values


def fp4_packed(codes):
    """Hexadecimal bytes: the even index in the low nibble."""
    patterns = [E2M1.index(abs(q)) | (8 if q < 0 else 0) for q in codes] + [0]
    return "".join(f"{patterns[i] | patterns[i + 1] << 4:02x}" for i in range(0, len(codes), 2))


FP4_FORMATS = (("e2m1.g32", "e2m1", 32), ("e2m1.g64", "e2m1", 64), ("e2m1.g128", "e2m1", 128),
               ("mxfp4", "mxfp4", 32), ("nvfp4", "nvfp4", 16))


def packed(codes):
    words = []
    for i in range(0, len(codes), 8):
        words.append(sum((q + 8) << (4 * j) for j, q in enumerate(codes[i:i + 8])))
    return "".join(f"{w:08x}" for w in words)


def signed_int4_activation(x, group, clip):
    """Section 2, signed scales: the value of largest magnitude, the positive one of two, goes towards -8."""
    scales, codes, values = [], [], []
    for part in split(x, group):
        largest = absmax(part)
        extreme = largest if np.isnan(largest) or (part == largest).any() else F32(-largest)
        s = F32(1) if largest == 0 else F32(extreme * F32(F32(clip) / F32(-8)))
        q = codes_of(part, s, -8, 7)
        scales.append(s)
        codes += q.tolist()
        values += (s * q.astype(F32)).tolist()
    return scales, codes, values


def kv(x, high, clip=1.0):
    """Section 3."""
    if not np.isfinite(x).all():
        return F16(np.nan), F16(np.nan), [0] * len(x), [np.nan] * len(x)
    span = F32(x.max() - x.min())
    lo = to_f16(F32(x.min() + F32(span * F32(F32(F32(1) - F32(clip)) / F32(2)))))[()]
    s = to_f16(F32(F32(span * F32(clip)) / F32(high)))[()]
    if s == 0:
        s = F16(1)
    q = codes_of((x - F32(lo)).astype(F32), F32(s), 0, high)
    value = F32(lo) + F32(s) * q.astype(F32)
    return lo, s, q.tolist(), value.tolist()


# ---- inputs -------------------------------------------------------------------------------------------------

def normal(generator, size, std=1.0):
    return (std * generator.standard_normal(size)).astype(F32)


def with_ties(size, unit, limit):
    """Multiples of unit / 2 up to limit units, so that every second one is a tie; the first is the largest."""
    x = (np.arange(size) % (4 * limit + 1) - 2 * limit) * (unit / 2)
    x[0] = -limit * unit
    return x.astype(F32)


def inputs(generator, size, limit):
    """Vectors that every symmetric format has to get right; `limit` is the divisor of its scale."""
    outliers = normal(generator, size, 0.02)
    outliers[size // 3] = 9.5
    ramp = np.linspace(-1, 1, size).astype(F32)
    mostly_zero = np.zeros(size, F32)
    mostly_zero[-1] = -0.75
    return {
        "normal": normal(generator, size),
        "zeros": np.where(np.arange(size) % 2 == 0, F32(0), F32(-0.0)).astype(F32),
        "equal": np.full(size, 0.3, F32),
        "equal-negative": np.full(size, -0.3, F32),
        "ties": with_ties(size, 1.0, limit),
        "ties-scaled": with_ties(size, 2.0 ** -9, limit),
        "outlier": outliers,
        "ramp": ramp,
        "one-value": mostly_zero,
        "alternating": np.where(np.arange(size) % 2 == 0, F32(1.7), F32(-1.7)).astype(F32),
        "small": normal(generator, size, 1e-6),
    }


def tiny(generator, size):
    subnormal = (generator.integers(0, 2 ** 12, size).astype(U32)).view(F32)
    signs = np.where(generator.integers(0, 2, size) == 0, F32(1), F32(-1)).astype(F32)
    smallest = np.zeros(size, F32)
    smallest[1] = from_bits(1)[0]
    return {"subnormal": subnormal * signs, "smallest": smallest, "tiny-normal": normal(generator, size, 3e-38)}


def invalid(generator, size):
    out = {}
    for name, bad in (("nan", np.nan), ("inf", np.inf), ("minus-inf", -np.inf)):
        x = normal(generator, size)
        x[size // 2] = bad
        out[name] = x
    return out


# ---- sections of the file -----------------------------------------------------------------------------------

def weight_cases(generator):
    cases = []
    for group, size in ((32, 40), (64, 84), (128, 156), (0, 37), (128, 13)):
        vectors = inputs(generator, size, 7)
        vectors.update(tiny(generator, size))
        vectors["large"] = normal(generator, size, 90000.0)
        if size == 13 or group == 64:
            vectors = {k: vectors[k] for k in ("normal", "ties", "outlier", "subnormal")}
        for name, x in vectors.items():
            for clip in (1.0, 0.85) if name in ("normal", "outlier", "ties") else (1.0,):
                scales, codes, values = int4_weight(x, group, clip)
                assert np.isfinite(np.asarray(scales, F32)).all()
                cases.append({"name": name, "format": "int4.row" if group == 0 else f"int4.g{group}",
                              "clip": hex32([clip]), "x": hex32(x), "scale": hex16(scales), "codes": codes,
                              "packed": packed(codes), "value": hex32(values)})
    return cases


def progressive_cases(generator):
    cases = []
    for group, size in ((32, 104), (64, 100), (128, 300), (128, 13)):
        vectors = inputs(generator, size, 7)
        vectors.update(tiny(generator, size))
        # Groups from large to small: multipliers from 15 to 1, ties of the quotient, and beyond.
        decay = np.repeat(2.0 ** -np.arange(-(-size // group)), group)[:size]
        vectors["decay"] = (normal(generator, size) * decay).astype(F32)
        steps = np.zeros(size, F32)
        steps[::group] = (np.array([15, 2.5, 3.5, 0.4, 7, 1.5])[:len(steps[::group])] * 0.5).astype(F32)
        vectors["steps"] = steps
        dead_group = normal(generator, size)
        dead_group[:group] = 0
        vectors["dead-group"] = dead_group
        if size != 104:
            vectors = {k: vectors[k] for k in ("normal", "decay", "steps", "dead-group", "subnormal")}
        for name, x in vectors.items():
            for clip in (1.0, 0.85) if name in ("normal", "decay", "steps") else (1.0,):
                s_row, multipliers, codes, values = progressive_weight(x, group, clip)
                assert np.isfinite(s_row) and s_row > 0
                assert max(abs(q) * m for q, m in zip(codes, np.repeat(multipliers, group))) <= 120
                cases.append({"name": name, "format": f"int4.g{group}.p", "clip": hex32([clip]), "x": hex32(x),
                              "row_scale": hex32([s_row]), "multipliers": multipliers, "codes": codes,
                              "value": hex32(values)})
    return cases


def int8_cases(generator):
    cases = []
    for size in (16, 51):
        vectors = inputs(generator, size, 127)
        vectors.update(tiny(generator, size))
        vectors["huge"] = np.clip(normal(generator, size, 1e38), -3e38, 3e38)
        vectors.update(invalid(generator, size))
        for name, x in vectors.items():
            scales, codes, values = int8(x)
            cases.append({"name": name, "format": "int8", "valid": bool(np.isfinite(x).all()),
                          "x": hex32(x), "scale": hex32(scales), "codes": codes, "value": hex32(values)})
    return cases


def activation_cases(generator, quantize=int4_activation):
    cases = []
    for group, size in ((32, 40), (128, 156), (0, 37), (64, 96)):
        vectors = inputs(generator, size, 7)
        vectors.update(tiny(generator, size))
        vectors["huge"] = np.clip(normal(generator, size, 1e38), -3e38, 3e38)
        vectors.update(invalid(generator, size))
        if group == 64:
            vectors = {k: vectors[k] for k in ("normal", "ties", "nan")}
        for name, x in vectors.items():
            for clip in (1.0, 0.9) if name in ("normal", "outlier") else (1.0,):
                scales, codes, values = quantize(x, group, clip)
                cases.append({"name": name, "format": "int4.row" if group == 0 else f"int4.g{group}",
                              "clip": hex32([clip]), "x": hex32(x), "scale": hex32(scales),
                              "codes": codes, "value": hex32(values)})
    return cases


def kv_cases(generator, clips=(1.0,)):
    cases = []
    for size in (16, 32):
        positive = np.abs(normal(generator, size)) + F32(5)
        vectors = {
            "normal": normal(generator, size),
            "positive": positive,
            "negative": -positive,
            "zeros": np.zeros(size, F32),
            "equal": np.full(size, 0.1, F32),
            "equal-beyond-11-bits": np.full(size, 2049.0, F32),
            "ties": (np.arange(size) % 31 * 0.5).astype(F32),
            "close": (1 + np.arange(size) * 2.0 ** -23).astype(F32),
            "small": normal(generator, size, 1e-6),
            "subnormal-step": normal(generator, size, 1e-7),
            "outlier": np.concatenate([normal(generator, size - 1, 0.05), np.array([30.0], F32)]),
            "large": normal(generator, size, 15000.0),
            **invalid(generator, size),
        }
        vectors["ties"][-1] = 15
        for high, kind in ((15, "int4"), (255, "int8")):
            for name, x in vectors.items():
                for clip in clips:
                    lo, s, codes, values = kv(x, high, clip)
                    cases.append({"name": name, "kv": kind, "clip": hex32([clip]), "x": hex32(x),
                                  "lo": hex16([lo]), "step": hex16([s]), "codes": codes, "value": hex32(values)})
    return cases


def conversion_cases(generator):
    special = [0x00000000, 0x80000000, 0x00000001, 0x007FFFFF, 0x00800000, 0x3F800000, 0xBF800000,
               0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF,
               0x477FE000, 0x477FEFFF, 0x477FF000, 0x477FF001, 0x47800000,   # about 65504 and 65520
               0x33000000, 0x33000001, 0x32FFFFFF, 0x33800000, 0x33C00000, 0x33BFFFFF, 0x33C00001,
               0x387FC000, 0x387FE000, 0x387FDFFF, 0x38800000, 0x387FFFFF, 0x38801000, 0x38803000,
               0x3F801000, 0x3F803000, 0x3F800FFF, 0x3F801001, 0x3FFFF000, 0x3FFFEFFF,   # ties of f16
               0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0x3FFF8000, 0x7F7F8000, 0x7F7F7FFF]
    bits = special + [b ^ 0x80000000 for b in special[15:45]]
    for low, high in ((-27, -12), (-14, 17), (-126, 127)):
        exponents = generator.integers(low, high, 42)
        mantissas = generator.integers(0, 2 ** 23, 42)
        signs = generator.integers(0, 2, 42)
        bits += [int(s) << 31 | (int(e) + 127) << 23 | int(m) for s, e, m in zip(signs, exponents, mantissas)]
    x = np.array(bits, U32).view(F32)
    return {"f32": "".join(f"{b:08x}" for b in bits), "f16": hex16(to_f16(x)),
            "bf16": "".join(f"{b:04x}" for b in to_bf16_bits(x))}


def fp4_inputs(generator, size, group):
    """What FP4 has to get right beyond the common vectors: all ties, both zeros, groups of very unlike size."""
    vectors = inputs(generator, size, 12)
    vectors.update(tiny(generator, size))
    quarters = (np.arange(size) % 65 - 32).astype(F32) / F32(4)  # -8 to 8: every tie, and beyond 6
    quarters[::group] = 6
    vectors["quarters"] = quarters
    unlike = np.repeat(4.0 ** -np.arange(-(-size // group)), group)[:size]
    vectors["unlike"] = (normal(generator, size) * unlike).astype(F32)
    dead_group = normal(generator, size)
    dead_group[:group] = 0
    vectors["dead-group"] = dead_group
    powers = (2.0 ** -(np.arange(size) % 24).astype(np.float64)).astype(F32)
    vectors["powers"] = powers
    return vectors


def fp4_weight_cases(generator):
    cases = []
    for name_of, kind, group in FP4_FORMATS:
        for size in (2 * group + 11,) if group != 32 else (2 * group + 11, 13):
            vectors = fp4_inputs(generator, size, group)
            vectors["large"] = normal(generator, size, 80000.0)
            if group > 32 or size == 13:
                vectors = {k: vectors[k] for k in ("normal", "quarters", "dead-group", "subnormal")}
            for name, x in vectors.items():
                for clip in (1.0, 0.85) if name == "normal" and kind != "mxfp4" else (1.0,):
                    stored, g, steps, codes, values = fp4(x, kind, group, clip, True)
                    cases.append({"name": name, "format": name_of, "clip": hex32([clip]), "x": hex32(x),
                                  "scale": stored, "global": hex32([g]), "step": hex32(steps), "codes": codes,
                                  "packed": fp4_packed(codes), "value": hex32(values)})
    return cases


def fp4_activation_cases(generator):
    cases = []
    for name_of, kind, group in FP4_FORMATS:
        size = group + 9
        vectors = fp4_inputs(generator, size, group)
        vectors["huge"] = np.clip(normal(generator, size, 1e38), -3e38, 3e38)
        vectors.update(invalid(generator, size))
        if kind == "e2m1" and group != 32:
            vectors = {k: vectors[k] for k in ("normal", "quarters", "nan")}
        for name, x in vectors.items():
            for clip in (1.0, 0.9) if name == "normal" and kind == "e2m1" else (1.0,):
                _, _, steps, codes, values = fp4(x, kind, group, clip, False)
                cases.append({"name": name, "format": name_of, "clip": hex32([clip]), "x": hex32(x),
                              "step": hex32(steps), "codes": codes, "value": hex32(values)})
    return cases


def fp4_linear_case(generator, name, kind, group):
    """Section 5 for FP4 on both sides: scales are powers of two, so that every backend gives these bits."""
    m, n, k, kept = 3, 5, 2 * group + group // 2 + 48, 48
    k4 = k - kept
    groups = -(-k4 // group)  # the last one is short
    grid = np.array(E2M1 + [-q for q in E2M1])
    xq, wq = grid[generator.integers(0, 16, (m, k4))], grid[generator.integers(0, 16, (n, k4))]
    xk, wk = generator.integers(-127, 128, (m, kept)), generator.integers(-127, 128, (n, kept))
    xq[:, ::group] = 12  # the largest of its group
    xk[:, 0] = -127
    xh, xks = 2.0 ** generator.integers(-3, 1, (m, groups)), 2.0 ** generator.integers(-3, 0, m)
    wh, wks = 2.0 ** generator.integers(-4, -1, (n, groups)), 2.0 ** generator.integers(-3, 0, n)
    g = 2.0 ** 3
    x = np.concatenate([xq * np.repeat(xh, group, axis=1)[:, :k4], xk * xks[:, None]], axis=1).astype(F32)
    bias = (generator.integers(-64, 64, n) / 16).astype(F32)
    y = (xk @ wk.T) * np.outer(xks, wks) + bias
    for i in range(groups):
        part = slice(i * group, min((i + 1) * group, k4))
        y += (xq[:, part] @ wq[:, part].T) * np.outer(xh[:, i], wh[:, i])
    for row, codes, steps in zip(x, xq, xh):
        _, _, found, found_codes, _ = fp4(row[:k4], kind, group, 1.0, False)
        assert [float(h) for h in found] == steps.tolist() and found_codes == codes.tolist()
    # Every term is a multiple of 2^-7, so sums below 2^24 of them are exact in any order.
    assert (y * 2 ** 7 == np.rint(y * 2 ** 7)).all() and np.abs(y).max() * 2 ** 7 < 2 ** 23
    if kind == "e2m1":
        scales = [[int(F16(2 * h).view(np.uint16)) for h in row] for row in wh]
    elif kind == "mxfp4":
        scales = [[int(np.log2(2 * h)) + 127 for h in row] for row in wh]
    else:
        scales = [[e4m3_table().index(2 * h * g) for h in row] for row in wh]
    return {"format": name, "kept": kept, "clip": hex32([1.0]), "x": [hex32(row) for row in x],
            "x_codes": np.concatenate([xq, xk], axis=1).tolist(),
            "weight_packed": [fp4_packed(row.tolist()) for row in wq], "weight_scale": scales,
            "weight_global_scale": hex32([g]), "kept_weight": wk.tolist(), "kept_scale": hex32(wks),
            "bias": hex32(bias), "y": [hex32(row) for row in y]}


def row_case(generator):
    """Section 5: an ordered input of two segments, each with its own scales."""
    k, kept, clip = 208, 32, 0.9
    x = normal(generator, (3, k))
    hot = generator.choice(k, kept, replace=False)
    x[:, hot] *= F32(30)
    order = np.concatenate([np.setdiff1d(np.arange(k), hot), np.sort(hot)])
    codes, scales = [], []
    for row in x:
        ordered = row[order]
        s4, q4, _ = int4_activation(ordered[:k - kept], 128, clip)
        s8, q8, _ = int8(ordered[k - kept:])
        codes.append(q4 + q8)
        scales.append(hex32(s4 + s8))
    return {"format": "int4.g128", "kept": kept, "clip": hex32([clip]), "order": order.tolist(),
            "x": [hex32(row) for row in x], "codes": codes, "scale": scales}


def linear_case(generator):
    """Section 5 with scales that are powers of two and sums that are representable: every backend gives
    these bits. x is such that int4.g128 with clip 1 and int8 give exactly x_codes."""
    m, n, k, kept, group = 3, 5, 272, 48, 128
    k4 = k - kept
    groups = -(-k4 // group)  # the last one is short
    xq = generator.integers(-7, 8, (m, k4))
    xk = generator.integers(-127, 128, (m, kept))
    xq[:, ::group] = 7   # the largest of its group: the scale is a power of two
    xk[:, 0] = -127
    xs = 2.0 ** generator.integers(-2, 2, (m, groups))
    xks = 2.0 ** generator.integers(-2, 2, m)
    x = np.concatenate([xq * np.repeat(xs, group, axis=1)[:, :k4], xk * xks[:, None]], axis=1).astype(F32)
    wq = generator.integers(-8, 8, (n, k4))
    wk = generator.integers(-127, 128, (n, kept))
    ws = 2.0 ** generator.integers(-3, 0, (n, groups))
    wks = 2.0 ** generator.integers(-3, 0, n)
    bias = (generator.integers(-64, 64, n) / 16).astype(F32)
    y = np.zeros((m, n))
    for g in range(groups):
        part = slice(g * group, min((g + 1) * group, k4))
        y += (xq[:, part] @ wq[:, part].T) * np.outer(xs[:, g], ws[:, g])
    y += (xk @ wk.T) * np.outer(xks, wks)
    y += bias
    for row, scale, scale8 in zip(x, xs, xks):
        s4, _, _ = int4_activation(row[:k4], group, 1.0)
        s8, _, _ = int8(row[k4:])
        assert [float(s) for s in s4 + s8] == scale.tolist() + [scale8]
    # Every term is a multiple of 2^-5, so sums below 2^24 of them are exact in any order.
    assert (np.abs(y) * 2 ** 5 == np.rint(np.abs(y) * 2 ** 5)).all() and np.abs(y).max() * 2 ** 5 < 2 ** 22
    return {"format": "int4.g128", "kept": kept, "clip": hex32([1.0]), "x": [hex32(row) for row in x],
            "x_codes": np.concatenate([xq, xk], axis=1).tolist(),
            "weight_packed": [packed(row.tolist()) for row in wq], "weight_scale": [hex16(r) for r in ws],
            "kept_weight": wk.tolist(), "kept_scale": hex32(wks), "bias": hex32(bias),
            "y": [hex32(row) for row in y]}


def int8_row_case(generator):
    """Section 5: both segments int8, each with its own scale."""
    k, kept = 208, 32
    x = normal(generator, (3, k))
    x[:, k - kept:] *= F32(30)
    codes, scales = [], []
    for row in x:
        s0, q0, _ = int8(row[:k - kept])
        s1, q1, _ = int8(row[k - kept:])
        assert s1[0] > 5 * s0[0]
        codes.append(q0 + q1)
        scales.append(hex32(s0 + s1))
    return {"format": "int8", "kept": kept, "clip": hex32([1.0]), "order": list(range(k)),
            "x": [hex32(row) for row in x], "codes": codes, "scale": scales}


def progressive_linear_case(generator):
    """Section 5 for progressive weights: one integer sum per segment, rounded once to f32 and scaled by powers
    of two; the kept segment is 0 in the first rows, so that their normal sums may use all of an f32's bits."""
    m, n, k, kept, group = 4, 5, 688, 48, 128
    k4 = k - kept
    groups = -(-k4 // group)
    xq = generator.integers(-127, 128, (m, k4))
    xq[:, 0] = 127   # the largest: the scale is a power of two
    xq[0] = 127
    xk = generator.integers(-127, 128, (m, kept))
    xk[:, 0] = -127
    xk[:2] = 0       # a scale of 1
    xs = 2.0 ** generator.integers(-2, 2, m)
    xks = np.where(np.arange(m) < 2, 1.0, 2.0 ** generator.integers(-2, 2, m))
    x = np.concatenate([xq * xs[:, None], xk * xks[:, None]], axis=1).astype(F32)
    wq = generator.integers(-8, 8, (n, k4))
    wm = generator.integers(1, 16, (n, groups))
    wq[0], wm[0] = -8, 15                     # the largest sum there is
    ws = 2.0 ** generator.integers(-3, 0, n)
    wk = generator.integers(-127, 128, (n, kept))
    wks = 2.0 ** generator.integers(-3, 0, n)
    bias = (generator.integers(-64, 64, n) / 16).astype(F32)
    sums = xq @ (wq * np.repeat(wm, group, axis=1)[:, :k4]).T
    assert np.abs(sums).max() < 2 ** 24       # exact in f32
    y = sums * np.outer(xs, ws) + (xk @ wk.T) * np.outer(xks, wks) + bias
    for row, scale, scale8 in zip(x, xs, xks):
        s0, _, _ = int8(row[:k4])
        s1, _, _ = int8(row[k4:])
        assert [float(s) for s in s0 + s1] == [scale, scale8]
    # Every term is a multiple of 2^-5. Where there are three, their sum is exact; where the kept one is 0, there is
    # one rounding at most, that of adding the bias.
    assert (np.abs(y[2:]).max() + 2 ** 10) * 2 ** 5 < 2 ** 24 and (xk[:2] == 0).all()
    y = y.astype(F32)
    return {"format": "int4.g128.p", "input": "int8", "kept": kept, "clip": hex32([1.0]),
            "x": [hex32(row) for row in x],
            "x_codes": np.concatenate([xq, xk], axis=1).tolist(),
            "weight_packed": [packed(row.tolist()) for row in wq], "weight_multiplier": wm.tolist(),
            "weight_row_scale": hex32(ws),
            "kept_weight": wk.tolist(), "kept_scale": hex32(wks), "bias": hex32(bias),
            "y": [hex32(row) for row in y]}


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/format/golden.json")
    np.seterr(all="ignore")
    generator = np.random.default_rng(ONE_SEED)
    golden = {
        "about": "expected bits of every format, made by tools/make_golden_vectors.py from docs/formats.md",
        "numpy": np.__version__,
        "seed": ONE_SEED,
        "conversion": conversion_cases(generator),
        "int4_weight": weight_cases(generator),
        "int8": int8_cases(generator),
        "int4_activation": activation_cases(generator),
        "kv": kv_cases(generator),
        "row": row_case(generator),
        "linear": linear_case(generator),
        "progressive_weight": progressive_cases(generator),
        "row_int8": int8_row_case(generator),
        "linear_progressive": progressive_linear_case(generator),
        "fp4_weight": fp4_weight_cases(generator),
        "fp4_activation": fp4_activation_cases(generator),
        "linear_e2m1": fp4_linear_case(generator, "e2m1.g128", "e2m1", 128),
        "linear_mxfp4": fp4_linear_case(generator, "mxfp4", "mxfp4", 32),
        "linear_nvfp4": fp4_linear_case(generator, "nvfp4", "nvfp4", 16),
        "int4_signed": activation_cases(generator, signed_int4_activation),
        "kv_clipped": kv_cases(generator, (0.95, 0.8)),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for key, value in golden.items():
        if isinstance(value, list):  # one case a line
            body = ",\n".join("  " + json.dumps(case, separators=(",", ":")) for case in value)
            lines.append(f'"{key}": [\n{body}\n]')
        else:
            lines.append(f'"{key}": {json.dumps(value, separators=(",", ":"))}')
    out.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="ascii")
    counts = {k: len(v) for k, v in golden.items() if isinstance(v, list)}
    print(f"{out}: {out.stat().st_size} bytes, {counts}")


if __name__ == "__main__":
    main()
