#!/usr/bin/env python3
"""Score one window of a text with transformers, in f32 or wholly in f64, and show the router's narrowest choices.

The mean NLL is that of `atom eval ppl --json` (`window_nll`) for the same window. In f64 the norms and the router's
softmax, which transformers computes in f32 whatever the model's type, are in f64 too; the angles of RoPE stay as
they are. Needs torch, transformers and tokenizers.
"""
import argparse
import pathlib

import tokenizers
import torch
import transformers


def norm_in_own_type(self, x):
    """RMSNorm without the detour through f32."""
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def load(folder, dtype):
    """The model, with norms and softmax in `dtype`."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager").eval()
    if dtype == torch.float64:
        for module in model.modules():
            if type(module).__name__.endswith("RMSNorm"):
                type(module).forward = norm_in_own_type
        softmax = torch.nn.functional.softmax
        torch.nn.functional.softmax = lambda x, *args, **kwargs: softmax(
            x, *args, **{key: value for key, value in kwargs.items() if key != "dtype"})
    return model


def watch_routers(model):
    """One list of router logits [tokens, experts] per layer, filled by the next forward."""
    logits = []

    def keep(_, __, output):
        logits.append((output[0] if isinstance(output, tuple) else output).double())

    for layer in model.model.layers:
        if hasattr(layer.mlp, "gate"):
            layer.mlp.gate.register_forward_hook(keep)
    return logits


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--window", type=int, required=True, help="counted from 0")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    args = parser.parse_args()

    tokenizer = tokenizers.Tokenizer.from_file(str(args.model / "tokenizer.json"))
    ids = tokenizer.encode(args.text.read_text(encoding="utf-8")).ids
    begin = args.window * args.context
    if args.window < 0 or begin + args.context > len(ids):
        parser.error(f"{args.text} has {len(ids) // args.context} windows of {args.context} tokens")
    window = torch.tensor(ids[begin:begin + args.context])[None]

    model = load(args.model, getattr(torch, args.dtype))
    routers = watch_routers(model)
    with torch.no_grad():
        logits = model(window).logits[0]
    nll = torch.nn.functional.cross_entropy(logits[:-1].double(), window[0, 1:])
    print(f"window {args.window}: mean NLL {nll.item():.9f}")
    for layer, values in enumerate(routers):
        top = torch.sort(values, -1, descending=True).values
        used = model.config.num_experts_per_tok
        gap = top[:, used - 1] - top[:, used]
        print(f"layer {layer}: narrowest choice {gap.min().item():.2e} at token {gap.argmin().item()}")


if __name__ == "__main__":
    main()
