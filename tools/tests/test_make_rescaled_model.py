"""Tests of tools/make_rescaled_model.py: python3 -m unittest discover -s tools/tests        skipped without numpy"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOLS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOOLS))
try:
    import numpy as np

    import checkpoint_files
    import make_rescaled_model
except ImportError:
    np = None

VOCAB, HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM, EXPERTS = 40, 24, 20, 2, 4, 2, 8, 4
# Weights are stored in f32: 2^-24 each, times at most the condition number (64) of what is undone, on a path of
# LAYERS * 2 blocks. A wrong transform changes logits by as much as they are.
TOLERANCE = 2.0**-24 * 64 * LAYERS * 2


def random_model(generator, experts=0, tied=False, biases=False):
    """(config, tensors): bf16 weights of a tiny LLaMA, or Mixtral if it has experts, with uneven gains."""
    config = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
              "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "tie_word_embeddings": tied,
              "torch_dtype": "bfloat16"}
    tensors = {}

    def add(name, *shape):
        values = generator.standard_normal(shape, np.float32) / np.float32(shape[-1] ** 0.5)
        tensors[name] = checkpoint_files.Tensor("BF16", checkpoint_files.round_to_bf16(values))

    def add_linear(module, rows, columns):
        add(module + ".weight", rows, columns)
        if biases:
            add(module + ".bias", rows)

    add("model.embed_tokens.weight", VOCAB, HIDDEN)
    add("model.norm.weight", HIDDEN)
    if not tied:
        add("lm_head.weight", VOCAB, HIDDEN)
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        add(f"{layer}.input_layernorm.weight", HIDDEN)
        add(f"{layer}.post_attention_layernorm.weight", HIDDEN)
        for x, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            add_linear(f"{layer}.self_attn.{x}_proj", heads * HEAD_DIM, HIDDEN)
        add_linear(f"{layer}.self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM)
        mlps = [("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")]
        if experts:
            config["num_local_experts"] = experts
            add(f"{layer}.block_sparse_moe.gate.weight", experts, HIDDEN)
            mlps = [[f"block_sparse_moe.experts.{e}.{x}" for x in ("w1", "w3", "w2")] for e in range(experts)]
        for gate, up, down in mlps:
            add_linear(f"{layer}.{gate}", INNER, HIDDEN)
            add_linear(f"{layer}.{up}", INNER, HIDDEN)
            add_linear(f"{layer}.{down}", HIDDEN, INNER)
    return config, tensors


class Forward:
    """The model in f64, one row per token. Without RoPE, which no variant touches but --qk."""

    def __init__(self, config, tensors):
        self.config, self.tensors = config, {name: t.values.astype(np.float64) for name, t in tensors.items()}

    def linear(self, module, x):
        return x @ self.tensors[module + ".weight"].T + self.tensors.get(module + ".bias", 0)

    def norm(self, module, x):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * self.tensors[module + ".weight"]

    def attention(self, module, x):
        q, k, v = (self.linear(f"{module}.{y}_proj", x).reshape(len(x), -1, HEAD_DIM) for y in "qkv")
        k, v = (np.repeat(y, HEADS // KV_HEADS, axis=1) for y in (k, v))
        scores = np.exp(np.einsum("ihd,jhd->hij", q, k) / HEAD_DIM**0.5) * np.tri(len(x))
        mixed = np.einsum("hij,jhd->ihd", scores / scores.sum(-1, keepdims=True), v)
        return self.linear(f"{module}.o_proj", mixed.reshape(len(x), -1))

    def mlp(self, gate, up, down, x):
        g = self.linear(gate, x)
        return self.linear(down, g / (1 + np.exp(-g)) * self.linear(up, x))

    def feed_forward(self, layer, x):
        if "num_local_experts" not in self.config:
            return self.mlp(*(f"{layer}.mlp.{y}_proj" for y in ("gate", "up", "down")), x)
        module = f"{layer}.block_sparse_moe"
        weights = np.exp(self.linear(f"{module}.gate", x))
        weights *= weights >= np.sort(weights, axis=-1)[:, -2:-1]
        weights /= weights.sum(-1, keepdims=True)
        outputs = [self.mlp(*(f"{module}.experts.{e}.{y}" for y in ("w1", "w3", "w2")), x) for e in range(EXPERTS)]
        return sum(weights[:, e:e + 1] * output for e, output in enumerate(outputs))

    def logits(self, ids):
        x = self.tensors["model.embed_tokens.weight"][ids]
        for i in range(LAYERS):
            layer = f"model.layers.{i}"
            x = x + self.attention(f"{layer}.self_attn", self.norm(f"{layer}.input_layernorm", x))
            x = x + self.feed_forward(layer, self.norm(f"{layer}.post_attention_layernorm", x))
        tied = self.config["tie_word_embeddings"]
        head = self.tensors["model.embed_tokens.weight" if tied else "lm_head.weight"]
        return self.norm("model.norm", x) @ head.T


@unittest.skipIf(np is None, "needs numpy")
class MakeRescaledModel(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        self.generator = np.random.default_rng(3)
        self.ids = self.generator.integers(0, VOCAB, 12)

    def tearDown(self):
        self.folder.cleanup()

    def models(self):
        yield "tied", random_model(self.generator, tied=True)
        yield "untied, biases", random_model(self.generator, biases=True)
        yield "experts", random_model(self.generator, experts=EXPERTS)

    def run_tool(self, config, tensors, *options):
        """(config, tensors) of the checkpoint that the tool makes."""
        source = pathlib.Path(tempfile.mkdtemp(dir=self.root))
        (source / "config.json").write_text(json.dumps(config))
        checkpoint_files.write_safetensors(source / "model.safetensors", tensors)
        target = source / "out"
        command = [sys.executable, str(TOOLS / "make_rescaled_model.py"), str(source), str(target), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads((target / "config.json").read_text()), checkpoint_files.read_checkpoint(target)

    def expect_same_logits(self, before, after):
        expected, actual = (Forward(*model).logits(self.ids) for model in (before, after))
        self.assertLess(np.abs(actual - expected).max(), TOLERANCE * np.abs(expected).max())

    def test_without_changes_of_basis_types_and_configuration_stay(self):
        for name, (config, tensors) in self.models():
            with self.subTest(name):
                after = self.run_tool(config, tensors, "--v", "0.1")
                self.assertEqual(after[0], config)
                self.assertEqual({t.dtype for t in after[1].values()}, {"BF16"})
                self.expect_same_logits((config, tensors), after)

    def test_heads(self):
        for name, (config, tensors) in self.models():
            with self.subTest(name):
                after = self.run_tool(config, tensors, "--heads", "64", "--norms", "0", "--up", "0")
                self.assertEqual(after[0]["torch_dtype"], "float32")
                for key, tensor in after[1].items():
                    touched = ".v_proj." in key or key.endswith(".o_proj.weight")
                    self.assertEqual(np.array_equal(tensor.values, tensors[key].values), not touched, key)
                    self.assertEqual(tensor.dtype, "F32", key)
                self.expect_same_logits((config, tensors), after)

    def test_heads_are_mixed_with_the_condition_number_asked_for(self):
        config, tensors = random_model(self.generator)
        after = self.run_tool(config, tensors, "--heads", "64", "--norms", "0", "--up", "0")[1]
        name = "model.layers.1.self_attn.v_proj.weight"
        for h in range(KV_HEADS):
            rows = slice(h * HEAD_DIM, (h + 1) * HEAD_DIM)
            # 8 rows in 24 dimensions are independent: A = (A W) W^+.
            mixer = after[name].values[rows] @ np.linalg.pinv(tensors[name].values[rows].astype(np.float64))
            self.assertAlmostEqual(np.linalg.cond(mixer), 64, delta=0.01)
            self.assertGreater(np.abs(mixer - np.diag(np.diag(mixer))).max(), 0.1)

    def test_heads_and_outliers_together(self):
        config, tensors = random_model(self.generator)
        after = self.run_tool(config, tensors, "--heads", "8", "--v", "0.1", "--norms", "0.1")
        self.expect_same_logits((config, tensors), after)

    def test_rotated_residual(self):
        for name, (config, tensors) in self.models():
            with self.subTest(name):
                rescaler = make_rescaled_model.Rescaler(dict(config), dict(tensors), self.generator)
                basis = rescaler.orthogonal(HIDDEN)
                rescaler.rotate_residual(basis)
                self.assertFalse(rescaler.config["tie_word_embeddings"])
                for key, tensor in rescaler.tensors.items():
                    if key.endswith("norm.weight"):
                        self.assertTrue((tensor.values == 1).all(), key)
                    if key.endswith(".weight"):
                        self.assertEqual(tensor.dtype, "F32", key)
                embeddings = [t["model.embed_tokens.weight"].values for t in (tensors, rescaler.tensors)]
                np.testing.assert_allclose(embeddings[1], embeddings[0] @ basis, atol=1e-6)
                self.expect_same_logits((config, tensors), (rescaler.config, rescaler.tensors))

    def test_refuses_an_impossible_condition_number(self):
        for bad in ("0.5", "nan", "inf"):
            with self.assertRaises(subprocess.CalledProcessError) as caught:
                command = [sys.executable, str(TOOLS / "make_rescaled_model.py"), "in", "out", "--heads", bad]
                subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
            self.assertIn("condition number", caught.exception.stderr)


if __name__ == "__main__":
    unittest.main()
