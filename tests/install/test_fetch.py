"""A project that takes gqa's sources in by FetchContent, without a network."""

import os
import shutil
import unittest

from installed import ATTENTION_SAYS, BUILD, CMAKE, CONSUMERS, CXX, SOURCE, InstallCase, run

LAUNCHER = os.environ["GQA_LAUNCHER"]
# What gqa::attention does without.
DISABLED = [
    f"-DCMAKE_DISABLE_FIND_PACKAGE_{package}=ON"
    for package in ["OpenSSL", "nlohmann_json", "Eigen3", "OpenMP", "CLI11", "GTest"]
]


class FetchTest(InstallCase):
    def configure(self, build, *options):
        run(CMAKE, "--fresh", "-S", CONSUMERS / "fetch", "-B", build, "-G", "Ninja",
            f"-DGQA_SOURCE={SOURCE}", f"-DCMAKE_CXX_COMPILER={CXX}", *options)

    def targets(self, build):
        """What the parent's plain build makes."""
        return run("ninja", "-C", build, "-t", "query", "all")

    def test_attention(self):
        # Beside the build, where ccache has met the paths of the same objects.
        build = BUILD.with_name(f"{BUILD.name}-fetch")
        self.addCleanup(shutil.rmtree, build, ignore_errors=True)
        self.configure(build, "-DGQA_ATTENTION_ONLY=ON", *DISABLED,
                       f"-DCMAKE_CXX_COMPILER_LAUNCHER={LAUNCHER}",
                       f"-DCMAKE_BUILD_TYPE={os.environ['GQA_BUILD_TYPE']}",
                       f"-DCMAKE_CXX_FLAGS_{os.environ['GQA_BUILD_TYPE'].upper()}={os.environ['GQA_FLAGS']}")
        if not LAUNCHER:  # one layer stands for all: each would be compiled anew
            run(CMAKE, "--build", build, "--target", "gqa_core")
            return
        run(CMAKE, "--build", build, "--parallel", "2", CCACHE_BASEDIR=SOURCE)
        self.assertEqual(run(build / "attention"), ATTENTION_SAYS)

    def test_everything_is_there_but_not_built(self):
        build = self.root / "build"
        self.configure(build)
        built = self.targets(build)
        self.assertIn("attention", built)
        for target in ["libgqa.", "gqa_test", "example_attend", "core_test"]:
            self.assertNotIn(target, built)
        self.assertIn("libgqa.a", run("ninja", "-C", build, "-t", "targets", "all"))


if __name__ == "__main__":
    unittest.main()
