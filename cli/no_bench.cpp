// `gqa bench` in a build that leaves it out.
#include "cli/verbs.h"
#include "gqa/error.h"

namespace gqa::cli {

void declare_bench(Command& verb) {
  verb.summary = "Not in this gqa, which was built with GQA_BENCH=OFF";
  verb.takes_anything = true;
  verb.run = []() -> int {
    throw Error(ErrorKind::usage,
                "this gqa was built without `gqa bench` (GQA_BENCH=OFF): build it with "
                "-DGQA_BENCH=ON, which needs oneDNN and OpenMP");
  };
}

}  // namespace gqa::cli
