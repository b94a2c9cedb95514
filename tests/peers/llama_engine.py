"""llama.cpp in a process of its own, since llama-cpp-python lives in another environment.

Reads a JSON object a line from standard input and answers each with one:
  {"file": GGUF, "do": "tokens", "texts": [...]}  -> [[id, ...], ...], special tokens recognised
  {"file": GGUF, "do": "greedy", "prompt": text, "max_tokens": N}
      -> {"prompt": [id, ...], "tokens": [id, ...]}; what the file says goes before the prompt
  {"file": GGUF, "do": "logits", "ids": [...], "out": NPY} -> {}; [ids, vocabulary], f32
Caches are f32 and attention is the plain one, so that only rounding differs from ours.
"""

import json
import os
import sys

import llama_cpp
import numpy as np

F32 = 0  # as ggml numbers types


def load(file):
    return llama_cpp.Llama(
        model_path=file,
        n_ctx=512,
        n_batch=512,
        n_ubatch=512,
        n_threads=1,
        n_threads_batch=1,
        type_k=F32,
        type_v=F32,
        flash_attn=False,
        logits_all=True,
        verbose=False,
    )


def greedy(model, prompt, max_tokens):
    ids = model.tokenize(prompt.encode(), add_bos=True, special=True)
    model.reset()
    model.eval(ids)
    tokens = []
    while len(tokens) < max_tokens:
        tokens.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        model.eval(tokens[-1:])
    return {"prompt": ids, "tokens": tokens}


def logits(model, ids, out):
    model.reset()
    model.eval(ids)
    np.save(out, model.scores[: len(ids)])
    return {}


def answer(model, request):
    if request["do"] == "tokens":
        texts = (text.encode() for text in request["texts"])
        return [model.tokenize(t, add_bos=False, special=True) for t in texts]
    if request["do"] == "greedy":
        return greedy(model, request["prompt"], request["max_tokens"])
    return logits(model, request["ids"], request["out"])


def main():
    # Messages of the library must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    file, model = None, None
    for line in sys.stdin:
        request = json.loads(line)
        if request["file"] != file:
            model = load(request["file"])
            file = request["file"]
        print(json.dumps(answer(model, request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
