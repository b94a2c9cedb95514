"""What the shared libraries export: what public headers declare, each name by one of them."""

import json
import re
import unittest

from installed import BUILD, SOURCE, run

LAYERS = json.loads((SOURCE / "cmake/layers.json").read_text())["layers"]
ATTENTION = ["core", "kernels", "kv", "attention"]
LAYERS_OF = {"attention": ATTENTION, "gqa": [name for name in LAYERS if name not in ATTENTION]}
LIBRARIES = {"attention": BUILD / "libgqa-attention.so", "gqa": BUILD / "libgqa.so"}
KIND_OF_CLASS = r"\b(?:class|struct|enum class) (?:\[\[.*?\]\] )?"


def headers(layers):
    """Code of the public headers of these layers, without comments."""
    for layer in layers:
        for name in LAYERS[layer]["headers"]:
            yield name, re.sub(r"//.*", "", (SOURCE / "include/gqa" / name).read_text())


def exported(library):
    """Type letter and name of each symbol, as nm gives them."""
    for line in run("nm", "-D", "-C", "--defined-only", library).splitlines():
        _, letter, name = line.split(" ", 2)
        yield letter, name


def bare(name):
    """The qualified name of a function or class: without arguments, template arguments, const."""
    before = None
    while before != name:
        before = name
        name = re.sub(r"<[^<>]*>|\([^()]*\)", "", name)
    return re.sub(r"\[abi:\w+\]| const$|^(typeinfo|typeinfo name|vtable) for ", "", name).strip()


def body(code, opening):
    """What a scope declares itself, from its first brace on: bodies within it are left out."""
    depth, kept = 0, []
    for letter in code[code.index("{", opening):]:
        depth -= letter == "}"
        if depth == 0 and letter == "}":
            break
        if depth <= 1:
            kept.append(letter)
        depth += letter == "{"
    return "".join(kept[1:])


def declares(code, name):
    """Whether a header declares the function, class or constant."""
    *scopes, last = name.split("::")
    opening = re.search(r"\bnamespace gqa {", code).start()
    if scopes.pop(0) != "gqa":
        return False
    for scope in scopes:
        # A class whose body is here: a forward declaration says nothing of its members.
        found = re.search(KIND_OF_CLASS + rf"{scope}\b[^;{{]*{{", code[opening:])
        if not found:
            return False
        opening += found.start()
    declared = rf"(?<![\w~]){re.escape(last)}\s*(?:\(| = )|{KIND_OF_CLASS}{re.escape(last)}\b[^;{{]*{{"
    return re.search(declared, body(code, opening)) is not None


class SymbolsTest(unittest.TestCase):
    def test_declared_in_a_public_header(self):
        for library, path in LIBRARIES.items():
            of_all = [code for _, code in headers(LAYERS) if "namespace" in code]
            own = [code for _, code in headers(LAYERS_OF[library]) if "namespace" in code]
            symbols = list(exported(path))
            self.assertGreater(len(symbols), 20)
            for letter, name in symbols:
                weak = letter in "VWu"  # every library that uses it has it
                if weak and name.startswith(("std::", "__gnu_cxx::")):
                    continue
                with self.subTest(path.name, name=name):
                    self.assertTrue(
                        any(declares(code, bare(name)) for code in (of_all if weak else own)),
                        f"{path.name} exports {name}, which no public header of it declares")

    def test_each_by_one_library(self):
        names = [{name for letter, name in exported(path) if letter in "TBDR"}
                 for path in LIBRARIES.values()]
        self.assertEqual(names[0] & names[1], set())

    def test_kernels_are_in_one_library(self):
        """libgqa has copies of small helpers, not of kernels and of what they remember."""
        text = run("nm", "-C", "--defined-only", LIBRARIES["gqa"])
        self.assertIn("gqa::ThreadPool::", text)
        self.assertNotRegex(text, r"gqa::kernels::\w+::|gqa::attend\(|gqa::KvCache::append")

    def test_every_public_header_makes_its_names_visible(self):
        for name, code in headers(LAYERS):
            if "namespace" in code:  # not macros alone
                with self.subTest(name):
                    self.assertRegex(
                        code, r"(?s)\nnamespace gqa {\n#pragma GCC visibility push\(default\)\n.*\n"
                        r"#pragma GCC visibility pop\n}\s*$")


class DeclaresTest(unittest.TestCase):
    """The judge itself."""

    CODE = """namespace gqa {
    struct [[gnu::visibility("hidden")]] Layer;
    class Cache { public: static constexpr int page = 64; explicit Cache(int n); ~Cache();
      int len() const { return 1; } private: struct [[gnu::visibility("hidden")]] Impl; };
    std::string_view name_of(Cache& cache);
    }"""

    def test_what_is_declared(self):
        for name in ["gqa::Cache::Cache(int)", "gqa::Cache::~Cache()", "gqa::Cache::len() const",
                     "gqa::name_of[abi:cxx11](gqa::Cache&)", "typeinfo for gqa::Cache",
                     "gqa::Cache::page"]:
            self.assertTrue(declares(self.CODE, bare(name)), name)

    def test_what_is_not(self):
        for name in ["gqa::Cache::Impl::grow(int)", "gqa::Layer::part(long)", "gqa::len()",
                     "gqa::Cache::name_of(int)", "gqa::fail(int)", "gqa::Layer::~Layer()",
                     "typeinfo for gqa::Layer", "fmt::format(int)"]:
            self.assertFalse(declares(self.CODE, bare(name)), name)


if __name__ == "__main__":
    unittest.main()
