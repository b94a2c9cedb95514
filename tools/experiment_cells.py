"""What `./dev experiments conversion` measures: models, texts, methods, and the cells they make."""

import hashlib
import pathlib
from typing import NamedTuple

# 8 windows of 512 tokens: averages need no more.
FEW_TOKENS = ("--sampled-tokens", "0", "--calibrate-tokens", "4096")
# What `--calibrate` groups by where no --grouping is given. Runs are held against it.
DEFAULT_GROUPING = "similarity"
SEEDS = (0, 1, 2)


class Model(NamedTuple):
    name: str
    path: pathlib.Path
    kv_heads: int
    targets: tuple


class Method(NamedTuple):
    """What `gqa convert` is told. `text` names what --calibrate takes ("": nothing)."""
    key: str
    arguments: tuple
    text: str = ""
    seeds: tuple = (0,)
    expected: float = 0.2  # seconds, where nothing is known yet
    rows: tuple = ()  # model and KV heads that it is measured on; empty: all

    @property
    def follows_default(self):
        return "--merge" not in self.arguments


DATA_FREE = [Method(merge, ("--merge", merge), seeds=SEEDS if merge == "random" else (0,))
             for merge in ("first", "mean", "random", "medoid", "aligned", "pca")]
CLOSED = Method("closed", ("--merge", "pca", "--refine", "0", *FEW_TOKENS),
                "calibration", expected=10)
TEXT_ONLY = Method("text-only", ("--merge", "pca", "--sampled-tokens", "0"), "calibration", SEEDS, expected=60)
# Groupings that are compared by what refinement, which is quick without sampled text, makes of them, with several
# seeds, since they differ by little more than seeds do (learned ones with one, since they take five times as long); one
# KV head is one group, so that nothing is to be chosen.
REFINED_GROUPINGS = ("neighbour", "similarity", "learned")
DEFAULT = Method("default", (), "calibration", expected=90)
BY_ITSELF = Method("self", (), "self", expected=120)
OTHER_TEXTS = [Method(f"on-{text}", (), text, expected=90)
               for text in ("tinyshakespeare", "wikitext2-valid")]
# Quality against time: the default's steps are those of TEXT_ONLY.
STEPS = (0, 20, 60, 200)
FEWER_STEPS = [Method(f"steps-{n}", ("--merge", "pca", "--sampled-tokens", "0", "--refine", str(n)), "calibration",
                      expected=5 + n / 10) for n in STEPS]
# Quality against calibration length, of two texts.
LENGTH_ROWS = (("tales-mha", 1), ("stories260K", 2))
LENGTHS = (2048, 8192, 32768)
LENGTH_TEXTS = {"calibration": "TinyStories", "tinyshakespeare": "Shakespeare"}


def method_of_length(tokens, text):
    """The key of the method; the last of one text is TEXT_ONLY."""
    return TEXT_ONLY.key if (tokens, text) == (LENGTHS[-1], "calibration") else f"tokens-{tokens}-{text}"


FEWER_TOKENS = [Method(method_of_length(n, text),
                       ("--merge", "pca", "--sampled-tokens", "0", "--calibrate-tokens", str(n)),
                       text, expected=60, rows=LENGTH_ROWS)
                for text in LENGTH_TEXTS for n in LENGTHS if method_of_length(n, text) != TEXT_ONLY.key]
# Groups by activations, of any size, merged by averaging.
ASYMMETRIC = Method("asymmetric", ("--merge", "mean", "--unequal", "--refine", "0", *FEW_TOKENS),
                    "calibration", expected=10)
# Sizes by importance, known from weights; merged by averaging.
KEY_DRIVEN = Method("key-driven", ("--merge", "mean", "--unequal"))


class Cell(NamedTuple):
    """One conversion and its evaluation; without a method the evaluation of the original."""
    model: Model
    kv_heads: int
    method: Method | None = None
    grouping: str = ""
    seed: int = 0

    def name(self):
        if not self.method:
            return f"{self.model.name} original"
        seed = f" seed={self.seed}" if len(self.seeds()) > 1 else ""
        return (f"{self.model.name} {self.model.kv_heads}->{self.kv_heads} "
                f"{self.method.key} {self.grouping}{seed}")

    def place(self):
        """Where tables find it. One KV head is one group, however it was found."""
        return (self.model.name, self.kv_heads, self.method.key if self.method else "original",
                "" if self.kv_heads == 1 else self.grouping)

    def seeds(self):
        if self.grouping == "random":
            return SEEDS
        return SEEDS[:1] if self.grouping == "learned" else self.method.seeds

    def options(self, texts):
        """Arguments of `gqa convert`; None where a text is missing."""
        words = ["--kv-heads", str(self.kv_heads)]
        if not (self.method.follows_default and self.grouping == DEFAULT_GROUPING):
            words += ["--grouping", self.grouping]
        words += self.method.arguments
        if self.method.text == "self":
            words += ["--calibrate", "self"]
        elif self.method.text:
            if self.method.text not in texts:
                return None
            words += ["--calibrate", str(texts[self.method.text])]
        if self.seed:
            words += ["--seed", str(self.seed)]
        return words


def find_models(root, data):
    """The shipped model, and stories260K where it is."""
    models = [Model("tales-mha", root / "models/tales-mha", 8, (4, 2, 1)),
              Model("stories260K", data / "models/stories260K", 4, (2, 1))]
    return [model for model in models if (model.path / "config.json").exists()]


def find_texts(root, data, folder):
    """Files by name. "held-out" is what is evaluated on: the last tenth of the lines of TinyStories'
    validation text, with the rest to calibrate on; where that is missing, the second half and the
    first half of the text that ships."""
    text = data / "text"
    texts = {name: text / f"{name}.txt" for name in ("tinyshakespeare", "wikitext2-valid")}
    whole, shipped = text / "tinystories-valid.txt", root / "models/tales-mha/heldout.txt"
    lines = (whole if whole.exists() else shipped).read_text("utf-8").splitlines(keepends=True)
    cut = len(lines) - len(lines) // 10 if whole.exists() else len(lines) // 2
    for name, part in ("calibration", lines[:cut]), ("held-out", lines[cut:]):
        texts[name] = folder / f"{name}.txt"
        texts[name].write_text("".join(part), "utf-8")
    return {name: path for name, path in texts.items() if path.exists()}


def pairs():
    """Every method with every grouping that it is measured with."""
    for grouping in "neighbour", "similarity":
        yield from ((method, grouping) for method in (*DATA_FREE, CLOSED))
    yield DEFAULT, "similarity"
    yield from ((TEXT_ONLY, grouping) for grouping in REFINED_GROUPINGS)
    for grouping in "random", "kmeans":
        yield from ((method, grouping) for method in DATA_FREE if method.key in ("mean", "pca"))
    for method in BY_ITSELF, *OTHER_TEXTS, ASYMMETRIC:
        yield method, DEFAULT_GROUPING
    for method in *FEWER_STEPS, *FEWER_TOKENS:
        yield method, DEFAULT_GROUPING
    yield KEY_DRIVEN, "key-driven"


def all_cells(models):
    """Originals first, then what is quick."""
    cells = [Cell(model, model.kv_heads) for model in models]
    for method, grouping in sorted(pairs(), key=lambda pair: pair[0].expected):
        for model in models:
            for kv_heads in model.targets:
                once = DEFAULT_GROUPING if method.text else "neighbour"
                if kv_heads == 1 and grouping not in (once, "key-driven"):
                    continue
                if method.rows and (model.name, kv_heads) not in method.rows:
                    continue
                cell = Cell(model, kv_heads, method, grouping)
                cells += [cell._replace(seed=seed) for seed in cell.seeds()]
    return cells


def is_quick(cell):
    """Of --quick: one ratio of the shipped model, what costs little, and the default once."""
    if not cell.method:
        return cell.model.name == "tales-mha"
    return (cell.model.name == "tales-mha" and cell.kv_heads == 4 and cell.seed == 0
            and (cell.method.key, cell.grouping) in {
                ("mean", "neighbour"), ("aligned", "similarity"), ("pca", "similarity"),
                ("closed", "similarity"), ("default", DEFAULT_GROUPING)})


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(model):
    digest = hashlib.sha256()
    for path in sorted(model.path.glob("*.safetensors")):
        digest.update(sha256(path).encode())
    return digest.hexdigest()
