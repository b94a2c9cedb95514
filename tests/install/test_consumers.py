"""Projects of somebody else build against what is installed, by CMake and by pkg-config, and run."""

import unittest

from installed import ATTENTION_SAYS, BUILD, MODEL, SOURCE, InstallCase, install, needed, run

# All that a program of gqa::attention may need.
FEW = r"^lib(gqa-attention|c|m|stdc\+\+|gcc_s|hwy|fmt)\.so\."
DISABLED = [
    f"-DCMAKE_DISABLE_FIND_PACKAGE_{package}=ON"
    for package in ["OpenSSL", "nlohmann_json", "Eigen3", "OpenMP"]
]


class ConsumersTest(InstallCase):
    def check_programs(self, folder, **environment):
        attention, model = folder / "attention", folder / "model"
        self.assertEqual(run(attention, **environment), ATTENTION_SAYS)
        for name in needed(attention, **environment):
            self.assertRegex(name, FEW)
        generated = run(
            BUILD / "gqa", "generate", MODEL, "--prompt", "Once upon a time", "--max-tokens", "8")
        self.assertEqual(run(model, MODEL, **environment).splitlines(), [
            "6 layers, 8 query heads, 6144 bytes a token",
            "There and back again.",
            generated.splitlines()[0],
            "exit code 66",
        ])

    def moved(self, *components):
        """A prefix that is no longer where it was installed."""
        install(self.root / "first/prefix", *components)
        (self.root / "first").rename(self.root / "second")
        return self.root / "second/prefix"

    def test_cmake(self):
        prefix = self.moved()
        project = self.consumer("cmake")
        for kind in ["shared", "static"]:
            with self.subTest(kind):
                build = self.cmake(
                    project, "--fresh", f"-DCMAKE_PREFIX_PATH={prefix}", f"-DKIND={kind}")
                self.check_programs(build)
                links = "libgqa-attention" in str(list(needed(build / "attention")))
                self.assertEqual(links, kind == "shared")

    def test_pkg_config(self):
        prefix = self.moved("gqa_shared", "gqa_development")
        libraries = prefix / "lib"
        project = self.consumer("pkgconfig")
        # No module of any other package is to be found.
        run("make", "-C", project, PKG_CONFIG_LIBDIR=libraries / "pkgconfig")
        self.check_programs(project, LD_LIBRARY_PATH=libraries)

    def test_pkg_config_static(self):
        prefix = self.moved("gqa_static", "gqa_development")
        project = self.consumer("pkgconfig")
        run("make", "-C", project, "KIND=--static", PKG_CONFIG_LIBDIR=prefix / "lib/pkgconfig")
        self.check_programs(project)

    def test_attention_needs_no_other_packages(self):
        """Static libraries of gqa::attention are found where those of gqa::gqa could not be."""
        prefix = self.moved("gqa_static", "gqa_development")
        build = self.cmake(self.consumer("cmake"), f"-DCMAKE_PREFIX_PATH={prefix}",
                           "-DATTENTION_ONLY=ON", *DISABLED)
        self.assertEqual(run(build / "attention"), ATTENTION_SAYS)

    def test_what_is_not_installed_is_said(self):
        prefix = self.moved("gqa_static", "gqa_development")
        project = self.consumer("cmake")
        for kind, message in [
            ("shared", "no shared libraries of gqa are installed in"),
            ("abacus", "no component 'abacus' in this gqa; it has attention|gqa|shared|static"),
        ]:
            with self.subTest(kind), self.assertRaises(AssertionError) as caught:
                self.cmake(project, "--fresh", f"-DCMAKE_PREFIX_PATH={prefix}", f"-DKIND={kind}")
            self.assertIn(message, " ".join(str(caught.exception).split()))

    def test_no_path_of_the_tree(self):
        prefix = self.moved()
        checked = set()
        for path in prefix.rglob("*"):
            if path.suffix in (".cmake", ".pc", ".h"):
                text = path.read_text()
                checked.add(path.suffix)
                for place in [SOURCE, BUILD, self.root]:
                    self.assertNotIn(str(place), text, path)
            elif ".so" in path.suffixes or path.name == "gqa" and path.parent.name == "bin":
                checked.add("binary")
                dynamic = run("readelf", "-d", path)
                for place in [SOURCE, BUILD, self.root]:
                    self.assertNotIn(str(place), dynamic, path)
        self.assertEqual(checked, {".cmake", ".pc", ".h", "binary"})

    def test_licence(self):
        prefix = self.moved("gqa_documents")
        self.assertEqual(
            (prefix / "share/doc/gqa/LICENSE").read_bytes(), (SOURCE / "LICENSE").read_bytes())


if __name__ == "__main__":
    unittest.main()
