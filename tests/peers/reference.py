"""What transformers computes, in float32, under the protocol of `gqa eval` and `gqa generate`."""

import json
import math
import os
import pathlib
import subprocess

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)  # the models are small, and ctest runs other tests at the same time
ROOT = pathlib.Path(__file__).resolve().parents[2]
GQA = os.environ.get("GQA", str(ROOT / "build/release/gqa"))


def gqa(*args):
    """What a verb reports, as JSON."""
    command = [GQA, *map(str, args), "--json", "--quiet"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stderr.decode()}"
    return json.loads(done.stdout)


def load(folder):
    """The model in float32; every tensor of the folder used, and none missing. A folder's own code
    is run where it is what gqa put there."""
    own_code = pathlib.Path(folder) / "modeling_gqa.py"
    ours = ROOT / "src/convert/modeling_gqa.py"
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
        trust_remote_code=own_code.exists() and own_code.read_bytes() == ours.read_bytes(),
    )
    assert not any(info.values()), info
    return model.eval()


def windows(model, folder, text, context):
    """Token windows, each with its first token unscored: BOS, or the text's own without one."""
    ids = Tokenizer.from_file(f"{folder}/tokenizer.json").encode(text, add_special_tokens=False).ids
    bos = model.config.bos_token_id
    start = [] if bos is None else [bos]
    return [torch.tensor(start + ids[i : i + context - 1]) for i in range(0, len(ids), context - 1)]


@torch.no_grad()
def log_probabilities(model, parts):
    """Of every scored token, [tokens, vocab] in double precision, window by window."""
    step = max(1, 4096 // len(parts[0]))
    for i in range(0, len(parts), step):
        batch = parts[i : i + step]
        whole = [w for w in batch if len(w) == len(batch[0])]
        for group in [torch.stack(whole)] + [w[None] for w in batch[len(whole) :]]:
            yield group[:, 1:].flatten(), model(group).logits[:, :-1].flatten(
                0, 1
            ).double().log_softmax(-1)


def evaluate(folder, text_file, context=0, against=None):
    """nll, tokens and bits_per_byte; kl and top1_agreement with another model."""
    text = pathlib.Path(text_file).read_text(encoding="utf-8")
    model = load(folder)
    context = context or min(2048, model.config.max_position_embeddings)
    parts = windows(model, folder, text, context)
    rows = log_probabilities(model, parts)
    others = (
        log_probabilities(load(against), parts) if against else ((None, None) for _ in iter(int, 1))
    )
    tokens, nll, kl, same = 0, 0.0, 0.0, 0
    for (targets, row), (_, other) in zip(rows, others):
        tokens += len(targets)
        nll -= row.gather(1, targets[:, None]).sum().item()
        if other is not None:
            kl += (other.exp() * (other - row)).sum().item()
            same += (other.argmax(-1) == row.argmax(-1)).sum().item()
    result = {"nll": nll / tokens, "tokens": tokens, "context": context}
    result["bits_per_byte"] = nll / math.log(2) / len(text.encode())
    if against:
        result |= {"kl": kl / tokens, "top1_agreement": same / tokens}
    return result


def same_evaluation(folder, text_file, *options, context=0, against=None):
    """Asserts that gqa and transformers agree; returns what gqa says."""
    if context:
        options = (*options, "--context", context)
    if against:
        options = (*options, "--against", against)
    ours = gqa("eval", folder, "--text", text_file, *options)
    theirs = evaluate(folder, text_file, context, against)
    assert (ours["tokens"], ours["context"]) == (theirs["tokens"], theirs["context"])
    assert abs(ours["nll"] - theirs["nll"]) < 1e-4, (ours, theirs)
    assert math.isclose(ours["ppl"], math.exp(theirs["nll"]), rel_tol=1e-4), (ours, theirs)
    assert math.isclose(ours["bits_per_byte"], theirs["bits_per_byte"], rel_tol=1e-4), (
        ours,
        theirs,
    )
    if against:
        assert math.isclose(ours["kl"], theirs["kl"], rel_tol=1e-4, abs_tol=1e-6), (ours, theirs)
        # One token in a thousand: two ids whose logits differ by a rounding.
        assert abs(ours["top1_agreement"] - theirs["top1_agreement"]) <= 1e-3, (ours, theirs)
    return ours


def same_greedy(folder, prompt, count, *options):
    """Asserts that both continue a prompt alike, id by id; returns what gqa says."""
    model = load(folder)
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    bos = model.config.bos_token_id
    ids = ([] if bos is None else [bos]) + tokenizer.encode(prompt, add_special_tokens=False).ids
    # The end ids as gqa finds them, padding never: there is one sequence.
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    made = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids)),
        do_sample=False,
        max_new_tokens=count,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    top = torch.stack(made.logits)[:, 0].topk(2).values
    gap = (top[:, 0] - top[:, 1]).min().item()
    assert (
        gap > 5e-4
    ), f"a poor test: two ids nearly tie ({gap}), so either may come first; change it"
    theirs = made.sequences[0, len(ids) :].tolist()
    if theirs and theirs[-1] in ends:
        theirs.pop()
    ours = gqa("generate", folder, "--prompt", prompt, "--max-tokens", count, *options)
    assert ours["tokens"] == theirs
    assert ours["text"] == tokenizer.decode(ids + theirs, skip_special_tokens=True)
    return ours
