# Included into a mutant's build (run.py): what else the kernels are compiled with.
cmake_language(EVAL CODE "cmake_language(DEFER CALL target_compile_options gqa_kernels PRIVATE [[${GQA_MUTANT_KERNELS}]])")
