"""The packages that CPack makes: what they say of themselves, and that the program in them runs."""

import os
import shutil
import unittest

from installed import BUILD, CMAKE, VERSION, InstallCase, run

CPACK = os.path.join(os.path.dirname(CMAKE), "cpack")
MISSING = [tool for tool in ["dpkg-deb", "dpkg-shlibdeps", "file"] if not shutil.which(tool)]


class PackageTest(InstallCase):
    def package(self, generator, suffix):
        run(CPACK, "--config", BUILD / "CPackConfig.cmake", "-G", generator, "-B", self.root / "packages")
        (found,) = (self.root / "packages").glob(f"*{suffix}")
        return found

    def check_tree(self, prefix):
        self.assertEqual(run(prefix / "bin/gqa", "--version"), f"gqa {VERSION}\n")
        for file in ["include/gqa/attention.h", "include/gqa/version.h", "lib/libgqa.so", "lib/libgqa.a",
                     "lib/libgqa-attention.so", "lib/libgqa-attention.a", "lib/pkgconfig/gqa.pc",
                     "lib/cmake/gqa/gqa-config.cmake", "share/doc/gqa/LICENSE", "share/doc/gqa/README.md"]:
            self.assertTrue((prefix / file).is_file(), file)
        for shell, file in [("bash", "share/bash-completion/completions/gqa"),
                            ("zsh", "share/zsh/vendor-completions/_gqa")]:
            self.assertEqual((prefix / file).read_text(), run(prefix / "bin/gqa", "completion", shell))
        for path in prefix.rglob("*"):
            if "share/doc" not in str(path):  # which tells how it is tested
                self.assertNotIn("test", path.name)

    @unittest.skipIf(MISSING, f"not here: {MISSING}")
    def test_deb(self):
        package = self.package("DEB", ".deb")
        run("dpkg-deb", "-x", package, self.root / "tree")
        self.check_tree(self.root / "tree/usr")
        self.assertTrue((self.root / "tree/usr/share/doc/gqa/copyright").is_file())

        def field(name):
            return run("dpkg-deb", "-f", package, name).strip()

        self.assertEqual(field("Package"), "gqa")
        self.assertEqual(field("Version"), VERSION)
        self.assertEqual(field("Architecture"), run("dpkg", "--print-architecture").strip())
        for library in ["libc6", "libstdc++6", "libfmt", "libhwy", "libonig", "libssl", "libopenblas0-pthread"]:
            self.assertIn(library, field("Depends"))
        for needed in ["libfmt-dev", "libhwy-dev", "libopenblas-pthread-dev"]:
            self.assertIn(needed, field("Suggests"))
        self.assertIn("grouped-query attention", field("Description").lower())
        self.assertIn("ldconfig", run("dpkg-deb", "-I", package, "postinst"))
        self.assertIn("libgqa-attention", run("dpkg-deb", "-I", package, "shlibs"))

    def test_tar(self):
        package = self.package("TGZ", ".tar.gz")
        self.assertIn(VERSION, package.name)
        shutil.unpack_archive(package, self.root / "tree")
        (prefix,) = (self.root / "tree").iterdir()
        self.check_tree(prefix)


if __name__ == "__main__":
    unittest.main()
